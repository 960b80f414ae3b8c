package wire

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"reflect"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func FuzzParseHeader(f *testing.F) {
	allRequests(func(key, version int16, req kmsg.Request) {
		f.Add(appendRequestHeader(nil, key, version, 7, "client"))
	})
	f.Fuzz(func(t *testing.T, frame []byte) {
		h, body, err := parseHeader(frame)
		if err != nil {
			return
		}
		if len(body) > len(frame)-minHeaderBytes {
			t.Fatal("body longer than the frame")
		}
		again := appendRequestHeader(nil, h.key, h.version, h.correlationID, string(h.clientID))
		h2, _, err := parseHeader(again)
		require.NoError(t, err)
		require.Equal(t, string(h.clientID), string(h2.clientID))
		require.Equal(t, []any{h.key, h.version, h.correlationID}, []any{h2.key, h2.version, h2.correlationID})
	})
}

// FuzzConnection feeds a server whatever comes, in two pieces. It must neither panic nor stay busy, and answers only whole frames.
func FuzzConnection(f *testing.F) {
	rng := rand.New(rand.NewPCG(9, 9))
	allRequests(func(key, version int16, req kmsg.Request) {
		fill(rng, reflect.ValueOf(req).Elem(), 0)
		f.Add(append(requestFrame(1, req), requestFrame(2, heartbeat(4))...), uint16(20))
	})
	var apis []API
	for key := int16(0); key <= maxKey; key++ {
		if req := kmsg.RequestForKey(key); req != nil && key != keyAPIVersions {
			apis = append(apis, API{Key: key, Max: min(req.MaxVersion(), programVersions-1), Pipelined: key%2 == 0, Borrow: key%3 == 0,
				Handle: func(r *Request) { r.Respond(r.Body.ResponseKind()) }})
		}
	}
	l := newPipeListener()
	s, err := NewServer(Options{
		Table: NewTable(apis...), Listeners: []Listener{{Name: "P", Listener: l}}, Logger: zerolog.Nop(), MaxRequestBytes: 1 << 20,
	})
	require.NoError(f, err)
	s.Serve()
	f.Cleanup(func() { _ = s.Close(context.Background()) })
	f.Fuzz(func(t *testing.T, b []byte, cut uint16) {
		nc, err := l.dial(t.Context(), "", "")
		require.NoError(t, err)
		defer nc.Close()
		patience := 5 * time.Second
		if claims(b) {
			patience = 5 * time.Millisecond
		}
		_ = nc.SetDeadline(time.Now().Add(patience))
		go func() {
			at := min(int(cut), len(b))
			_, _ = nc.Write(b[:at])
			_, _ = nc.Write(b[at:])
			_, _ = nc.Write(requestFrame(77, heartbeat(0)))
			_, _ = nc.Write(make([]byte, 4)) // ends the connection at the latest
		}()
		p := &peer{t, nc}
		for {
			frame, err := p.frame()
			if err != nil {
				var ne net.Error
				if ok := asNetError(err, &ne); ok && ne.Timeout() && !claims(b) {
					t.Fatal("the server neither answers nor closes")
				}
				return
			}
			if len(frame) < 4 {
				t.Fatal("short frame")
			}
		}
	})
}

func asNetError(err error, ne *net.Error) bool {
	e, ok := err.(net.Error)
	*ne = e
	return ok
}

// claims reports whether the last frame of b wants more bytes than there are, so that the server rightly waits.
func claims(b []byte) bool {
	for len(b) >= 4 {
		n := uint64(binary.BigEndian.Uint32(b)) + 4
		if n > uint64(len(b)) {
			return true
		}
		b = b[n:]
	}
	return len(b) > 0
}
