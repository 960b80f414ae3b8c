package zktest

import "ottla/zkcoord"

type watchKey struct {
	path     string
	children bool
}

// WatchData implements zkcoord.Session.
func (s *FakeSession) WatchData(p string, fn func()) (func(), error) {
	return s.watch(watchKey{path: p}, fn)
}

// WatchChildren implements zkcoord.Session.
func (s *FakeSession) WatchChildren(p string, fn func()) (func(), error) {
	return s.watch(watchKey{path: p, children: true}, fn)
}

func (s *FakeSession) watch(key watchKey, fn func()) (func(), error) {
	if err := checkPath(key.path); err != nil {
		return nil, err
	}
	if err := s.enter(); err != nil {
		return nil, wrap("watch", key.path, err)
	}
	defer s.tree.mu.Unlock()
	if key.children && s.tree.nodes[key.path] == nil {
		return nil, wrap("watch", key.path, zkcoord.ErrNoNode)
	}
	if s.watches[key] == nil {
		s.watches[key] = make(map[int]func())
	}
	s.lastWatch++
	id := s.lastWatch
	s.watches[key][id] = fn
	return func() {
		s.tree.mu.Lock()
		defer s.tree.mu.Unlock()
		delete(s.watches[key], id)
		if len(s.watches[key]) == 0 {
			delete(s.watches, key)
		}
	}, nil
}

// fireLocked notes what changed, and sees to it that the watchers are told. No goroutine outlives its work.
func (s *FakeSession) fireLocked(keys []watchKey) {
	for _, key := range keys {
		if s.watches[key] != nil {
			s.fired[key] = true
		}
	}
	if len(s.fired) > 0 && s.up && !s.running {
		s.running = true
		go s.tellLoop()
	}
}

func (s *FakeSession) tellLoop() {
	for {
		fns := s.takeFired()
		if fns == nil {
			return
		}
		for _, fn := range fns {
			fn()
		}
	}
}

// takeFired returns whom to tell; nil ends the goroutine.
func (s *FakeSession) takeFired() []func() {
	s.tree.mu.Lock()
	defer s.tree.mu.Unlock()
	var fns []func()
	if s.up && !s.over {
		for key := range s.fired {
			for _, fn := range s.watches[key] {
				fns = append(fns, fn)
			}
		}
		clear(s.fired)
	}
	s.running = fns != nil
	return fns
}
