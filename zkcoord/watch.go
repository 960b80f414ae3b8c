package zkcoord

import (
	"errors"
	"sync"

	"github.com/go-zookeeper/zk"

	"ottla/internal/parallel"
)

// watches are the watches of one session. ZooKeeper's watches fire once; here one goroutine takes what fired, arms it again, and
// then tells whoever watches. One server-side watch serves all who watch the same.
//
// The library's own watches are not used: it makes a channel per read, and restores them after a reconnect by the newest
// transaction it has seen, which may already include an answer that arrived on the new connection. Here a reconnect arms every
// watch again and compares what the znode looked like when it was last armed, so that no change in between is lost.
type watches struct {
	s    *session
	wake chan struct{}
	mu   struct {
		sync.Mutex
		byKey  map[watchKey]*watch
		fired  map[watchKey]bool // to be armed again, then told
		lost   bool              // the connection is a new one: all watches are gone
		lastID int
	}
}

type watchKey struct {
	path     string // with the chroot
	children bool
}

type watch struct {
	fns   map[int]func()
	armed bool // known says something
	known mark
}

// mark is what a znode looked like when its watch was armed.
type mark struct {
	found        bool
	czxid, mzxid int64
	pzxid        int64 // last change to the children
}

func (w *watches) init(s *session) {
	w.s = s
	w.wake = make(chan struct{}, 1)
	w.mu.byKey = make(map[watchKey]*watch)
	w.mu.fired = make(map[watchKey]bool)
}

// WatchData implements Session.
func (s *session) WatchData(path string, fn func()) (func(), error) {
	return s.watches.add(path, false, fn)
}

// WatchChildren implements Session.
func (s *session) WatchChildren(path string, fn func()) (func(), error) {
	return s.watches.add(path, true, fn)
}

func (w *watches) add(path string, children bool, fn func()) (func(), error) {
	full, err := w.s.full(path)
	if err != nil {
		return nil, err
	}
	key := watchKey{path: full, children: children}
	cancel := w.register(key, fn)
	now, err := w.arm(key, true)
	if err == nil && children && !now.found {
		err = ErrNoNode
	}
	if err != nil {
		cancel()
		return nil, opError("watch", path, err)
	}
	return cancel, nil
}

// register comes before arming: an event may arrive at once.
func (w *watches) register(key watchKey, fn func()) (cancel func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	entry := w.mu.byKey[key]
	if entry == nil {
		entry = &watch{fns: make(map[int]func())}
		w.mu.byKey[key] = entry
	}
	w.mu.lastID++
	id := w.mu.lastID
	entry.fns[id] = fn
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(entry.fns, id)
		if len(entry.fns) == 0 && w.mu.byKey[key] == entry {
			delete(w.mu.byKey, key)
		}
	}
}

// arm sets the server-side watch and notes what the znode looks like. A children watch on a znode that is not there waits for it to
// be created. With tell, those who watch it already are told if it changed since they were armed, since the comparison after a
// reconnect would not see that any more.
func (w *watches) arm(key watchKey, tell bool) (mark, error) {
	for {
		now, err := w.armOnce(key)
		if err != nil {
			return mark{}, err
		}
		if key.children && now == (mark{}) {
			if now, err = w.armOnce(watchKey{path: key.path}); err != nil {
				return mark{}, err
			}
			if now.found {
				continue // created in between
			}
		}
		w.mu.Lock()
		if entry := w.mu.byKey[key]; entry != nil {
			if tell && entry.armed && key.changed(entry.known, now) {
				w.fireLocked(key)
				w.poke()
			}
			entry.known, entry.armed = now, true
		}
		w.mu.Unlock()
		return now, nil
	}
}

func (w *watches) armOnce(key watchKey) (mark, error) {
	opcode := int32(opcodeExists)
	if key.children {
		opcode = opcodeGetChildren2
	}
	a, err := w.s.call(opcode, appendPathRequest(nil, key.path, true))
	if err != nil {
		return mark{}, err
	}
	if err := codeError(a.code); err != nil {
		if errors.Is(err, ErrNoNode) {
			return mark{}, nil
		}
		return mark{}, err
	}
	decode := statAndPzxid
	if key.children {
		decode = childrenStat
	}
	stat, pzxid, err := decode(a.body)
	if err != nil {
		return mark{}, err
	}
	return mark{found: true, czxid: stat.Czxid, mzxid: stat.Mzxid, pzxid: pzxid}, nil
}

// changed reports whether the watched aspect differs.
func (key watchKey) changed(before, now mark) bool {
	if key.children {
		return before.found != now.found || before.czxid != now.czxid || before.pzxid != now.pzxid
	}
	return before.found != now.found || before.czxid != now.czxid || before.mzxid != now.mzxid
}

// fired is told by the library's reader, in the order of the events and answers on the connection.
func (w *watches) fired(kind zk.EventType, path string) {
	data, children := false, false
	switch kind {
	case zk.EventNodeCreated, zk.EventNodeDeleted:
		data, children = true, true
	case zk.EventNodeDataChanged:
		data = true
	case zk.EventNodeChildrenChanged:
		children = true
	}
	w.mu.Lock()
	if data {
		w.fireLocked(watchKey{path: path})
	}
	if children {
		w.fireLocked(watchKey{path: path, children: true})
	}
	w.mu.Unlock()
	w.poke()
}

func (w *watches) fireLocked(key watchKey) {
	if w.mu.byKey[key] != nil {
		w.mu.fired[key] = true
	}
}

// reconnected is told when the session stands on a new connection, which has no watches.
func (w *watches) reconnected() {
	w.mu.Lock()
	w.mu.lost = true
	w.mu.Unlock()
	w.poke()
}

func (w *watches) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// runLoop is the session's watcher goroutine.
func (w *watches) runLoop() {
	for {
		select {
		case <-w.s.done:
			return
		case <-w.wake:
		}
		for _, fn := range w.rearm(w.take()) {
			if w.s.isOver() {
				return
			}
			fn()
		}
	}
}

// pending is one watch to arm again; told says that its watchers are told whatever the comparison says.
type pending struct {
	key   watchKey
	told  bool
	known mark
}

func (w *watches) take() []pending {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []pending
	if w.mu.lost {
		for key, entry := range w.mu.byKey {
			if entry.armed { // otherwise add is about to arm it
				all = append(all, pending{key: key, told: w.mu.fired[key], known: entry.known})
			}
		}
	} else {
		for key := range w.mu.fired {
			if w.mu.byKey[key] != nil {
				all = append(all, pending{key: key, told: true})
			}
		}
	}
	w.mu.lost = false
	clear(w.mu.fired)
	return all
}

// rearm arms the watches and returns whom to tell.
func (w *watches) rearm(all []pending) []func() {
	parallel.For(len(all), w.s.client.maxInFlight, func(i int) {
		p := &all[i]
		now, err := w.arm(p.key, false)
		if err != nil && !errors.Is(err, ErrSessionLost) {
			w.s.log.Error().Str("znode", p.key.path).Err(err).Msg("watch could not be armed again, its changes are not seen")
		}
		p.told = p.told || err != nil || p.key.changed(p.known, now)
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	var fns []func()
	for _, p := range all {
		if entry := w.mu.byKey[p.key]; entry != nil && p.told {
			for _, fn := range entry.fns {
				fns = append(fns, fn)
			}
		}
	}
	return fns
}
