package zktest

import (
	"sync"
	"sync/atomic"
	"time"

	"ottla/zkcoord"
)

// Client stands for zkcoord.Client: it keeps one session open on a Tree and tells a listener of its changes.
type Client struct {
	tree     *Tree
	listener zkcoord.Listener // may be nil
	current  atomic.Pointer[FakeSession]
	noLease  atomic.Bool
	changing sync.Mutex // one Expire at a time
}

// NewClient opens the first session; as with the real one, the listener hears of later sessions only.
func NewClient(tree *Tree, listener zkcoord.Listener) *Client {
	c := &Client{tree: tree, listener: listener}
	c.current.Store(tree.NewSession())
	return c
}

// Session returns the current session.
func (c *Client) Session() zkcoord.Session { return c.current.Load() }

// Fake returns the current session with its faults.
func (c *Client) Fake() *FakeSession { return c.current.Load() }

// Expire ends the current session, and returns when the listener has heard of the loss and of the next session.
func (c *Client) Expire() {
	c.changing.Lock()
	defer c.changing.Unlock()
	old := c.current.Load()
	old.Expire()
	if c.listener != nil {
		c.listener.SessionLost(old.ID(), zkcoord.ErrSessionLost)
	}
	next := c.tree.NewSession()
	c.current.Store(next)
	if c.listener != nil {
		c.listener.ConnectionChanged(true)
		c.listener.SessionEstablished(next)
	}
}

// SetLease says whether the lease is valid; at first it is.
func (c *Client) SetLease(valid bool) { c.noLease.Store(!valid) }

// LeaseValid reports whether the session is sure to live.
func (c *Client) LeaseValid() bool { return c.LeaseRemaining() > 0 }

// LeaseRemaining returns a second while the lease is valid.
func (c *Client) LeaseRemaining() time.Duration {
	select {
	case <-c.current.Load().Done():
		return 0
	default:
	}
	if c.noLease.Load() {
		return 0
	}
	return time.Second
}

// LeaseLength returns that second.
func (c *Client) LeaseLength() (length time.Duration, proven bool) { return time.Second, true }

// Connected reports whether the session has a connection.
func (c *Client) Connected() bool {
	s := c.current.Load()
	c.tree.mu.Lock()
	defer c.tree.mu.Unlock()
	return s.up && !s.over
}

// Close ends the session.
func (c *Client) Close() { c.current.Load().Close() }
