package zktest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"ottla/zkcoord"
)

// FakeSession is one session on a Tree.
type FakeSession struct {
	tree *Tree
	id   int64
	done chan struct{}

	// Guarded by tree.mu.
	over      bool
	up        bool
	connected chan struct{} // closed while connected
	fault     func(Call) Fault
	watches   map[watchKey]map[int]func()
	lastWatch int
	fired     map[watchKey]bool
	running   bool // a goroutine tells the watchers
}

var _ zkcoord.Session = (*FakeSession)(nil)

// Call describes a write to the hook of SetFault.
type Call struct {
	Ops []zkcoord.Op // one, or those of a multi
}

// Fault says what befalls a write.
type Fault int

// The faults.
const (
	NoFault    Fault = iota
	LostBefore       // the write is not done, ErrConnectionLost
	LostAfter        // the write is done, ErrConnectionLost
)

// SetFault sets a hook that is asked before every write; nil removes it. It must not use the session.
func (s *FakeSession) SetFault(hook func(Call) Fault) {
	s.tree.mu.Lock()
	defer s.tree.mu.Unlock()
	s.fault = hook
}

// LoseNext makes the next write that touches the path fail so.
func (s *FakeSession) LoseNext(path string, fault Fault) {
	hit := false
	s.SetFault(func(c Call) Fault {
		if hit || !slices.ContainsFunc(c.Ops, func(op zkcoord.Op) bool { return op.Path == path }) {
			return NoFault
		}
		hit = true
		return fault
	})
}

// Expire ends the session as the ensemble does: ephemeral znodes go, operations fail with ErrSessionLost.
func (s *FakeSession) Expire() {
	s.tree.mu.Lock()
	defer s.tree.mu.Unlock()
	if s.over {
		return
	}
	s.over = true
	close(s.done)
	s.tree.endLocked(s)
}

// Close ends the session as a client does.
func (s *FakeSession) Close() { s.Expire() }

// Disconnect takes the connection away: operations wait, watches are silent, the session lives.
func (s *FakeSession) Disconnect() {
	s.tree.mu.Lock()
	defer s.tree.mu.Unlock()
	if s.up {
		s.up = false
		s.connected = make(chan struct{})
	}
}

// Reconnect gives the connection back; watches report what they missed.
func (s *FakeSession) Reconnect() {
	s.tree.mu.Lock()
	defer s.tree.mu.Unlock()
	if !s.up {
		s.up = true
		close(s.connected)
		s.fireLocked(nil)
	}
}

// ID implements zkcoord.Session.
func (s *FakeSession) ID() int64 { return s.id }

// Done implements zkcoord.Session.
func (s *FakeSession) Done() <-chan struct{} { return s.done }

// enter waits for the connection and takes the tree's lock; on error the lock is not held.
func (s *FakeSession) enter() error {
	for {
		s.tree.mu.Lock()
		if s.over {
			s.tree.mu.Unlock()
			return zkcoord.ErrSessionLost
		}
		if s.up {
			return nil
		}
		connected := s.connected
		s.tree.mu.Unlock()
		select {
		case <-connected:
		case <-s.done:
		}
	}
}

func (s *FakeSession) read(op, p string, do func(n *node) error) error {
	if err := checkPath(p); err != nil {
		return err
	}
	if err := s.enter(); err != nil {
		return wrap(op, p, err)
	}
	defer s.tree.mu.Unlock()
	return wrap(op, p, do(s.tree.nodes[p]))
}

func checkPath(p string) error {
	if p == "/" {
		return nil
	}
	for i, name := range strings.Split(p, "/") {
		if (name == "") != (i == 0) || p == "" || name == "." || name == ".." {
			return fmt.Errorf("%w: path %q", zkcoord.ErrInvalid, p)
		}
	}
	return nil
}

func wrap(op, p string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", op, p, err)
}

// Get implements zkcoord.Session.
func (s *FakeSession) Get(p string) (data []byte, stat zkcoord.Stat, err error) {
	err = s.read("get", p, func(n *node) error {
		if n == nil {
			return zkcoord.ErrNoNode
		}
		data, stat = slices.Clone(n.data), n.stat()
		return nil
	})
	return data, stat, err
}

// Exists implements zkcoord.Session.
func (s *FakeSession) Exists(p string) (found bool, stat zkcoord.Stat, err error) {
	err = s.read("exists", p, func(n *node) error {
		if n != nil {
			found, stat = true, n.stat()
		}
		return nil
	})
	return found, stat, err
}

// Children implements zkcoord.Session. The order is random, as a server's is arbitrary.
func (s *FakeSession) Children(p string) (names []string, stat zkcoord.Stat, err error) {
	err = s.read("children", p, func(n *node) error {
		if n == nil {
			return zkcoord.ErrNoNode
		}
		names, stat = slices.AppendSeq([]string{}, maps.Keys(n.children)), n.stat()
		return nil
	})
	return names, stat, err
}

// GetMany implements zkcoord.Session.
func (s *FakeSession) GetMany(paths []string) []zkcoord.GetResult {
	results := make([]zkcoord.GetResult, len(paths))
	for i, p := range paths {
		results[i].Data, results[i].Stat, results[i].Err = s.Get(p)
	}
	return results
}

// Create implements zkcoord.Session.
func (s *FakeSession) Create(p string, data []byte, mode zkcoord.Mode) (string, error) {
	results, err := s.write("create", zkcoord.CreateOp(p, data, mode))
	if err != nil {
		return "", err
	}
	return results[0].Path, nil
}

// CreateAll implements zkcoord.Session.
func (s *FakeSession) CreateAll(p string, data []byte) error {
	_, err := s.Create(p, data, zkcoord.Persistent)
	if !errors.Is(err, zkcoord.ErrNoNode) {
		return err
	}
	parts := strings.Split(p, "/")
	for i := 2; i < len(parts); i++ {
		_, err := s.Create(strings.Join(parts[:i], "/"), nil, zkcoord.Persistent)
		if err != nil && !errors.Is(err, zkcoord.ErrNodeExists) && !errors.Is(err, zkcoord.ErrConnectionLost) {
			return err
		}
	}
	_, err = s.Create(p, data, zkcoord.Persistent)
	return err
}

// Set implements zkcoord.Session.
func (s *FakeSession) Set(p string, data []byte, version int32) (zkcoord.Stat, error) {
	results, err := s.write("set", zkcoord.SetOp(p, data, version))
	if err != nil {
		return zkcoord.Stat{}, err
	}
	return results[0].Stat, nil
}

// Delete implements zkcoord.Session.
func (s *FakeSession) Delete(p string, version int32) error {
	_, err := s.write("delete", zkcoord.DeleteOp(p, version))
	return err
}

// Multi implements zkcoord.Session.
func (s *FakeSession) Multi(ops ...zkcoord.Op) ([]zkcoord.OpResult, error) {
	if len(ops) == 0 {
		return nil, nil
	}
	return s.write("multi", ops...)
}

// MultiMany implements zkcoord.Session.
func (s *FakeSession) MultiMany(multis [][]zkcoord.Op) []zkcoord.MultiResult {
	results := make([]zkcoord.MultiResult, len(multis))
	for i, ops := range multis {
		results[i].Results, results[i].Err = s.Multi(ops...)
	}
	return results
}

// write does all operations or none.
func (s *FakeSession) write(what string, ops ...zkcoord.Op) ([]zkcoord.OpResult, error) {
	for _, op := range ops {
		if err := checkPath(op.Path); err != nil {
			return nil, err
		}
	}
	if err := s.enter(); err != nil {
		return nil, wrap(what, ops[0].Path, err)
	}
	defer s.tree.mu.Unlock()
	fault := NoFault
	if s.fault != nil {
		fault = s.fault(Call{Ops: ops})
	}
	if fault == LostBefore {
		return nil, wrap(what, ops[0].Path, zkcoord.ErrConnectionLost)
	}
	results, err := s.writeLocked(what, ops)
	if fault == LostAfter {
		return nil, wrap(what, ops[0].Path, zkcoord.ErrConnectionLost)
	}
	return results, err
}

func (s *FakeSession) writeLocked(what string, ops []zkcoord.Op) ([]zkcoord.OpResult, error) {
	c := s.tree.beginLocked(s.id)
	results := make([]zkcoord.OpResult, len(ops))
	for i, op := range ops {
		results[i] = c.do(op)
		if err := results[i].Err; err != nil {
			c.rollBack()
			for j := range results {
				results[j] = zkcoord.OpResult{Err: zkcoord.ErrSkipped}
			}
			results[i].Err = wrap(what, op.Path, err)
			return results, results[i].Err
		}
	}
	c.commitLocked()
	return results, nil
}
