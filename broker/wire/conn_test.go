package wire

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// peer is a client that speaks in frames.
type peer struct {
	t  testing.TB
	nc net.Conn
}

func connect(t testing.TB, addr string) *peer {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	return &peer{t, nc}
}

func requestFrame(correlationID int32, req kmsg.Request) []byte {
	b := appendRequestHeader(make([]byte, 4), req.Key(), req.GetVersion(), correlationID, "peer")
	b = req.AppendTo(b)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

func (p *peer) write(b []byte) {
	p.t.Helper()
	_, err := p.nc.Write(b)
	require.NoError(p.t, err)
}

func (p *peer) send(correlationID int32, req kmsg.Request) {
	p.t.Helper()
	p.write(requestFrame(correlationID, req))
}

// receive returns the next frame's correlation id and the rest.
func (p *peer) receive() (int32, []byte) {
	p.t.Helper()
	b, err := p.frame()
	require.NoError(p.t, err)
	return int32(binary.BigEndian.Uint32(b)), b[4:]
}

func (p *peer) frame() ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(p.nc, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(size[:]))
	_, err := io.ReadFull(p.nc, b)
	return b, err
}

// closed expects the server to close without a word.
func (p *peer) closed() {
	p.t.Helper()
	_, err := p.frame()
	require.Error(p.t, err)
	var ne net.Error
	require.False(p.t, errors.As(err, &ne) && ne.Timeout(), "still open")
}

func heartbeat(version int16) *kmsg.HeartbeatRequest {
	req := kmsg.NewPtrHeartbeatRequest()
	req.Version, req.Group, req.MemberID = version, "group", "member"
	return req
}

func TestAnswersLeaveInTheOrderOfTheRequests(t *testing.T) {
	var mu sync.Mutex
	var waiting []*Request
	all := make(chan struct{})
	_, addr := serve(t, Options{Table: NewTable(API{Key: 12, Max: 4, Pipelined: true, Handle: func(r *Request) {
		mu.Lock()
		defer mu.Unlock()
		if waiting = append(waiting, r); len(waiting) == 50 {
			close(all)
		}
	}})})
	p := connect(t, addr)
	for i := range int32(50) {
		p.send(i, heartbeat(4))
	}
	<-all
	var wg sync.WaitGroup
	for i := range waiting {
		wg.Go(func() { answerHeartbeat(waiting[(i*7+3)%50]) }) // 7 and 50 have no common factor
	}
	for i := range int32(50) {
		id, _ := p.receive()
		require.Equal(t, i, id)
	}
	wg.Wait()
}

func TestRequestsBehindAPendingOneWaitUnlessItIsPipelined(t *testing.T) {
	for _, pipelined := range []bool{false, true} {
		var handled atomic.Int32
		first := make(chan *Request, 1)
		_, addr := serve(t, Options{Table: NewTable(API{Key: 12, Max: 4, Pipelined: pipelined, Handle: func(r *Request) {
			if handled.Add(1) == 1 {
				first <- r
				return
			}
			answerHeartbeat(r)
		}})})
		p := connect(t, addr)
		p.send(1, heartbeat(0))
		p.send(2, heartbeat(0))
		r := <-first
		if pipelined {
			require.Eventually(t, func() bool { return handled.Load() == 2 }, 5*time.Second, time.Millisecond)
		} else {
			time.Sleep(20 * time.Millisecond)
			require.EqualValues(t, 1, handled.Load())
		}
		answerHeartbeat(r)
		id, _ := p.receive()
		require.EqualValues(t, 1, id)
		id, _ = p.receive()
		require.EqualValues(t, 2, id)
	}
}

func TestForeignFramesCloseTheConnection(t *testing.T) {
	_, addr := serve(t, Options{Table: NewTable(heartbeatAPI(answerHeartbeat)), MaxRequestBytes: 1 << 20})
	valid := requestFrame(1, heartbeat(4))
	with := func(change func(b []byte)) []byte {
		b := bytes.Clone(valid)
		change(b)
		return b
	}
	for name, frame := range map[string][]byte{
		"negative length":     with(func(b []byte) { binary.BigEndian.PutUint32(b, 1<<31) }),
		"length of zero":      {0, 0, 0, 0},
		"no room for header":  {0, 0, 0, 7, 0, 12, 0},
		"over the limit":      with(func(b []byte) { binary.BigEndian.PutUint32(b, 1<<20+1) }),
		"unknown key":         with(func(b []byte) { b[5] = 99 }),
		"key not served":      with(func(b []byte) { b[5] = 3 }),
		"negative key":        with(func(b []byte) { b[4] = 0xff }),
		"unknown version":     with(func(b []byte) { b[7] = 5 }),
		"client id too long":  with(func(b []byte) { b[12] = 0x7f }),
		"body cut":            with(func(b []byte) { b[len(b)-9] = 0x7f }),
		"an HTTP request":     []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"header tags claimed": with(func(b []byte) { b[4+8+2+4] = 0x7f }),
	} {
		t.Run(name, func(t *testing.T) {
			p := connect(t, addr)
			p.write(frame)
			p.closed()
		})
	}
	t.Run("answers to earlier requests go out first", func(t *testing.T) {
		p := connect(t, addr)
		p.write(append(bytes.Clone(valid), with(func(b []byte) { b[5] = 99 })...))
		id, _ := p.receive()
		require.EqualValues(t, 1, id)
		p.closed()
	})
	t.Run("frame cut off", func(t *testing.T) {
		p := connect(t, addr)
		p.write(valid[:len(valid)-3])
		require.NoError(t, p.nc.(*net.TCPConn).CloseWrite())
		p.closed()
	})
	t.Run("trailing bytes are ignored", func(t *testing.T) {
		p := connect(t, addr)
		p.write(with(func(b []byte) {
			binary.BigEndian.PutUint32(b, uint32(len(b)-4+1))
		}))
		p.write([]byte{7})
		id, _ := p.receive()
		require.EqualValues(t, 1, id)
	})
}

func TestFramesArriveInAnyPieces(t *testing.T) {
	var mu sync.Mutex
	var got [][]byte
	_, addr := serve(t, Options{Table: NewTable(API{Key: 14, Max: 5, Handle: func(r *Request) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, bytes.Clone(r.Body.(*kmsg.SyncGroupRequest).GroupAssignment[0].MemberAssignment))
		r.Respond(r.Body.ResponseKind())
	}})})
	p := connect(t, addr)
	var all []byte
	var want [][]byte
	for i, n := range []int{10, 16 << 10, 16<<10 - 60, 100, 600 << 10, 3 << 20, 1, 5 << 20, 20} {
		req := kmsg.NewPtrSyncGroupRequest()
		req.Version = 5
		a := kmsg.NewSyncGroupRequestGroupAssignment()
		a.MemberAssignment = make([]byte, n)
		_, _ = rand.Read(a.MemberAssignment)
		req.GroupAssignment = append(req.GroupAssignment, a)
		all = append(all, requestFrame(int32(i), req)...)
		want = append(want, a.MemberAssignment)
	}
	go func() {
		for i, step := 0, 1; i < len(all); i, step = i+step, step*3%100_000+1 {
			_, _ = p.nc.Write(all[i:min(len(all), i+step)])
		}
	}()
	for i := range want {
		id, _ := p.receive()
		require.EqualValues(t, i, id)
	}
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, want, got)
}

func TestAPIVersionsOfTheFutureIsAnsweredInTheOldestLayout(t *testing.T) {
	_, addr := serve(t, Options{Table: NewTable(heartbeatAPI(answerHeartbeat))})
	p := connect(t, addr)
	for _, version := range []int16{5, 100, -1} {
		b := requestFrame(3, &kmsg.ApiVersionsRequest{Version: 4, ClientSoftwareName: "x", ClientSoftwareVersion: "1"})
		binary.BigEndian.PutUint16(b[6:], uint16(version))
		p.write(b)
		id, body := p.receive()
		require.EqualValues(t, 3, id)
		require.Equal(t, []byte{0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4}, body)
	}
}

func TestAPIVersionsListsTheTable(t *testing.T) {
	features := Features{FinalizedEpoch: -1, Supported: []SupportedFeature{{"metadata.version", 1, 21}, {"kraft.version", 0, 1}}}
	conns := make(chan *Conn, 1)
	_, addr := serve(t, Options{
		Features: func() Features { return features },
		Table: NewTable(heartbeatAPI(func(r *Request) {
			conns <- r.Conn
			answerHeartbeat(r)
		}), API{Key: 3, Min: 1, Max: 12, Handle: answerHeartbeat}),
	})
	c := dialTest(t, addr, DialOptions{})
	for version := int16(0); version <= 4; version++ {
		req := &kmsg.ApiVersionsRequest{Version: version, ClientSoftwareName: "name-of.it", ClientSoftwareVersion: "1.0"}
		resp, err := c.RoundTrip(t.Context(), req)
		require.NoError(t, err)
		r := resp.(*kmsg.ApiVersionsResponse)
		require.Len(t, r.ApiKeys, 3)
		require.EqualValues(t, 3, r.ApiKeys[0].ApiKey)
		require.EqualValues(t, 1, r.ApiKeys[0].MinVersion)
		require.EqualValues(t, 18, r.ApiKeys[2].ApiKey)
		want := []int{0, 0, 0, 1, 2}[version]
		require.Len(t, r.SupportedFeatures, want)
		require.EqualValues(t, -1, r.FinalizedFeaturesEpoch)
	}
	_, err := c.RoundTrip(t.Context(), heartbeat(4))
	require.NoError(t, err)
	name, version := (<-conns).Software()
	require.Equal(t, "name-of.it 1.0", name+" "+version)

	resp, err := c.RoundTrip(t.Context(), &kmsg.ApiVersionsRequest{Version: 3, ClientSoftwareName: "-x", ClientSoftwareVersion: "1"})
	require.NoError(t, err)
	require.EqualValues(t, 42, resp.(*kmsg.ApiVersionsResponse).ErrorCode)
}

func TestNoResponseAndClose(t *testing.T) {
	_, addr := serve(t, Options{Table: NewTable(heartbeatAPI(func(r *Request) {
		switch r.Body.(*kmsg.HeartbeatRequest).Generation {
		case 0:
			r.NoResponse()
		case 1:
			answerHeartbeat(r)
		default:
			r.Close(errors.New("as asked"))
		}
	}))})
	p := connect(t, addr)
	for i := range int32(3) {
		req := heartbeat(0)
		req.Generation = i
		p.send(i, req)
	}
	id, _ := p.receive()
	require.EqualValues(t, 1, id, "the first has no answer")
	p.closed()
}

func TestThrottledConnectionIsNotRead(t *testing.T) {
	var handled atomic.Int32
	_, addr := serve(t, Options{Table: NewTable(heartbeatAPI(func(r *Request) {
		if handled.Add(1) == 1 {
			r.Throttle(100 * time.Millisecond)
		}
		answerHeartbeat(r)
	}))})
	p := connect(t, addr)
	start := time.Now()
	p.send(1, heartbeat(0))
	p.send(2, heartbeat(0))
	p.receive()
	p.receive()
	require.GreaterOrEqual(t, time.Since(start), 100*time.Millisecond)
}

func TestBeforeLoginLittleIsServed(t *testing.T) {
	table := NewTable(heartbeatAPI(answerHeartbeat), API{Key: 36, Max: 2, Handle: func(r *Request) {
		require.Empty(t, r.Conn.Principal())
		r.Conn.SetPrincipal("User:alice")
		r.Respond(r.Body.ResponseKind())
	}})
	_, addr := serve(t, Options{Table: table, Listeners: []Listener{{Name: "SASL", Protocol: "SASL_PLAINTEXT", Addr: "127.0.0.1:0", Login: true}}})
	p := connect(t, addr)
	p.send(1, heartbeat(0))
	p.closed()

	p = connect(t, addr)
	p.write([]byte{0, 8, 0, 1, 0, 36, 0, 0, 0, 0, 0, 1}) // 512 KiB and one byte
	p.closed()

	p = connect(t, addr)
	p.send(1, &kmsg.ApiVersionsRequest{})
	p.receive()
	p.send(2, &kmsg.SASLAuthenticateRequest{})
	p.receive()
	p.send(3, heartbeat(0))
	id, _ := p.receive()
	require.EqualValues(t, 3, id)
}

func TestConnectionLimits(t *testing.T) {
	s, addr := serve(t, Options{Table: NewTable(heartbeatAPI(answerHeartbeat)), Limits: func() Limits { return Limits{PerIP: 2} }})
	a, b := connect(t, addr), connect(t, addr)
	for _, p := range []*peer{a, b} {
		p.send(1, heartbeat(0))
		p.receive()
	}
	connect(t, addr).closed()
	_ = a.nc.Close()
	require.Eventually(t, func() bool { return s.Conns() == 1 }, 5*time.Second, time.Millisecond)
	p := connect(t, addr)
	p.send(1, heartbeat(0))
	p.receive()

	var most atomic.Int64
	most.Store(1)
	s, addr = serve(t, Options{
		Table: NewTable(heartbeatAPI(answerHeartbeat)), Limits: func() Limits { return Limits{Connections: int(most.Load())} },
	})
	a = connect(t, addr)
	a.send(1, heartbeat(0))
	a.receive()
	b = connect(t, addr) // waits in the backlog
	b.send(2, heartbeat(0))
	_ = b.nc.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
	_, err := b.frame()
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	_ = a.nc.Close()
	_ = b.nc.SetReadDeadline(time.Now().Add(5 * time.Second))
	id, _ := b.receive()
	require.EqualValues(t, 2, id)

	p = connect(t, addr)
	p.send(3, heartbeat(0))
	most.Store(2)
	s.LimitsChanged()
	id, _ = p.receive()
	require.EqualValues(t, 3, id)
}

func TestSingleAddressesHaveLimitsOfTheirOwn(t *testing.T) {
	_, addr := serve(t, Options{
		Table:  NewTable(heartbeatAPI(answerHeartbeat)),
		Limits: func() Limits { return Limits{Overrides: map[string]int{"127.0.0.1": 0}} },
	})
	connect(t, addr).closed()
}

func TestHandlerThatPanicsClosesItsConnectionOnly(t *testing.T) {
	s, err := NewServer(Options{
		Logger:    zerolog.Nop(),
		Listeners: []Listener{{Name: "P", Addr: "127.0.0.1:0"}},
		Table: NewTable(heartbeatAPI(func(r *Request) {
			if r.Version == 0 {
				panic("handler's fault")
			}
			answerHeartbeat(r)
		})),
	})
	require.NoError(t, err)
	s.Serve()
	defer func() { require.NoError(t, s.Close(context.Background())) }()
	addr := s.Addr("P").String()
	other := connect(t, addr)
	p := connect(t, addr)
	p.send(1, heartbeat(0))
	p.closed()
	other.send(1, heartbeat(1))
	other.receive()
}

func TestCloseLetsPendingAnswersGoOut(t *testing.T) {
	pending := make(chan *Request, 1)
	s, addr := serve(t, Options{Table: NewTable(heartbeatAPI(func(r *Request) { pending <- r }))})
	idle, p := connect(t, addr), connect(t, addr)
	p.send(1, heartbeat(4))
	r := <-pending
	done := make(chan error)
	go func() { done <- s.Close(context.Background()) }()
	idle.closed()
	_, err := net.Dial("tcp", addr)
	require.Error(t, err)
	answerHeartbeat(r)
	id, _ := p.receive()
	require.EqualValues(t, 1, id)
	p.closed()
	require.NoError(t, <-done)
}

func TestCloseCutsOffAtItsDeadline(t *testing.T) {
	pending := make(chan *Request, 1)
	s, addr := serve(t, Options{Table: NewTable(heartbeatAPI(func(r *Request) { pending <- r }))})
	p := connect(t, addr)
	p.send(1, heartbeat(4))
	r := <-pending
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, s.Close(ctx), context.DeadlineExceeded)
	p.closed()
	answerHeartbeat(r) // too late, harmless
}

// fileRange is a range of a real file.
type fileRange struct {
	f        *os.File
	pos, len int64
	released *atomic.Int32
}

func (r *fileRange) Range() (pos, length int64)              { return r.pos, r.len }
func (r *fileRange) File() *os.File                          { return r.f }
func (r *fileRange) ReadAt(p []byte, off int64) (int, error) { return r.f.ReadAt(p, r.pos+off) }
func (r *fileRange) Release()                                { r.released.Add(1) }

func testFile(t testing.TB, size int) (*os.File, []byte) {
	t.Helper()
	b := make([]byte, size)
	_, _ = rand.Read(b)
	name := filepath.Join(t.TempDir(), "segment")
	require.NoError(t, os.WriteFile(name, b, 0o600))
	f, err := os.Open(name)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f, b
}

func fetchAPI(answer func(r *Request) *FetchResponse) API {
	return API{Key: 1, Max: 17, Pipelined: true, Borrow: true, Handle: func(r *Request) { r.RespondWith(answer(r)) }}
}

func TestFetchSendsFileRanges(t *testing.T) {
	f, content := testFile(t, 9<<20)
	var released atomic.Int32
	ranges := [][2]int64{{0, 100}, {100, fileSendBytes}, {5000, 8 << 20}, {1 << 20, 3}, {77, fileSendBytes - 1}, {3, 200_000}}
	table := NewTable(fetchAPI(func(r *Request) *FetchResponse {
		resp := NewFetchResponse(r.Version)
		for i, rg := range ranges {
			resp.Add(FetchPartition{Topic: "t", Partition: int32(i), Records: &fileRange{f, rg[0], rg[1], &released}})
		}
		return resp
	}))
	check := func(t *testing.T, listener Listener, o DialOptions, addr string) {
		t.Helper()
		released.Store(0)
		_, bound := serve(t, Options{Table: table, Listeners: []Listener{listener}})
		if addr == "" {
			addr = bound
		}
		c := dialTest(t, addr, o)
		for n, version := range []int16{0, 4, 11, 12} {
			req := kmsg.NewPtrFetchRequest()
			req.Version = version
			resp, release, err := c.Borrow(t.Context(), req)
			require.NoError(t, err)
			parts := resp.(*kmsg.FetchResponse).Topics[0].Partitions
			require.Len(t, parts, len(ranges))
			for i, rg := range ranges {
				if !bytes.Equal(content[rg[0]:rg[0]+rg[1]], parts[i].RecordBatches) {
					t.Fatalf("v%d range %d differs", version, i)
				}
			}
			release()
			require.Eventually(t, func() bool { return released.Load() == int32(len(ranges)*(n+1)) }, time.Second, time.Millisecond)
		}
	}
	t.Run("by descriptor", func(t *testing.T) {
		check(t, Listener{Name: "P", Addr: "127.0.0.1:0"}, DialOptions{}, "")
	})
	t.Run("copied", func(t *testing.T) {
		l := newPipeListener()
		check(t, Listener{Name: "P", Listener: l}, DialOptions{Dial: l.dial}, "pipe")
	})
}

func TestSlowReaderHoldsBackNobodyElseAndGetsEverything(t *testing.T) {
	f, content := testFile(t, 4<<20)
	var handled, released atomic.Int32
	table := NewTable(fetchAPI(func(r *Request) *FetchResponse {
		handled.Add(1)
		resp := NewFetchResponse(r.Version)
		resp.Add(FetchPartition{Topic: "t", Records: &fileRange{f, 0, int64(len(content)), &released}})
		return resp
	}), heartbeatAPI(answerHeartbeat))
	_, addr := serve(t, Options{Table: table, SendBufferBytes: 64 << 10})
	slow, other := connect(t, addr), connect(t, addr)
	const n = 20
	for i := range int32(n) {
		req := kmsg.NewPtrFetchRequest()
		req.Version = 12
		slow.send(i, req)
	}
	other.send(1, heartbeat(0))
	other.receive()
	time.Sleep(50 * time.Millisecond)
	require.Less(t, handled.Load(), int32(n), "answers that wait are bounded")
	for i := range int32(n) {
		id, body := slow.receive()
		require.Equal(t, i, id)
		require.True(t, bytes.Contains(body[len(body)-100:], content[len(content)-50:]))
	}
	require.Eventually(t, func() bool { return released.Load() == n }, time.Second, time.Millisecond)
}

func TestFileThatBecameShorterClosesTheConnection(t *testing.T) {
	f, content := testFile(t, 1<<20)
	var released atomic.Int32
	_, addr := serve(t, Options{Table: NewTable(fetchAPI(func(r *Request) *FetchResponse {
		resp := NewFetchResponse(r.Version)
		resp.Add(FetchPartition{Topic: "t", Records: &fileRange{f, 100, int64(len(content)), &released}})
		return resp
	}))})
	p := connect(t, addr)
	p.send(1, &kmsg.FetchRequest{Version: 12})
	p.closed()
	require.Eventually(t, func() bool { return released.Load() == 1 }, time.Second, time.Millisecond)
}

func TestQueuedBytesAreBounded(t *testing.T) {
	var mu sync.Mutex
	var waiting []*Request
	size := int64(len(requestFrame(0, heartbeat(0))) - 4)
	_, addr := serve(t, Options{QueuedMaxRequestBytes: 2*size + 1, Table: NewTable(heartbeatAPI(func(r *Request) {
		mu.Lock()
		waiting = append(waiting, r)
		mu.Unlock()
	}))})
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(waiting)
	}
	var peers []*peer
	for i := range 10 {
		p := connect(t, addr)
		p.send(int32(i), heartbeat(0)) // three are let in
		peers = append(peers, p)
	}
	require.Eventually(t, func() bool { return count() == 3 }, 5*time.Second, time.Millisecond)
	for done := range peers {
		require.Eventually(t, func() bool { return count() > done }, 5*time.Second, time.Millisecond)
		require.LessOrEqual(t, count(), done+3)
		mu.Lock()
		r := waiting[done]
		mu.Unlock()
		answerHeartbeat(r)
	}
}

func TestIdleConnectionsAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		s, err := NewServer(Options{
			Table: NewTable(heartbeatAPI(answerHeartbeat)), Listeners: []Listener{{Name: "P", Listener: l}}, Logger: zerolog.Nop(),
			MaxIdle: 8 * time.Minute,
		})
		require.NoError(t, err)
		s.Serve()
		c, err := Dial(t.Context(), "pipe", DialOptions{Dial: l.dial})
		require.NoError(t, err)
		for range 5 {
			time.Sleep(6 * time.Minute)
			_, err = c.RoundTrip(t.Context(), heartbeat(4))
			require.NoError(t, err)
		}
		time.Sleep(10 * time.Minute)
		_, err = c.RoundTrip(t.Context(), heartbeat(4))
		require.Error(t, err)
		require.NoError(t, s.Close(t.Context()))
	})
}

// countingConn counts writes.
type countingConn struct {
	net.Conn
	writes *atomic.Int32
}

func (c countingConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

func TestABurstIsAnsweredWithOneWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		var writes atomic.Int32
		s, err := NewServer(Options{
			Table: NewTable(heartbeatAPI(answerHeartbeat)), Logger: zerolog.Nop(),
			Listeners: []Listener{{Name: "P", Listener: l, Wrap: func(nc net.Conn) (net.Conn, error) { return countingConn{nc, &writes}, nil }}},
		})
		require.NoError(t, err)
		s.Serve()
		nc, err := l.dial(t.Context(), "", "")
		require.NoError(t, err)
		p := &peer{t, nc}
		var burst []byte
		for i := range int32(20) {
			burst = append(burst, requestFrame(i, heartbeat(4))...)
		}
		p.write(burst)
		for i := range int32(20) {
			id, _ := p.receive()
			require.Equal(t, i, id)
		}
		require.EqualValues(t, 1, writes.Load())
		require.NoError(t, nc.Close())
		require.NoError(t, s.Close(t.Context()))
	})
}

// pipeListener hands out in-memory connections.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }
