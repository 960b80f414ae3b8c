package zkcoord

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

const defaultPort = 2181

// parseConnect splits zookeeper.connect into servers and chroot ("" = none): everything after the first slash is the chroot.
func parseConnect(connect string) (servers []string, chroot string, err error) {
	hosts, chroot, _ := strings.Cut(strings.TrimSpace(connect), "/")
	for host := range strings.SplitSeq(hosts, ",") {
		host = strings.TrimSpace(host)
		if host == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(host); err != nil {
			host = net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(defaultPort))
		}
		servers = append(servers, host)
	}
	if len(servers) == 0 {
		return nil, "", fmt.Errorf("%w: zookeeper.connect %q names no server", ErrInvalid, connect)
	}
	chroot = strings.TrimSuffix(chroot, "/")
	if chroot == "" {
		return servers, "", nil
	}
	chroot = "/" + chroot
	if err := checkPath(chroot); err != nil {
		return nil, "", fmt.Errorf("zookeeper.connect %q: %w", connect, err)
	}
	return servers, chroot, nil
}

// checkPath refuses what ZooKeeper refuses: a server answers some of these by closing the connection.
func checkPath(path string) error {
	if path == "/" {
		return nil
	}
	bad := func(why string) error { return fmt.Errorf("%w: path %q %s", ErrInvalid, path, why) }
	if !strings.HasPrefix(path, "/") {
		return bad("does not begin with a slash")
	}
	if !utf8.ValidString(path) {
		return bad("is not UTF-8")
	}
	for name := range strings.SplitSeq(path[1:], "/") {
		if name == "" || name == "." || name == ".." {
			return bad("has an empty or relative part")
		}
	}
	for _, r := range path {
		if r <= 0x1f || r >= 0x7f && r <= 0x9f || r >= 0xd800 && r <= 0xf8ff || r >= 0xfff0 && r <= 0xffff {
			return bad("has a character that ZooKeeper does not accept")
		}
	}
	return nil
}

// hosts gives the library the servers in turn. Names are resolved by the dialer, at every attempt, so that a server may come back
// under another address. After a round without success the library pauses a second.
type hosts struct {
	mu      sync.Mutex
	servers []string
	next    int
	tries   int // since the last success
	closed  bool
}

// Init implements the library's HostProvider; the library has shuffled the servers.
func (h *hosts) Init(servers []string) error {
	h.servers = servers
	return nil
}

// Len implements the library's HostProvider.
func (h *hosts) Len() int { return len(h.servers) }

// Next implements the library's HostProvider. retryStart makes it pause, and notice that it was closed.
func (h *hosts) Next() (server string, retryStart bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	server = h.servers[h.next]
	h.next = (h.next + 1) % len(h.servers)
	h.tries++
	round := h.tries > 1 && (h.tries-1)%len(h.servers) == 0
	return server, round || h.closed
}

// Connected implements the library's HostProvider.
func (h *hosts) Connected() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tries = 0
}

func (h *hosts) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
}
