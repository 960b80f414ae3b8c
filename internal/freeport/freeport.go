// Package freeport finds loopback ports for servers that tests start.
package freeport

import (
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// The ports lie below those that the kernel gives to outgoing connections (from 32768 on Linux): one that is free now and
// used a moment later, or again after a restart, is then not taken by some client meanwhile.
const (
	lowest  = 10_000
	highest = 32_000
)

// Find returns n ports of 127.0.0.1 that are free now and differ from each other.
func Find(t testing.TB, n int) []int {
	t.Helper()
	var ports []int
	for tries := 0; len(ports) < n; tries++ {
		if tries > 100*n {
			t.Fatalf("found %d free ports of %d", len(ports), n)
		}
		port := lowest + rand.IntN(highest-lowest)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		defer l.Close() // all stay taken until all are found
		ports = append(ports, port)
	}
	return ports
}
