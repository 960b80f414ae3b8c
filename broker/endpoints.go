package broker

import (
	"encoding/binary"
	"net"
	"os"
	"strconv"
	"strings"

	"ottla/internal/cluster"
)

// canonicalHost is what a listener without host advertises.
func canonicalHost() string {
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	if full, err := net.LookupCNAME(name); err == nil && full != "" {
		return strings.TrimSuffix(full, ".")
	}
	return name
}

func portOf(a net.Addr) int32 {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return int32(tcp.Port)
	}
	return -1
}

func sameEndpoints(a, b []cluster.Endpoint) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func endpointList(endpoints []cluster.Endpoint) string {
	names := make([]string, len(endpoints))
	for i, e := range endpoints {
		names[i] = e.Listener + "://" + hostPort(e.Host, e.Port)
	}
	return strings.Join(names, ",")
}

// sessionBytes makes session ids print as ZooKeeper prints them.
func sessionBytes(id int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(id)) }

func hostPort(host string, port int32) string { return net.JoinHostPort(host, strconv.Itoa(int(port))) }

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
