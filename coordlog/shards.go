package coordlog

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf16"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kerr"
)

// PartitionOf is the partition of a coordinator's topic, which has so many, that an id belongs to: Java's hash of the id over its
// UTF-16 units, made positive (the one number that has no positive twin becomes 0).
func PartitionOf(id string, partitions int32) int32 {
	var h int32
	for _, u := range utf16.Encode([]rune(id)) {
		h = 31*h + int32(u)
	}
	switch {
	case h == -1<<31:
		h = 0
	case h < 0:
		h = -h
	}
	return h % partitions
}

// Shard is one partition that this broker leads, for as long as it leads it without a break. A coordinator embeds it in what it keeps for the partition.
type Shard struct {
	*Writer
	Number int32
	phase  atomic.Int32
	end    int64 // of the log when reading began; for who loads it
}

// The phases of a shard, in their order.
const (
	loading int32 = iota
	ready
	closed
)

// NewShard makes a shard that is to be loaded.
func NewShard(number int32, w *Writer) *Shard {
	return &Shard{Number: number, Writer: w}
}

// Base is the shard itself, for those that embed it.
func (s *Shard) Base() *Shard { return s }

// Loading reports whether the shard is still being loaded.
func (s *Shard) Loading() bool { return s.phase.Load() == loading }

// Ready reports whether the shard is loaded and still led.
func (s *Shard) Ready() bool { return s.phase.Load() == ready }

// Closed reports whether the partition is not led any more.
func (s *Shard) Closed() bool { return s.phase.Load() == closed }

// Open opens a loaded shard to requests, and reports whether it is still led.
func (s *Shard) Open() bool { return s.phase.CompareAndSwap(loading, ready) }

// Close ends it: the partition is not led any more.
func (s *Shard) Close() { s.phase.Store(closed) }

// goesOn takes over the leadership of a later shard of the same partition, if nobody can have led between them.
func (s *Shard) goesOn(later *Shard) bool {
	if s.Closed() || later.Epoch() != s.Epoch()+1 {
		return false
	}
	s.led.Store(later.led.Load())
	return true
}

// Shards are the partitions of a coordinator's topic that this broker leads. They guard themselves.
type Shards[S interface{ Base() *Shard }] struct {
	load   func(S) error // until Open, or an error: then again; reads InTurn
	unload func(S)       // must Close it
	what   string        // of what the shards have: "groups", "transactions"
	log    zerolog.Logger

	loads   sync.WaitGroup
	loaders chan struct{}
	stopped atomic.Bool

	current atomic.Pointer[map[int32]S] // replaced whole under mu
	mu      sync.Mutex
}

// loadsAtOnce bounds how many partitions are read at a time.
const loadsAtOnce = 4

// NewShards makes an empty set. load builds a shard's state and opens it; unload closes it and answers who waits.
func NewShards[S interface{ Base() *Shard }](what string, log zerolog.Logger, load func(S) error, unload func(S)) *Shards[S] {
	x := &Shards[S]{load: load, unload: unload, what: what, log: log, loaders: make(chan struct{}, loadsAtOnce)}
	x.current.Store(&map[int32]S{})
	return x
}

// All are the shards by their numbers; not to be changed.
func (x *Shards[S]) All() map[int32]S { return *x.current.Load() }

// Stopped reports whether Stop was called.
func (x *Shards[S]) Stopped() bool { return x.stopped.Load() }

// Find returns a shard that serves, or why there is none.
func (x *Shards[S]) Find(number int32) (S, error) {
	var none S
	s, ok := x.All()[number]
	switch {
	case !ok:
		return none, kerr.NotCoordinator
	case s.Base().Loading():
		return none, kerr.CoordinatorLoadInProgress
	case s.Base().Closed():
		return none, kerr.NotCoordinator
	}
	return s, nil
}

// Elected takes a partition that this broker leads from now on, and loads it. It returns at once. A shard whose leader epoch merely
// grew by one stays: the controller took a follower out, and nobody else has led in between.
func (x *Shards[S]) Elected(s S) {
	number := s.Base().Number
	if old, ok := x.All()[number]; ok && old.Base().goesOn(s.Base()) {
		return
	}
	old, had, ok := x.swap(number, &s)
	if had {
		x.unload(old)
	}
	if ok {
		x.loads.Go(func() { x.loadPatiently(s) })
	}
}

// Resigned drops a partition that this broker does not lead any more.
func (x *Shards[S]) Resigned(number int32) {
	if old, had, _ := x.swap(number, nil); had {
		x.unload(old)
	}
}

// swap replaces a shard and returns the old one, if there was one. After Stop no new one is taken: ok is false.
func (x *Shards[S]) swap(number int32, s *S) (old S, had, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if s != nil && x.stopped.Load() {
		return old, false, false
	}
	next := maps.Clone(x.All())
	old, had = next[number]
	if s != nil {
		next[number] = *s
	} else {
		delete(next, number)
	}
	x.current.Store(&next)
	return old, had, true
}

// InTurn runs fn, which reads a shard's records, for few shards at a time.
func (x *Shards[S]) InTurn(fn func() error) error {
	x.loaders <- struct{}{}
	defer func() { <-x.loaders }()
	return fn()
}

// loadRetry is the pause after a load that failed.
const loadRetry = time.Second

// loadPatiently loads a shard, as often as it takes while this broker leads. Until then its clients are told to wait: with a
// part of the state they would go wrong.
func (x *Shards[S]) loadPatiently(s S) {
	for s.Base().Loading() {
		err := x.load(s)
		if err == nil {
			return
		}
		x.log.Error().Err(err).Int32("partition", s.Base().Number).Msg(x.what + " could not be loaded, trying on; their clients wait until they are, or until another broker leads this partition")
		for range 10 {
			if s.Base().Loading() {
				time.Sleep(loadRetry / 10)
			}
		}
	}
}

// Stop unloads everything and takes nothing new.
func (x *Shards[S]) Stop() {
	x.mu.Lock()
	x.stopped.Store(true)
	x.mu.Unlock()
	for number := range x.All() {
		x.Resigned(number)
	}
}

// Wait returns when nothing is loaded any more, after Stop.
func (x *Shards[S]) Wait() { x.loads.Wait() }
