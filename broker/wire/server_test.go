package wire

import (
	"context"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts a server on loopback and returns its address.
func serve(t testing.TB, o Options) (*Server, string) {
	t.Helper()
	if len(o.Listeners) == 0 {
		o.Listeners = []Listener{{Name: "PLAINTEXT", Protocol: "PLAINTEXT", Addr: "127.0.0.1:0"}}
	}
	o.Logger = zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel)
	s, err := NewServer(o)
	require.NoError(t, err)
	s.Serve()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = s.Close(ctx)
	})
	return s, s.Addr(o.Listeners[0].Name).String()
}

func dialTest(t testing.TB, addr string, o DialOptions) *Client {
	t.Helper()
	o.ClientID = "test"
	c, err := Dial(context.Background(), addr, o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func heartbeatAPI(h func(*Request)) API { return API{Key: 12, Min: 0, Max: 4, Handle: h} }

func answerHeartbeat(r *Request) { r.Respond(r.Body.ResponseKind()) }

func TestRoundTripAnswersInTheVersionOfTheRequest(t *testing.T) {
	_, addr := serve(t, Options{Table: NewTable(heartbeatAPI(func(r *Request) {
		resp := r.Body.ResponseKind().(*kmsg.HeartbeatResponse)
		resp.ErrorCode = int16(r.Body.(*kmsg.HeartbeatRequest).Generation)
		require.Equal(t, "test", r.ClientID)
		require.Equal(t, "PLAINTEXT", r.Conn.Listener())
		r.Respond(resp)
	}))})
	c := dialTest(t, addr, DialOptions{Negotiate: true})
	for v := int16(0); v <= 4; v++ {
		req := kmsg.NewPtrHeartbeatRequest()
		req.Version, req.Generation, req.Group = v, 40+int32(v), "g"
		resp, err := c.RoundTrip(t.Context(), req)
		require.NoError(t, err)
		require.Equal(t, v, resp.GetVersion())
		require.Equal(t, 40+v, resp.(*kmsg.HeartbeatResponse).ErrorCode)
	}
	req := kmsg.NewPtrHeartbeatRequest()
	req.Version = 9
	_, err := c.RoundTrip(t.Context(), req)
	require.NoError(t, err)
	require.EqualValues(t, 4, req.Version, "lowered to what the broker serves")
}
