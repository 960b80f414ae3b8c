package harness

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// metadata asks a broker for what it knows of these topics; it creates none.
func metadata(address string, topics ...string) (*kmsg.MetadataResponse, error) {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	r := kmsg.NewPtrMetadataRequest()
	r.Version = 8
	r.Topics = []kmsg.MetadataRequestTopic{}
	for _, topic := range topics {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(topic)
		r.Topics = append(r.Topics, t)
	}
	resp, err := roundTrip(conn, r, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return resp.(*kmsg.MetadataResponse), nil
}

// Conn is a plain connection to a broker, for tests that say things no client would say.
type Conn struct {
	net.Conn
	t testing.TB
}

// Dial connects to a broker; the connection is closed with the test.
func Dial(t testing.TB, address string) *Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &Conn{conn, t}
}

// Ask sends a request at its version and returns the decoded response.
func Ask[R kmsg.Response](c *Conn, req kmsg.Request) R {
	c.t.Helper()
	resp, err := roundTrip(c, req, 15*time.Second)
	if err != nil {
		c.t.Fatalf("%s v%d: %v", kmsg.NameForKey(req.Key()), req.GetVersion(), err)
	}
	return resp.(R)
}

// Frame builds a whole request with its header and length.
func Frame(req kmsg.Request, correlationID int32) []byte {
	f := kmsg.NewRequestFormatter(kmsg.FormatterClientID("ottla-integration"))
	return f.AppendRequest(nil, req, correlationID)
}

// Closed reports whether the peer closes the connection within the time given, and how many bytes it sent before.
func (c *Conn) Closed(patience time.Duration) (closed bool, sent int) {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		sent += n
		if err != nil {
			timeout, ok := err.(net.Error)
			return !(ok && timeout.Timeout()), sent
		}
	}
}

func roundTrip(conn net.Conn, req kmsg.Request, patience time.Duration) (kmsg.Response, error) {
	_ = conn.SetDeadline(time.Now().Add(patience))
	const correlationID = 77
	if _, err := conn.Write(Frame(req, correlationID)); err != nil {
		return nil, err
	}
	var head [4]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size < 4 || size > 100<<20 {
		return nil, fmt.Errorf("response of %d bytes", size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(conn, body); err != nil {
		return nil, err
	}
	if got := binary.BigEndian.Uint32(body); got != correlationID {
		return nil, fmt.Errorf("correlation id %d, want %d", got, correlationID)
	}
	body = body[4:]
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	if resp.IsFlexible() && resp.Key() != 18 {
		if len(body) == 0 || body[0] != 0 {
			return nil, fmt.Errorf("response header with tags: %x", body[:min(8, len(body))])
		}
		body = body[1:]
	}
	return resp, resp.ReadFrom(body)
}
