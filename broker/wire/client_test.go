package wire

import (
	"context"
	"encoding/binary"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestRoundTripEndsWithItsDeadlineAndBreaksTheConnection(t *testing.T) {
	_, addr := serve(t, Options{Table: NewTable(heartbeatAPI(func(*Request) {}))})
	for name, run := range map[string]func(c *Client) error{
		"deadline of the context": func(c *Client) error {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			_, err := c.RoundTrip(ctx, heartbeat(4))
			return err
		},
		"context cancelled": func(c *Client) error {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(20*time.Millisecond, cancel)
			_, err := c.RoundTrip(ctx, heartbeat(4))
			require.ErrorIs(t, err, context.Canceled)
			return err
		},
		"closed": func(c *Client) error {
			time.AfterFunc(20*time.Millisecond, func() { _ = c.Close() })
			_, err := c.RoundTrip(t.Context(), heartbeat(4))
			return err
		},
		"timeout": func(c *Client) error {
			c.o.Timeout = 20 * time.Millisecond
			_, err := c.RoundTrip(t.Context(), heartbeat(4))
			return err
		},
	} {
		c := dialTest(t, addr, DialOptions{})
		require.Error(t, run(c), name)
		_, err := c.RoundTrip(t.Context(), heartbeat(4))
		require.ErrorIs(t, err, errLeftOver, name)
	}
}

// answering serves one connection with fixed bytes for whatever is asked.
func answering(t *testing.T, answer func(correlationID uint32) []byte) DialOptions {
	return DialOptions{Timeout: 2 * time.Second, Dial: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			p := &peer{t, theirs}
			b, err := p.frame()
			if err != nil {
				return
			}
			_, _ = theirs.Write(answer(binary.BigEndian.Uint32(b[4:])))
		}()
		return ours, nil
	}}
}

func TestAnswersThatAreWrongBreakTheConnection(t *testing.T) {
	for name, answer := range map[string]func(id uint32) []byte{
		"other request":   func(id uint32) []byte { return []byte{0, 0, 0, 6, 0, 0, 0, byte(id + 1), 0, 0} },
		"negative length": func(uint32) []byte { return []byte{0xff, 0, 0, 6} },
		"too long":        func(uint32) []byte { return []byte{0x7f, 0, 0, 6} },
		"too short":       func(uint32) []byte { return []byte{0, 0, 0, 3, 0, 0, 0} },
		"cut off":         func(id uint32) []byte { return []byte{0, 0, 0, 60, 0, 0, 0, byte(id), 0} },
		"no body":         func(id uint32) []byte { return []byte{0, 0, 0, 4, 0, 0, 0, byte(id)} },
	} {
		c := dialTest(t, "pipe", answering(t, answer))
		_, err := c.RoundTrip(t.Context(), heartbeat(0))
		require.Error(t, err, name)
		_, err = c.RoundTrip(t.Context(), heartbeat(0))
		require.Error(t, err, name)
	}
}

func TestProduceWithoutAcksHasNoAnswer(t *testing.T) {
	got := make(chan string, 1)
	_, addr := serve(t, Options{Table: NewTable(API{Key: 0, Max: 11, Handle: func(r *Request) {
		got <- r.Body.(*kmsg.ProduceRequest).Topics[0].Topic
		r.NoResponse()
	}}, heartbeatAPI(answerHeartbeat))})
	c := dialTest(t, addr, DialOptions{Source: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}})
	require.Equal(t, "127.0.0.2", c.LocalAddr().(*net.TCPAddr).IP.String())
	req := produceRequest(9, 1)
	req.Acks = 0
	resp, err := c.RoundTrip(t.Context(), req)
	require.NoError(t, err)
	require.Nil(t, resp)
	require.Equal(t, "a-topic-with-a-name", <-got)
	_, err = c.RoundTrip(t.Context(), heartbeat(4))
	require.NoError(t, err)
}

func TestStopReplicaTravelsInKafkasLayout(t *testing.T) {
	epochs := make(chan int32, 5)
	_, addr := serve(t, Options{Table: NewTable(API{Key: 5, Max: 4, Handle: func(r *Request) {
		epochs <- r.Body.(*kmsg.StopReplicaRequest).ControllerEpoch
		r.Respond(r.Body.ResponseKind())
	}})})
	c := dialTest(t, addr, DialOptions{})
	for version := int16(0); version <= 4; version++ {
		req := kmsg.NewPtrStopReplicaRequest()
		req.Version, req.ControllerEpoch = version, 7
		_, err := c.RoundTrip(t.Context(), req)
		require.NoError(t, err)
		require.EqualValues(t, 7, <-epochs)
	}
}
