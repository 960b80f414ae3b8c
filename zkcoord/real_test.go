package zkcoord_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"ottla/internal/testzk"
	"ottla/zkcoord"
	"ottla/zkcoord/zktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ensemble is a real ensemble and the passwords of the sessions that were opened on it.
type ensemble struct {
	*testzk.Ensemble
	mu        sync.Mutex
	passwords map[int64][]byte
}

func startEnsemble(t testing.TB, servers int) *ensemble {
	if testing.Short() {
		t.Skip("starts ZooKeeper")
	}
	return &ensemble{Ensemble: testzk.Start(t, servers), passwords: make(map[int64][]byte)}
}

func (e *ensemble) options(t testing.TB) zkcoord.Options {
	return zkcoord.Options{
		Connect: e.Connect, SessionTimeout: 6 * time.Second, ConnectionTimeout: 20 * time.Second, Dial: e.dial,
		TickTime: testzk.TickTime, SyncLimit: testzk.SyncLimit, Logger: zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel),
	}
}

func (e *ensemble) connect(t testing.TB, o zkcoord.Options) *zkcoord.Client {
	t.Helper()
	c, err := zkcoord.Connect(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func (e *ensemble) dial(network, address string, timeout time.Duration) (net.Conn, error) {
	conn, err := net.DialTimeout(network, address, timeout)
	if err != nil {
		return nil, err
	}
	return &listeningConn{Conn: conn, e: e}, nil
}

// listeningConn notes the password in the answer to the connect request: int32 length, int32 version, int32 timeout, int64 session
// id, password.
type listeningConn struct {
	net.Conn
	e     *ensemble
	start []byte
}

func (c *listeningConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if len(c.start) < 40 {
		c.start = append(c.start, p[:n]...)
		if len(c.start) >= 40 {
			c.e.mu.Lock()
			c.e.passwords[int64(binary.BigEndian.Uint64(c.start[12:]))] = c.start[24:40]
			c.e.mu.Unlock()
		}
	}
	return n, err
}

// expire takes the session over on a connection of its own and closes it. The client reconnects at once and takes it back, which
// may be too early: then it is done again.
func (e *ensemble) expire(t *testing.T, session zkcoord.Session) {
	t.Helper()
	for range 50 {
		e.closeSession(t, session.ID())
		select {
		case <-session.Done():
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
	t.Fatal("the session could not be ended")
}

func (e *ensemble) closeSession(t *testing.T, id int64) {
	t.Helper()
	e.mu.Lock()
	password := e.passwords[id]
	e.mu.Unlock()
	conn, err := net.Dial("tcp", e.Address(1))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	request := binary.BigEndian.AppendUint32(nil, 0)
	request = binary.BigEndian.AppendUint64(request, 0)
	request = binary.BigEndian.AppendUint32(request, 6000)
	request = binary.BigEndian.AppendUint64(request, uint64(id))
	request = binary.BigEndian.AppendUint32(request, uint32(len(password)))
	if err := exchange(conn, append(request, password...)); err != nil {
		return // taken back already
	}
	request = binary.BigEndian.AppendUint32(nil, 1)
	request = binary.BigEndian.AppendUint32(request, 0xfffffff5) // closeSession, -11
	_ = exchange(conn, request)                                  // the answer may be the end of the connection
}

func exchange(conn net.Conn, payload []byte) error {
	if _, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(payload))), payload...)); err != nil {
		return err
	}
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	length := make([]byte, 4)
	if _, err := io.ReadFull(conn, length); err != nil {
		return err
	}
	_, err := io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(length)))
	return err
}

func TestRealServerKeepsTheContract(t *testing.T) {
	e := startEnsemble(t, 1)
	for name, chroot := range map[string]string{"without chroot": "", "with chroot": "/kafka/prod"} {
		t.Run(name, func(t *testing.T) {
			zktest.Contract(t, zktest.Ensemble{
				Open: func(t *testing.T) zkcoord.Session {
					o := e.options(t)
					o.Connect += chroot
					return e.connect(t, o).Session()
				},
				Expire: func(t *testing.T, s zkcoord.Session) { e.expire(t, s) },
			})
		})
	}
}
