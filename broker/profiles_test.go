package broker

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestProfilesAreServedToThisMachineOnly(t *testing.T) {
	mux := http.NewServeMux()
	addProfiles(mux)
	for from, status := range map[string]int{"127.0.0.1:5": 200, "[::1]:5": 200, "10.1.2.3:5": 403, "": 403} {
		r := httptest.NewRequest("GET", "/debug/pprof/goroutine?debug=1", nil)
		r.RemoteAddr = from
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		require.Equal(t, status, w.Code, from)
	}
}
