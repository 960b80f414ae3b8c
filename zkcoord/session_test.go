package zkcoord_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"ottla/internal/cluster"
	"ottla/internal/testzk"
	"ottla/zkcoord"
)

// recorder is a Listener that notes what it hears. While held, SessionLost does not return.
type recorder struct {
	mu          sync.Mutex
	heard       []string
	held        chan struct{}
	lost        chan int64
	established chan zkcoord.Session
}

func newRecorder() *recorder {
	return &recorder{held: make(chan struct{}), lost: make(chan int64, 10), established: make(chan zkcoord.Session, 10)}
}

func (r *recorder) note(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heard = append(r.heard, what)
}

func (r *recorder) SessionLost(id int64, _ error) {
	r.note("lost")
	r.lost <- id
	<-r.held
	r.note("let go")
}

func (r *recorder) SessionEstablished(s zkcoord.Session) {
	r.note("established")
	r.established <- s
}

func (r *recorder) ConnectionChanged(connected bool) { r.note(fmt.Sprint("connected ", connected)) }

// TestNothingOfAnOldSessionRunsInTheNextOne: writers that plan in the old session go on while it expires; what they create is
// ephemeral, so whatever is there in the end belongs to the new session.
func TestNothingOfAnOldSessionRunsInTheNextOne(t *testing.T) {
	e := startEnsemble(t, 1)
	r := newRecorder()
	o := e.options(t)
	o.Listener = r
	c := e.connect(t, o)
	old := c.Session()
	require.NoError(t, old.CreateAll("/w", nil))
	var wg sync.WaitGroup
	var created atomic.Int64
	for w := range 100 { // far more than the library queues
		wg.Go(func() {
			for i := 0; ; i++ {
				_, err := old.Create(fmt.Sprintf("/w/%d-%d", w, i), nil, zkcoord.Ephemeral)
				if errors.Is(err, zkcoord.ErrSessionLost) {
					return
				}
				if err == nil {
					created.Add(1)
				} else if !errors.Is(err, zkcoord.ErrConnectionLost) {
					t.Error(err)
					return
				}
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	e.expire(t, old)
	require.Equal(t, old.ID(), <-r.lost)
	require.Positive(t, created.Load())
	time.Sleep(300 * time.Millisecond)
	require.Same(t, old, c.Session(), "the next session is opened only after the listener let go")
	require.False(t, c.LeaseValid())
	close(r.held)
	next := <-r.established
	wg.Wait()
	require.NotEqual(t, old.ID(), next.ID())
	require.Same(t, next, c.Session())
	require.True(t, c.LeaseValid())
	require.Eventually(t, func() bool {
		names, _, err := next.Children("/w")
		return err == nil && len(names) == 0
	}, 10*time.Second, 50*time.Millisecond, "something was created outside its session")
	r.mu.Lock()
	defer r.mu.Unlock()
	heard := strings.Join(r.heard, ", ")
	require.Contains(t, heard, "lost, let go, connected true, established")
	require.Equal(t, 1, strings.Count(heard, "established"))
}

func TestLeaseEndsWhileTheEnsembleStandsStill(t *testing.T) {
	e := startEnsemble(t, 1)
	r := newRecorder()
	close(r.held)
	o := e.options(t)
	o.SessionTimeout, o.Listener = 4*time.Second, r
	c := e.connect(t, o)
	length, proven := c.LeaseLength()
	require.Equal(t, 4*time.Second-(testzk.SyncLimit+1)*testzk.TickTime, length)
	require.True(t, proven)
	time.Sleep(length) // it is renewed
	require.True(t, c.LeaseValid())
	e.Pause(1)
	time.Sleep(length + 50*time.Millisecond)
	require.False(t, c.LeaseValid())
	time.Sleep(4 * time.Second)
	e.Resume(1)
	require.Eventually(t, c.LeaseValid, 10*time.Second, 20*time.Millisecond, "in the old session or in the next one")
}

// gate is a dialer that can cut the connections, refuse new ones, and swallow answers.
type gate struct {
	mu      sync.Mutex
	shut    bool
	conns   []net.Conn
	swallow atomic.Bool
}

func (g *gate) dial(network, address string, timeout time.Duration) (net.Conn, error) {
	conn, err := net.DialTimeout(network, address, timeout)
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil || g.shut {
		return nil, errors.Join(err, errors.New("the gate is shut"))
	}
	g.conns = append(g.conns, conn)
	return &gatedConn{Conn: conn, g: g}, nil
}

func (g *gate) cut(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = shut
	for _, conn := range g.conns {
		_ = conn.Close()
	}
	g.conns = nil
}

type gatedConn struct {
	net.Conn
	g *gate
}

func (c *gatedConn) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if err != nil || !c.g.swallow.Load() {
			return n, err
		}
	}
}

func TestWatchesReportWhatHappenedWithoutConnection(t *testing.T) {
	e := startEnsemble(t, 1)
	other := e.connect(t, e.options(t)).Session()
	g := &gate{}
	o := e.options(t)
	o.Dial = g.dial
	c := e.connect(t, o)
	s := c.Session()
	require.NoError(t, s.CreateAll("/a/child", nil))
	require.NoError(t, s.CreateAll("/gone", nil))
	var told [5]atomic.Int32
	for i, watch := range []func(func()) (func(), error){
		func(fn func()) (func(), error) { return s.WatchData("/a", fn) },
		func(fn func()) (func(), error) { return s.WatchChildren("/a", fn) },
		func(fn func()) (func(), error) { return s.WatchData("/new", fn) },
		func(fn func()) (func(), error) { return s.WatchChildren("/gone", fn) },
		func(fn func()) (func(), error) { return s.WatchData("/a/child", fn) }, // nothing happens to it
	} {
		_, err := watch(func() { told[i].Add(1) })
		require.NoError(t, err)
	}
	for round := range 3 {
		g.cut(true)
		_, err := other.Set("/a", nil, zkcoord.AnyVersion)
		require.NoError(t, err)
		require.NoError(t, other.CreateAll(fmt.Sprint("/a/", round), nil))
		if round%2 == 0 {
			require.NoError(t, other.CreateAll("/new", nil))
			require.NoError(t, other.Delete("/gone", zkcoord.AnyVersion))
		} else {
			require.NoError(t, other.Delete("/new", zkcoord.AnyVersion))
			require.NoError(t, other.CreateAll("/gone", nil))
		}
		g.cut(false)
		require.Eventually(t, func() bool {
			for i := range 4 {
				if told[i].Load() < int32(round+1) {
					return false
				}
			}
			return true
		}, 10*time.Second, 10*time.Millisecond, "round %d", round)
	}
	require.Zero(t, told[4].Load())
	require.False(t, isDone(s))
}

func isDone(s zkcoord.Session) bool {
	select {
	case <-s.Done():
		return true
	default:
		return false
	}
}

func TestLostAnswerOfAWriteIsSaid(t *testing.T) {
	e := startEnsemble(t, 1)
	g := &gate{}
	o := e.options(t)
	o.Dial = g.dial
	s := e.connect(t, o).Session()
	require.NoError(t, s.CreateAll("/a", nil))
	g.swallow.Store(true)
	time.AfterFunc(200*time.Millisecond, func() {
		g.swallow.Store(false)
		g.cut(false)
	})
	_, err := s.Set("/a", []byte("x"), 0)
	require.ErrorIs(t, err, zkcoord.ErrConnectionLost)
	data, stat, err := s.Get("/a") // waits for the connection, in the same session
	require.NoError(t, err)
	require.Equal(t, "x", string(data))
	require.EqualValues(t, 1, stat.Version)

	// Reads are repeated, by the library's way and by our own.
	for range 5 {
		time.AfterFunc(20*time.Millisecond, func() { g.cut(false) })
		for range 200 {
			_, _, err := s.Get("/a")
			require.NoError(t, err)
			for _, r := range s.GetMany([]string{"/a", "/a"}) {
				require.NoError(t, r.Err)
			}
		}
	}
}

func TestServerThatHangsDoesNotEatTheSession(t *testing.T) {
	e := startEnsemble(t, 1)
	hanging, err := net.Listen("tcp", "127.0.0.1:0") // accepts, in the kernel's queue, and says nothing
	require.NoError(t, err)
	defer hanging.Close()
	o := e.options(t)
	o.Connect = hanging.Addr().String() + "," + e.Connect
	o.SessionTimeout = 3 * time.Second
	for range 4 { // the library shuffles the servers
		start := time.Now()
		c, err := zkcoord.Connect(context.Background(), o)
		require.NoError(t, err)
		require.Less(t, time.Since(start), 2500*time.Millisecond, "half the session timeout, plus the rest")
		c.Close()
	}
}

func TestConnectGivesUp(t *testing.T) {
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer nobody.Close()
	go func() { // no ZooKeeper: claims a frame of a gigabyte
		for {
			conn, err := nobody.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
			_ = conn.Close()
		}
	}()
	o := zkcoord.Options{Connect: nobody.Addr().String(), SessionTimeout: time.Second, ConnectionTimeout: 300 * time.Millisecond, Logger: zerolog.Nop()}
	_, err = zkcoord.Connect(context.Background(), o)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = zkcoord.Connect(ctx, o)
	require.ErrorIs(t, err, context.Canceled)
}

func TestTooLargeRequestIsRefusedBeforeItHarmsTheConnection(t *testing.T) {
	e := startEnsemble(t, 1)
	s := e.connect(t, e.options(t)).Session()
	large := bytes.Repeat([]byte("x"), 1<<20)
	_, err := s.Create("/large", large, zkcoord.Persistent)
	require.ErrorIs(t, err, zkcoord.ErrInvalid)
	_, err = s.Multi(zkcoord.CreateOp("/a", large[:1<<19], zkcoord.Persistent), zkcoord.CreateOp("/b", large[:1<<19], zkcoord.Persistent))
	require.ErrorIs(t, err, zkcoord.ErrInvalid)
	fits := large[:1<<20-1-200]
	_, err = s.Create("/fits", fits, zkcoord.Persistent)
	require.NoError(t, err)
	for _, r := range s.GetMany([]string{"/fits", "/fits", "/none"}) {
		if r.Err == nil && len(r.Data) != len(fits) {
			t.Errorf("%d bytes", len(r.Data))
		}
	}
}

func TestSessionSurvivesTheLossOfItsServer(t *testing.T) {
	e := startEnsemble(t, 3)
	c := e.connect(t, e.options(t))
	s := c.Session()
	require.NoError(t, s.CreateAll("/a", nil))
	_, err := s.Create("/e", nil, zkcoord.Ephemeral)
	require.NoError(t, err)
	for n := 1; n <= 3; n++ {
		e.Kill(n)
		for range 20 {
			_, err := s.Set("/a", nil, zkcoord.AnyVersion)
			if err != nil && !errors.Is(err, zkcoord.ErrConnectionLost) {
				t.Fatal(err)
			}
			_, _, err = s.Get("/a")
			require.NoError(t, err)
		}
		e.Restart(n)
	}
	require.False(t, isDone(s))
	found, _, err := s.Exists("/e")
	require.NoError(t, err)
	require.True(t, found)
}

func TestRealElectionRace(t *testing.T) {
	e := startEnsemble(t, 1)
	electionRace(t, 4, 8, func() (zkcoord.Session, func()) {
		c := e.connect(t, e.options(t))
		return c.Session(), c.Close
	})
}

func TestRealRegistrationTakeover(t *testing.T) {
	e := startEnsemble(t, 1)
	first, second := e.connect(t, e.options(t)), e.connect(t, e.options(t))
	require.NoError(t, zkcoord.EnsurePaths(first.Session()))
	a, err := zkcoord.RegisterBroker(first.Session(), 1, registration(1), 0)
	require.NoError(t, err)
	var taken *zkcoord.ErrBrokerIDTaken
	_, err = zkcoord.RegisterBroker(second.Session(), 1, registration(1), 0)
	require.ErrorAs(t, err, &taken)
	b, err := zkcoord.RegisterBroker(second.Session(), 1, registration(1), first.Session().ID())
	require.NoError(t, err)
	require.Greater(t, b, a)
	first.Close()
	brokers, err := zkcoord.Brokers(second.Session())
	require.NoError(t, err)
	require.Len(t, brokers, 1)
	require.Equal(t, b, brokers[0].Epoch)
}

func BenchmarkStates(b *testing.B) {
	const n = 10_000
	e := startEnsemble(b, 1)
	o := e.options(b)
	o.Dial = nil
	s := e.connect(b, o).Session()
	require.NoError(b, zkcoord.EnsurePaths(s))
	election, err := zkcoord.Elect(s, 1)
	require.NoError(b, err)
	tps := make([]cluster.TopicPartition, n)
	state := zkcoord.PartitionState{Leader: 1, ISR: []cluster.BrokerID{1, 2, 3}}
	payload := zkcoord.EncodeState(state)
	creates, sets := make([][]zkcoord.Op, n), make([][]zkcoord.Op, n)
	require.NoError(b, s.CreateAll(zkcoord.PartitionsPath("t"), nil))
	for i := range tps {
		tps[i] = cluster.TopicPartition{Topic: "t", Partition: int32(i)}
		creates[i] = []zkcoord.Op{zkcoord.CreateOp(zkcoord.PartitionPath(tps[i]), nil, zkcoord.Persistent), zkcoord.CreateOp(zkcoord.StatePath(tps[i]), payload, zkcoord.Persistent)}
		sets[i] = []zkcoord.Op{zkcoord.SetOp(zkcoord.StatePath(tps[i]), payload, zkcoord.AnyVersion)}
	}
	_, err = zkcoord.WriteFenced(s, election.EpochVersion, creates)
	require.NoError(b, err)
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			states, err := zkcoord.States(s, tps)
			if err != nil || len(states) != n {
				b.Fatal(len(states), err)
			}
		}
	})
	b.Run("get one by one, pipelined", func(b *testing.B) {
		for b.Loop() {
			var wg sync.WaitGroup
			for w := range 64 {
				wg.Go(func() {
					for i := w; i < n; i += 64 {
						if _, _, err := s.Get(zkcoord.StatePath(tps[i])); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
		}
	})
	b.Run("write fenced", func(b *testing.B) {
		for b.Loop() {
			if _, err := zkcoord.WriteFenced(s, election.EpochVersion, sets); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkDecodeState(b *testing.B) {
	data := zkcoord.EncodeState(zkcoord.PartitionState{Leader: 1, ISR: []cluster.BrokerID{1, 2, 3}})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := zkcoord.DecodeState(data); err != nil {
			b.Fatal(err)
		}
	}
}
