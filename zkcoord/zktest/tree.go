// Package zktest is a ZooKeeper in memory, for tests: one tree, any number of sessions, faults on command. It keeps the contract that
// package zkcoord has with a real ensemble (Contract), needs no network, and runs in a testing/synctest bubble.
package zktest

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"ottla/zkcoord"
)

// Tree is the ensemble: a tree of znodes and the sessions that use it. All methods may be called from any goroutine.
type Tree struct {
	mu          sync.Mutex
	zxid        int64
	lastSession int64
	nodes       map[string]*node
	sessions    map[int64]*FakeSession
}

type node struct {
	data     []byte
	czxid    int64
	mzxid    int64
	ctime    time.Time
	version  int32
	owner    int64
	children map[string]bool
	created  int32 // children ever created: the next sequence number
}

// NewTree returns a tree that holds only the root.
func NewTree() *Tree {
	return &Tree{
		nodes:       map[string]*node{"/": {children: make(map[string]bool)}},
		sessions:    make(map[int64]*FakeSession),
		lastSession: 0x100000000000000,
	}
}

// NewSession opens a session.
func (t *Tree) NewSession() *FakeSession {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lastSession++
	s := &FakeSession{tree: t, id: t.lastSession, done: make(chan struct{}), watches: make(map[watchKey]map[int]func()), fired: make(map[watchKey]bool)}
	s.connected = make(chan struct{})
	close(s.connected)
	s.up = true
	t.sessions[s.id] = s
	return s
}

// Dump lists the tree, one znode a line: path, version, an E for ephemeral ones, data. For messages of failing tests.
func (t *Tree) Dump() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	for _, p := range slices.Sorted(maps.Keys(t.nodes)) {
		n := t.nodes[p]
		kind := "-"
		if n.owner != 0 {
			kind = "E"
		}
		fmt.Fprintf(&b, "%s v%d %s %s\n", p, n.version, kind, n.data)
	}
	return b.String()
}

func (n *node) stat() zkcoord.Stat {
	return zkcoord.Stat{
		Czxid: n.czxid, Mzxid: n.mzxid, Ctime: n.ctime.UnixMilli(), Version: n.version, EphemeralOwner: n.owner,
		Cversion: n.created*2 - int32(len(n.children)), NumChildren: int32(len(n.children)),
	}
}

// change is a transaction under way: what to undo if it fails, whom to tell if it does not.
type change struct {
	tree   *Tree
	zxid   int64
	owner  int64
	undo   []func()
	events []watchKey
}

func (t *Tree) beginLocked(owner int64) *change {
	return &change{tree: t, zxid: t.zxid + 1, owner: owner}
}

func (c *change) commitLocked() {
	c.tree.zxid = c.zxid
	for _, s := range c.tree.sessions {
		s.fireLocked(c.events)
	}
}

func (c *change) rollBack() {
	for _, undo := range slices.Backward(c.undo) {
		undo()
	}
}

func (c *change) create(p string, data []byte, mode zkcoord.Mode) (string, error) {
	parentPath := path.Dir(p)
	parent := c.tree.nodes[parentPath]
	switch {
	case parent == nil:
		return "", zkcoord.ErrNoNode
	case parent.owner != 0:
		return "", fmt.Errorf("%w: an ephemeral znode has no children", zkcoord.ErrInvalid)
	}
	if mode == zkcoord.PersistentSequential {
		p = fmt.Sprintf("%s%010d", p, parent.created)
	}
	if c.tree.nodes[p] != nil {
		return "", zkcoord.ErrNodeExists
	}
	n := &node{data: slices.Clone(data), czxid: c.zxid, mzxid: c.zxid, ctime: time.Now(), children: make(map[string]bool)}
	if mode == zkcoord.Ephemeral {
		n.owner = c.owner
	}
	c.tree.nodes[p] = n
	parent.created++
	parent.children[path.Base(p)] = true
	c.undo = append(c.undo, func() {
		delete(c.tree.nodes, p)
		parent.created--
		delete(parent.children, path.Base(p))
	})
	c.events = append(c.events, watchKey{path: p}, watchKey{path: p, children: true}, watchKey{path: parentPath, children: true})
	return p, nil
}

func (c *change) set(p string, data []byte, version int32) (zkcoord.Stat, error) {
	n, err := c.check(p, version)
	if err != nil {
		return zkcoord.Stat{}, err
	}
	old := *n
	n.data, n.mzxid = slices.Clone(data), c.zxid
	n.version++
	c.undo = append(c.undo, func() { n.data, n.mzxid, n.version = old.data, old.mzxid, old.version })
	c.events = append(c.events, watchKey{path: p})
	return n.stat(), nil
}

func (c *change) delete(p string, version int32) error {
	n, err := c.check(p, version)
	if err != nil {
		return err
	}
	if len(n.children) > 0 {
		return zkcoord.ErrNotEmpty
	}
	if p == "/" {
		return fmt.Errorf("%w: the root stays", zkcoord.ErrInvalid)
	}
	parent := c.tree.nodes[path.Dir(p)]
	delete(c.tree.nodes, p)
	delete(parent.children, path.Base(p))
	c.undo = append(c.undo, func() {
		c.tree.nodes[p] = n
		parent.children[path.Base(p)] = true
	})
	c.events = append(c.events, watchKey{path: p}, watchKey{path: p, children: true}, watchKey{path: path.Dir(p), children: true})
	return nil
}

func (c *change) check(p string, version int32) (*node, error) {
	n := c.tree.nodes[p]
	switch {
	case n == nil:
		return nil, zkcoord.ErrNoNode
	case version != zkcoord.AnyVersion && version != n.version:
		return nil, zkcoord.ErrBadVersion
	}
	return n, nil
}

// do does one operation.
func (c *change) do(op zkcoord.Op) (r zkcoord.OpResult) {
	switch op.Kind {
	case zkcoord.OpCheck:
		_, r.Err = c.check(op.Path, op.Version)
	case zkcoord.OpCreate:
		r.Path, r.Err = c.create(op.Path, op.Data, op.Mode)
	case zkcoord.OpSet:
		r.Stat, r.Err = c.set(op.Path, op.Data, op.Version)
	case zkcoord.OpDelete:
		r.Err = c.delete(op.Path, op.Version)
	default:
		r.Err = zkcoord.ErrInvalid
	}
	return r
}

// endLocked removes a session and its ephemeral znodes.
func (t *Tree) endLocked(s *FakeSession) {
	delete(t.sessions, s.id)
	c := t.beginLocked(s.id)
	for p, n := range t.nodes {
		if n.owner == s.id {
			_ = c.delete(p, zkcoord.AnyVersion) // has no children
		}
	}
	c.commitLocked()
}
