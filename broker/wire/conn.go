package wire

import "net"

// Conn is one client's connection.
type Conn struct{}

// Listener is the name of the listener that the client came in on.
func (c *Conn) Listener() string { panic("todo") }

// Protocol is the security protocol of that listener.
func (c *Conn) Protocol() string { panic("todo") }

// RemoteAddr is the client's address.
func (c *Conn) RemoteAddr() net.Addr { panic("todo") }

// RemoteHost is the client's address without port, e.g. 10.0.0.1.
func (c *Conn) RemoteHost() string { panic("todo") }

// Principal is who logged in, e.g. User:alice; User:ANONYMOUS on listeners without login.
func (c *Conn) Principal() string { panic("todo") }

// SetPrincipal ends the login phase.
func (c *Conn) SetPrincipal(principal string) { panic("todo") }

// Software is the client library's name and version as told by ApiVersions v3 and later. Source: KIP-511.
func (c *Conn) Software() (name, version string) { panic("todo") }

// ID tells connections apart in logs; it is unique within the process.
func (c *Conn) ID() uint64 { panic("todo") }
