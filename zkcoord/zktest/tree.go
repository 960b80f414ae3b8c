// Package zktest is a ZooKeeper in memory, for tests: one tree, any number of sessions, faults on command.
package zktest

import "ottla/zkcoord"

// Tree is the ensemble: a tree of znodes, its sessions and its watches.
type Tree struct{}

// NewTree returns a tree that holds only the root.
func NewTree() *Tree { panic("todo") }

// NewSession opens a session.
func (t *Tree) NewSession() *FakeSession { panic("todo") }

// FakeSession is one session on a Tree.
type FakeSession struct{ zkcoord.Session }

// Expire ends the session as the ensemble does: ephemeral znodes go, operations fail with ErrSessionLost.
func (s *FakeSession) Expire() { panic("todo") }

// Close ends the session as a client does.
func (s *FakeSession) Close() { panic("todo") }
