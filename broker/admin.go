package broker

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"ottla/broker/replication"
	"ottla/config"
)

// admin is the HTTP port for those who look after a broker: metrics and health. It is open from the first step of the start to the last
// of the stop, and has no login.
type admin struct {
	listener net.Listener
	server   *http.Server
	served   chan struct{} // closed when Serve has returned
}

// adminTimeout bounds a request to the admin port, so that one who hangs holds nothing.
const adminTimeout = 30 * time.Second

func (b *Broker) openAdmin(context.Context) error {
	address := config.OttlaAdminListener.Of(b.config.Load())
	if address == "" {
		return nil
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("ottla.admin.listener=%s: %w", address, err)
	}
	a := &admin{listener: l, served: make(chan struct{})}
	a.server = &http.Server{
		Handler: b.adminHandler(), ReadHeaderTimeout: adminTimeout, ReadTimeout: adminTimeout, WriteTimeout: adminTimeout,
		MaxHeaderBytes: 64 << 10,
	}
	b.admin = a
	go func() { // ends with closeAdmin
		defer close(a.served)
		if err := a.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			b.log.Error().Err(err).Msg("the admin port has ended")
		}
	}()
	e := b.log.Info()
	if ip := l.Addr().(*net.TCPAddr).IP; !ip.IsLoopback() {
		e = b.log.Warn().Str("advice", "it has no login: keep it on a private network")
	}
	e.Str("address", l.Addr().String()).Msg("admin port open")
	return nil
}

func (b *Broker) closeAdmin(ctx context.Context) {
	if b.admin == nil {
		return
	}
	if err := b.admin.server.Shutdown(ctx); err != nil {
		_ = b.admin.server.Close()
	}
	<-b.admin.served
}

// AdminAddr is the address of the admin port, "" without one; valid once Ready.
func (b *Broker) AdminAddr() string {
	if b.admin == nil {
		return ""
	}
	return b.admin.listener.Addr().String()
}

// adminHandler is the admin port's table.
func (b *Broker) adminHandler() http.Handler {
	alive := &liveness{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", b.serveMetrics)
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, r *http.Request) { answerChecks(w, alive.look(r.Context(), b.heartbeats())) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		answerChecks(w, b.readiness(r.URL.Query().Get("isr") == "full"))
	})
	mux.HandleFunc("GET /v1/broker-state", b.serveBrokerState)
	mux.HandleFunc("GET /v1/ready", b.serveReady)
	addProfiles(mux)
	return mux
}

// check is one thing that was looked at; a nil err is good.
type check struct {
	name string
	err  error
}

// answerChecks tells 200 when all is good, else 503, and one line for each check.
func answerChecks(w http.ResponseWriter, checks []check) {
	var text strings.Builder
	status := http.StatusOK
	for _, c := range checks {
		if c.err == nil {
			fmt.Fprintf(&text, "ok   %s\n", c.name)
			continue
		}
		status = http.StatusServiceUnavailable
		fmt.Fprintf(&text, "FAIL %s: %s\n", c.name, strings.ReplaceAll(c.err.Error(), "\n", " "))
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text.String())
}

// readiness says whether the broker serves and is part of its cluster; with full, also whether every replica here is in sync.
func (b *Broker) readiness(full bool) []check {
	when := func(good bool, otherwise string) error {
		if good {
			return nil
		}
		return errors.New(otherwise)
	}
	s := b.sessionPicture(time.Now())
	checks := []check{
		{"zookeeper session", when(s.Open && s.LeaseRemaining > 0, "no session with ZooKeeper is proven to live")},
		{"log recovery", when(b.reached("logs"), "logs are being loaded")},
		{"listeners", when(b.reached("listeners") && !b.server.Stopped(), "not open")},
		{"registration", when(s.Registered && b.reached("registration"), "not registered in ZooKeeper")},
		{"log directories", b.failedDirs()},
	}
	if full && b.reached("partitions") {
		checks = append(checks, check{"in-sync replicas", b.outOfSync()})
	}
	if b.shuttingDown.Load() {
		checks = append(checks, check{"running", errors.New("stopping")})
	}
	return checks
}

// failedDirs complains when no log directory is left.
func (b *Broker) failedDirs() error {
	if !b.reached("logs") {
		return nil
	}
	dirs := b.logs.Dirs()
	for _, d := range dirs {
		if d.Err == nil {
			return nil
		}
	}
	return fmt.Errorf("all %d have failed", len(dirs))
}

// outOfSync counts the replicas here that lack members: led ones with an incomplete set, and others that are not in their leader's.
func (b *Broker) outOfSync() error {
	m := b.metadata.load()
	n, total := 0, 0
	example := ""
	for _, p := range b.partitions.All() {
		total++
		tp := p.TopicPartition()
		l := p.Look()
		pm := m.partition(tp.Topic, tp.Partition)
		good := pm != nil && slices.Contains(pm.isr, b.id)
		if l.Role == replication.Leader {
			good = !l.UnderReplicated
		}
		if !good || l.Offline {
			n, example = n+1, tp.String()
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d replicas are not fully in sync, e.g. %s", n, total, example)
}

// serveBrokerState is Strimzi's GET /v1/broker-state.
func (b *Broker) serveBrokerState(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(struct {
		BrokerState int `json:"brokerState"`
	}{b.state()})
}

// serveReady is Strimzi's GET /v1/ready: 204 or 503, without a body.
func (b *Broker) serveReady(w http.ResponseWriter, _ *http.Request) {
	for _, c := range b.readiness(false) {
		if c.err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

// heartbeat is a loop, or a lock, that must be got round or through.
type heartbeat struct {
	name string
	beat func(context.Context) error
	// patience is how long it may take before the broker counts as hanging: whoever kills a broker that is merely busy makes it worse.
	patience time.Duration
}

const (
	lockPatience = 30 * time.Second
	// The controller's loop may read the whole cluster's state in one piece, and waits while ZooKeeper is away.
	controllerPatience = 5 * time.Minute
)

// heartbeats are those that stand by now.
func (b *Broker) heartbeats() []heartbeat {
	through := func(name string, lock func()) heartbeat {
		return heartbeat{name, func(context.Context) error { lock(); return nil }, lockPatience}
	}
	out := []heartbeat{through("http", func() {})}
	if b.reached("partitions") {
		out = append(out, through("partitions", func() { b.partitions.All() }))
	}
	if b.reached("groups") {
		out = append(out, through("groups", func() { b.groups.Snapshots() }))
	}
	if b.reached("listeners") {
		out = append(out, through("connections", func() { b.server.Conns() }))
	}
	if b.reached("controller") && b.zk.Connected() {
		out = append(out, heartbeat{"controller loop", b.controller.Ping, controllerPatience})
	}
	return out
}

// liveness looks at heartbeats. One that takes its time is not started again, however often somebody asks.
type liveness struct {
	mu   sync.Mutex
	runs map[string]*beating
}

type beating struct {
	began time.Time
	done  chan struct{}
	err   error // set before done is closed
}

// beatWait is how long an answer to /livez waits for beats that have just begun.
const beatWait = time.Second

func (l *liveness) look(ctx context.Context, beats []heartbeat) []check {
	ctx, cancel := context.WithTimeout(ctx, beatWait)
	defer cancel()
	running := make([]*beating, len(beats))
	for i, h := range beats {
		running[i] = l.start(h)
	}
	checks := make([]check, len(beats))
	for i, h := range beats {
		checks[i] = check{h.name, running[i].verdict(ctx, h.patience)}
	}
	return checks
}

func (b *beating) verdict(ctx context.Context, patience time.Duration) error {
	select {
	case <-b.done:
		return b.err
	case <-ctx.Done():
	}
	if age := time.Since(b.began); age > patience {
		return fmt.Errorf("hangs for %s", age.Round(time.Second))
	}
	return nil
}

// start begins a beat, unless the last one has not ended.
func (l *liveness) start(h heartbeat) *beating {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.runs == nil {
		l.runs = map[string]*beating{}
	}
	if old := l.runs[h.name]; old != nil {
		return old
	}
	b := &beating{began: time.Now(), done: make(chan struct{})}
	l.runs[h.name] = b
	go func() { // ends with the beat; while it hangs, no second one is started
		b.err = h.beat(context.Background())
		l.mu.Lock()
		delete(l.runs, h.name)
		l.mu.Unlock()
		close(b.done)
	}()
	return b
}

// compressed is the answer's body, compressed where the client likes that. It must be closed.
func compressed(w http.ResponseWriter, r *http.Request) io.WriteCloser {
	if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		return nopCloser{w}
	}
	w.Header().Set("Content-Encoding", "gzip")
	z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed)
	return z
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
