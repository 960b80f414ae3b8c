package broker

import (
	"net"
	"net/http"
	"net/http/pprof"
)

// addProfiles serves the Go runtime's profiles to whoever looks from the broker's own machine: a profile costs CPU, and a heap
// dump holds what clients sent. Profiles over time must end before adminTimeout: ?seconds=20.
func addProfiles(mux *http.ServeMux) {
	for path, serve := range map[string]http.HandlerFunc{
		"/debug/pprof/": pprof.Index, "/debug/pprof/profile": pprof.Profile, "/debug/pprof/symbol": pprof.Symbol,
		"/debug/pprof/trace": pprof.Trace,
	} {
		mux.HandleFunc("GET "+path, fromHere(serve))
	}
}

// fromHere refuses requests from other machines.
func fromHere(serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
			http.Error(w, "profiles are served to this machine only", http.StatusForbidden)
			return
		}
		serve(w, r)
	}
}
