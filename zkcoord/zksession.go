package zkcoord

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/rs/zerolog"

	"ottla/internal/parallel"
)

// session is one ZooKeeper session over one library connection, which serves no other session.
type session struct {
	client *Client // constant
	log    zerolog.Logger
	hosts  *hosts
	conn   *zk.Conn      // set before connSet is closed
	wired  chan struct{} // closed when conn is set
	ready  chan struct{} // closed when the session first stands; id, timeout, lease are set then
	done   chan struct{} // closed when the session is over

	id          int64
	timeout     time.Duration
	lease       lease
	leaseProven bool
	reprobe     chan struct{} // holds one wish for a probe

	tap       atomic.Pointer[tap] // of the latest connection
	dialError atomic.Pointer[error]
	watches   watches
	wg        sync.WaitGroup

	mu struct {
		sync.Mutex
		connected chan struct{} // closed while connected
		up        bool
		over      error // cause of the end
	}
}

var _ Session = (*session)(nil)

func newSession(c *Client) *session {
	s := &session{
		client: c, log: c.log, hosts: &hosts{}, wired: make(chan struct{}), ready: make(chan struct{}), done: make(chan struct{}),
		reprobe: make(chan struct{}, 1),
	}
	s.mu.connected = make(chan struct{})
	s.watches.init(s)
	return s
}

// start takes the library's connection, which may already be at work.
func (s *session) start(conn *zk.Conn, events <-chan zk.Event) {
	s.conn = conn
	close(s.wired)
	s.wg.Go(func() {
		for range events { // closed at the end of the library's loop; the callback has seen them all
		}
	})
	s.wg.Go(s.watches.runLoop)
	s.wg.Go(s.probeLoop)
}

// dial is the library's dialer.
func (s *session) dial(network, address string, timeout time.Duration) (net.Conn, error) {
	if s.isOver() {
		return nil, net.ErrClosed
	}
	bound := max(s.client.options.SessionTimeout/time.Duration(len(s.client.servers)), minHandshake)
	end := time.Now().Add(bound)
	raw, err := s.client.options.Dial(network, address, min(timeout, bound))
	if err != nil {
		s.dialError.Store(&err)
		return nil, err
	}
	t := newTap(raw, end, s.onHandshake)
	s.tap.Store(t)
	if s.isOver() { // close may have missed this one
		_ = t.Close()
	}
	return t, nil
}

const minHandshake = 200 * time.Millisecond

// onHandshake runs in the library's connection loop, before the library has read the answer.
func (s *session) onHandshake(h handshake) {
	if h.sessionID == 0 || s.id != 0 {
		return
	}
	s.id, s.timeout = h.sessionID, h.timeout
	s.lease.now = s.client.options.BootTime
	s.lease.length, s.leaseProven = leaseLength(h.timeout, s.client.options.TickTime, s.client.options.SyncLimit)
}

// onEvent is the library's callback, inside its connection loop or its reader: it must not wait for anything that waits for
// ZooKeeper.
func (s *session) onEvent(ev zk.Event) {
	if ev.Type != zk.EventSession {
		s.watches.fired(ev.Type, ev.Path)
		return
	}
	switch ev.State {
	case zk.StateHasSession:
		s.setConnected(true)
	case zk.StateDisconnected:
		s.setConnected(false)
	case zk.StateExpired:
		// The library would open a new session next. Closing it here, before its loop goes on, keeps it from that.
		s.end(errExpired)
		<-s.wired
		s.conn.Close()
		s.closeTap()
	}
}

func (s *session) setConnected(up bool) {
	s.mu.Lock()
	if s.mu.up == up || s.mu.over != nil {
		s.mu.Unlock()
		return
	}
	s.mu.up = up
	first := false
	if up {
		close(s.mu.connected)
		select {
		case <-s.ready:
		default:
			first = true
			close(s.ready)
		}
	} else {
		s.mu.connected = make(chan struct{})
	}
	s.mu.Unlock()
	switch {
	case first:
	case up:
		s.watches.reconnected()
		s.probeNow()
		s.client.events.put(event{kind: eventConnected, session: s})
	default:
		s.client.events.put(event{kind: eventDisconnected, session: s})
	}
}

// end marks the session as over, once.
func (s *session) end(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.over != nil {
		return
	}
	s.mu.over = cause
	close(s.done)
	s.client.events.put(event{kind: eventLost, session: s, cause: cause})
}

// close ends the session at the ensemble if it can be reached, and waits for its goroutines.
func (s *session) close() {
	s.end(errClosed)
	s.hosts.close()
	<-s.wired
	s.conn.Close() // asks the server, for a second at most
	s.closeTap()
	s.wg.Wait()
}

func (s *session) closeTap() {
	if t := s.tap.Load(); t != nil {
		_ = t.Close()
	}
}

// Printf is the library's logger. It complains of answers to requests of our own (see tap), and repeats what the callback said.
func (s *session) Printf(format string, args ...any) {
	if strings.HasPrefix(format, "Response for unknown request") {
		return
	}
	s.log.Debug().Msg(fmt.Sprintf("zookeeper library: "+format, args...))
}

// ID implements Session.
func (s *session) ID() int64 {
	<-s.ready
	return s.id
}

// Done implements Session.
func (s *session) Done() <-chan struct{} { return s.done }

func (s *session) isOver() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

func (s *session) isConnected() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.up && s.mu.over == nil
}

// waitConnected waits for a connection. It returns false when the session is over.
func (s *session) waitConnected() bool {
	s.mu.Lock()
	connected := s.mu.connected
	s.mu.Unlock()
	select {
	case <-s.done:
		return false
	default:
	}
	select {
	case <-connected:
		return true
	case <-s.done:
		return false
	}
}

func (s *session) lostError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.over == nil {
		return ErrSessionLost
	}
	return fmt.Errorf("%w: %w", ErrSessionLost, s.mu.over)
}

// full checks a path and puts the chroot before it.
func (s *session) full(path string) (string, error) {
	if err := checkPath(path); err != nil {
		return "", err
	}
	return s.fullUnchecked(path), nil
}

func (s *session) fullUnchecked(path string) string {
	switch {
	case s.client.chroot == "":
		return path
	case path == "/":
		return s.client.chroot
	default:
		return s.client.chroot + path
	}
}

func (s *session) relative(full string) string {
	if rest := strings.TrimPrefix(full, s.client.chroot); rest != "" {
		return rest
	}
	return "/"
}

// errNotSent: the library gave the request up before it was sent.
var errNotSent = errors.New("not sent")

// translate turns the library's errors into this package's.
func (s *session) translate(err error) error {
	switch {
	case err == nil:
		// The answer came over this session's connection; the library has no other session. A second look costs nothing.
		if id := s.conn.SessionID(); id != s.id && id != 0 {
			return ErrSessionLost
		}
		return nil
	case errors.Is(err, zk.ErrNoNode):
		return ErrNoNode
	case errors.Is(err, zk.ErrNodeExists):
		return ErrNodeExists
	case errors.Is(err, zk.ErrBadVersion):
		return ErrBadVersion
	case errors.Is(err, zk.ErrNotEmpty):
		return ErrNotEmpty
	case errors.Is(err, zk.ErrNoAuth), errors.Is(err, zk.ErrAuthFailed), errors.Is(err, zk.ErrInvalidACL):
		return fmt.Errorf("%w: %w", ErrNoAuth, err)
	case errors.Is(err, zk.ErrSessionExpired):
		return ErrSessionLost
	case s.isOver():
		return s.lostError()
	case errors.Is(err, zk.ErrNoServer):
		return errNotSent
	case errors.Is(err, zk.ErrConnectionClosed), errors.Is(err, zk.ErrClosing), errors.Is(err, zk.ErrSessionMoved):
		return ErrConnectionLost
	case errors.Is(err, zk.ErrInvalidPath), errors.Is(err, zk.ErrAPIError), errors.Is(err, zk.ErrBadArguments),
		errors.Is(err, zk.ErrNoChildrenForEphemerals), errors.Is(err, zk.ErrShortBuffer), errors.Is(err, zk.ErrInvalidFlags):
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	default:
		return err
	}
}

// opError says what was tried, on what.
func opError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", op, path, err)
}

// timed does a request, and tells how long its answer took.
func (s *session) timed(do func() error) error {
	observe := s.client.options.Observe
	if observe == nil {
		return s.translate(do())
	}
	began := time.Now()
	err := s.translate(do())
	if !errors.Is(err, ErrConnectionLost) && !errors.Is(err, errNotSent) && !errors.Is(err, ErrSessionLost) {
		observe(time.Since(began))
	}
	return err
}

// read does a read until it is answered or the session is over.
func (s *session) read(do func() error) error {
	for {
		if !s.waitConnected() {
			return s.lostError()
		}
		err := s.timed(do)
		if !errors.Is(err, ErrConnectionLost) && !errors.Is(err, errNotSent) {
			return err
		}
		s.pauseAfterLoss()
	}
}

// write does a write once. Only if the library says that it was never sent it is done again.
func (s *session) write(do func() error) error {
	for {
		if !s.waitConnected() {
			return s.lostError()
		}
		err := s.timed(do)
		if !errors.Is(err, errNotSent) {
			return err
		}
		s.pauseAfterLoss()
	}
}

// pauseAfterLoss gives the connection's end time to be noticed, so that a retry does not spin.
func (s *session) pauseAfterLoss() {
	select {
	case <-s.done:
	case <-time.After(5 * time.Millisecond):
	}
}

// call sends a read of our own, past the library, until it is answered or the session is over.
func (s *session) call(opcode int32, payload []byte) (answer, error) {
	for {
		if !s.waitConnected() {
			return answer{}, s.lostError()
		}
		began := time.Now()
		a := s.tap.Load().call(opcode, payload)
		if observe := s.client.options.Observe; observe != nil && a.err == nil {
			observe(time.Since(began))
		}
		switch {
		case s.isOver() || a.code == codeSessionExpiry:
			return answer{}, s.lostError()
		case a.err == nil && a.code != codeSessionMoved:
			return a, nil
		case a.err != nil && !errors.Is(a.err, errTapClosed):
			return answer{}, a.err
		}
		s.pauseAfterLoss()
	}
}

// Get implements Session.
func (s *session) Get(path string) ([]byte, Stat, error) {
	full, err := s.full(path)
	if err != nil {
		return nil, Stat{}, err
	}
	data, stat, err := s.getFull(full)
	return data, stat, opError("get", path, err)
}

func (s *session) getFull(full string) (data []byte, stat Stat, err error) {
	err = s.read(func() error {
		d, st, err := s.conn.Get(full)
		data, stat = d, toStat(st)
		return err
	})
	return data, stat, err
}

// Exists implements Session.
func (s *session) Exists(path string) (found bool, stat Stat, err error) {
	full, err := s.full(path)
	if err != nil {
		return false, Stat{}, err
	}
	err = s.read(func() error {
		ok, st, err := s.conn.Exists(full)
		found, stat = ok && err == nil, toStat(st)
		return err
	})
	return found, stat, opError("exists", path, err)
}

// Children implements Session.
func (s *session) Children(path string) (names []string, stat Stat, err error) {
	full, err := s.full(path)
	if err != nil {
		return nil, Stat{}, err
	}
	err = s.read(func() error {
		n, st, err := s.conn.Children(full)
		names, stat = n, toStat(st)
		return err
	})
	return names, stat, opError("children", path, err)
}

// Create implements Session.
func (s *session) Create(path string, data []byte, mode Mode) (string, error) {
	full, err := s.full(path)
	if err == nil {
		err = s.checkSize(path, data)
	}
	if err != nil {
		return "", err
	}
	created, err := s.createFull(full, data, mode)
	if err != nil {
		return "", opError("create", path, err)
	}
	return s.relative(created), nil
}

func (s *session) createFull(full string, data []byte, mode Mode) (created string, err error) {
	err = s.write(func() error {
		var err error
		created, err = s.conn.Create(full, data, createFlags(mode), s.aclOf(full))
		return err
	})
	return created, err
}

// CreateAll implements Session.
func (s *session) CreateAll(path string, data []byte) error {
	full, err := s.full(path)
	if err == nil {
		err = s.checkSize(path, data)
	}
	if err != nil {
		return err
	}
	return opError("create", path, s.createAllFull(full, data))
}

func (s *session) createAllFull(full string, data []byte) error {
	for {
		_, err := s.createFull(full, data, Persistent)
		if !errors.Is(err, ErrNoNode) || parentPath(full) == "/" {
			return err
		}
		err = s.createAllFull(parentPath(full), nil)
		// A parent whose creation is in doubt is there, or the next attempt says that it is not.
		if err != nil && !errors.Is(err, ErrNodeExists) && !errors.Is(err, ErrConnectionLost) {
			return err
		}
	}
}

// Set implements Session.
func (s *session) Set(path string, data []byte, version int32) (stat Stat, err error) {
	full, err := s.full(path)
	if err == nil {
		err = s.checkSize(path, data)
	}
	if err != nil {
		return Stat{}, err
	}
	err = s.write(func() error {
		st, err := s.conn.Set(full, data, version)
		stat = toStat(st)
		return err
	})
	return stat, opError("set", path, err)
}

// Delete implements Session.
func (s *session) Delete(path string, version int32) error {
	full, err := s.full(path)
	if err != nil {
		return err
	}
	return opError("delete", path, s.write(func() error { return s.conn.Delete(full, version) }))
}

// checkSize refuses what the server would answer by closing the connection.
func (s *session) checkSize(path string, data []byte) error {
	return s.checkRequest(path, len(path)+len(s.client.chroot)+len(data)+createOverhead)
}

func (s *session) checkRequest(what string, size int) error {
	if size > s.client.options.MaxRequestBytes {
		return fmt.Errorf("%w: the request for %s has %d bytes, the ensemble takes %d (jute.maxbuffer)", ErrInvalid, what, size,
			s.client.options.MaxRequestBytes)
	}
	return nil
}

// createOverhead bounds what a create has besides path and data: headers, ACL, flags.
const createOverhead = 96

func createFlags(mode Mode) int32 {
	switch mode {
	case Ephemeral:
		return zk.FlagEphemeral
	case PersistentSequential:
		return zk.FlagSequence
	default:
		return 0
	}
}

// openPath is where old consumers write too; secretPaths hold what not even a reader may see. Source: Kafka's ZkData.
const openPath = ConsumersPath

var secretPaths = []string{ConfigPath + "/" + EntityUsers, "/delegation_token"}

// aclOf is what a new znode is protected by: nothing, or its creator may do everything, and others read what is no secret.
func (s *session) aclOf(full string) []zk.ACL {
	path := s.relative(full)
	if !s.client.options.Protect || path == openPath {
		return zk.WorldACL(zk.PermAll)
	}
	list := zk.AuthACL(zk.PermAll)
	if slices.ContainsFunc(secretPaths, func(secret string) bool { return strings.HasPrefix(path, secret) }) {
		return list
	}
	return append(list, zk.WorldACL(zk.PermRead)...)
}

func toStat(st *zk.Stat) Stat {
	if st == nil {
		return Stat{}
	}
	return Stat{
		Czxid: st.Czxid, Mzxid: st.Mzxid, Ctime: st.Ctime, Version: st.Version, Cversion: st.Cversion,
		EphemeralOwner: st.EphemeralOwner, NumChildren: st.NumChildren,
	}
}

// Multi implements Session.
func (s *session) Multi(ops ...Op) (results []OpResult, err error) {
	if len(ops) == 0 {
		return nil, nil
	}
	requests, err := s.multiRequests(ops)
	if err != nil {
		return nil, err
	}
	var raw []zk.MultiResponse
	err = s.write(func() error {
		var err error
		raw, err = s.conn.Multi(requests...)
		return err
	})
	return s.multiResults(ops, raw, err)
}

func (s *session) multiRequests(ops []Op) ([]any, error) {
	requests := make([]any, len(ops))
	size := 0
	for i, op := range ops {
		full, err := s.full(op.Path)
		if err != nil {
			return nil, err
		}
		size += len(full) + len(op.Data) + createOverhead
		switch op.Kind {
		case OpCheck:
			requests[i] = &zk.CheckVersionRequest{Path: full, Version: op.Version}
		case OpCreate:
			requests[i] = &zk.CreateRequest{Path: full, Data: op.Data, Acl: s.aclOf(full), Flags: createFlags(op.Mode)}
		case OpSet:
			requests[i] = &zk.SetDataRequest{Path: full, Data: op.Data, Version: op.Version}
		case OpDelete:
			requests[i] = &zk.DeleteRequest{Path: full, Version: op.Version}
		default:
			return nil, fmt.Errorf("%w: operation kind %d", ErrInvalid, op.Kind)
		}
	}
	return requests, s.checkRequest("a multi", size)
}

func (s *session) multiResults(ops []Op, raw []zk.MultiResponse, err error) ([]OpResult, error) {
	if err == nil && len(raw) != len(ops) {
		err = errAnswerShape
	}
	if err == nil {
		results := make([]OpResult, len(ops))
		for i, r := range raw {
			results[i].Stat = toStat(r.Stat)
			if ops[i].Kind == OpCreate {
				results[i].Path = s.relative(r.String)
			}
		}
		return results, nil
	}
	failed := failedOp(raw)
	if failed < 0 || failed >= len(ops) {
		return nil, opError("multi", ops[0].Path, err)
	}
	cause := s.translate(raw[failed].Error)
	results := make([]OpResult, len(ops))
	for i := range results {
		results[i].Err = ErrSkipped
	}
	results[failed].Err = opError("multi", ops[failed].Path, cause)
	return results, results[failed].Err
}

// failedOp finds the operation that failed: those before it say OK, those after it a code that the library does not know. -1 if
// none did.
func failedOp(raw []zk.MultiResponse) int {
	for i, r := range raw {
		if r.Error != nil {
			return i
		}
	}
	return -1
}

// MultiMany implements Session.
func (s *session) MultiMany(multis [][]Op) []MultiResult {
	results := make([]MultiResult, len(multis))
	parallel.For(len(multis), s.client.maxInFlight, func(i int) {
		results[i].Results, results[i].Err = s.Multi(multis[i]...)
	})
	return results
}

// probe asks the server once, for the lease. It waits for no reconnect.
func (s *session) probe() bool {
	t := s.tap.Load()
	if t == nil {
		return false
	}
	sent := s.lease.now()
	a := t.call(opcodeExists, appendPathRequest(nil, "/", false))
	if a.err != nil || a.code == codeSessionExpiry || a.code == codeSessionMoved || s.isOver() {
		return false
	}
	s.lease.renew(sent)
	return true
}

// probeNow has the lease renewed at once: after an absence it may be over, and until it is renewed leaders refuse to serve.
func (s *session) probeNow() {
	select {
	case s.reprobe <- struct{}{}:
	default:
	}
}

// probeLoop renews the lease four times in its length, and after each reconnect.
func (s *session) probeLoop() {
	select {
	case <-s.ready:
	case <-s.done:
		return
	}
	for {
		select {
		case <-s.done:
			return
		case <-time.After(max(s.lease.length/4, minProbe)):
		case <-s.reprobe:
		}
		if !s.waitConnected() {
			return
		}
		s.probe()
	}
}

const minProbe = 20 * time.Millisecond

// statOf reads the Stat at the end of an exists answer, or of a getChildren2 answer after its names.
func childrenStat(body []byte) (Stat, int64, error) {
	r := juteReader{b: body}
	n := r.int32()
	for range n {
		if r.bytes(); r.err != nil {
			return Stat{}, 0, r.err
		}
	}
	return statAndPzxid(r.b)
}

func statAndPzxid(body []byte) (Stat, int64, error) {
	r := juteReader{b: body}
	stat := r.stat()
	if r.err != nil {
		return Stat{}, 0, r.err
	}
	return stat, int64(binary.BigEndian.Uint64(body[statBytes-8:])), nil
}
