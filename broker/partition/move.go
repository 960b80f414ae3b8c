package partition

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/internal/cluster"
	"ottla/logstore"
)

// Moves of replicas between this broker's log directories (KIP-113). The replica serves all the while: a copy of its log follows it
// in the other directory, and takes its place in a moment in which nobody appends. A move survives a restart: it goes on when the
// partition gets its role again.

const (
	moveChunkBytes = 1 << 20
	movePause      = 100 * time.Millisecond // while the throttle holds
	moveRetryPause = 2 * time.Second        // while the target has no space
	movesAtOnce    = 4
)

// MoveThrottle bounds the bytes that moves copy, over all of them. Source: replica.alter.log.dirs.io.max.bytes.per.second.
type MoveThrottle interface {
	Exceeded(now time.Time) bool
	Record(bytes int, now time.Time)
}

// moves are those that are under way. It guards itself; its lock is a leaf.
type moves struct {
	mu      sync.Mutex
	running map[cluster.TopicPartition]*move
	closed  bool
	wg      sync.WaitGroup
	slots   chan struct{}
}

type move struct {
	cancel context.CancelFunc
	ended  chan struct{}
}

// AlterDir begins the move of a partition to another log directory, redirects it, or takes it back when it names the directory that
// the partition is in.
//
// Errors: LOG_DIR_NOT_FOUND; KAFKA_STORAGE_ERROR for a directory or partition that is offline; REPLICA_NOT_AVAILABLE when the
// partition is not here: should it come, it will be created there.
func (s *Set) AlterDir(tp cluster.TopicPartition, dir string) error {
	logs := s.options.Logs
	if err := logs.CheckDir(dir); err != nil {
		return err
	}
	s.roles.Lock()
	defer s.roles.Unlock()
	p := s.lookup(tp)
	if p != nil && p.view.Load().offline != nil {
		return kerr.KafkaStorageError
	}
	log, ok := logs.Get(tp)
	if p == nil || !ok || p.Log() == nil {
		logs.Prefer(tp, dir)
		return kerr.ReplicaNotAvailable
	}
	future, moving := logs.Future(tp)
	if moving && future.LogDir() == cleanPath(dir) {
		s.startMove(p)
		return nil
	}
	if moving {
		s.stopMove(tp)
		if err := logs.AbandonFuture(tp); err != nil {
			return err
		}
		log, _ = logs.Get(tp) // it may have been promoted just now
	}
	if log.LogDir() == cleanPath(dir) {
		return nil
	}
	s.stopMove(tp) // one that has just ended
	if _, err := logs.CreateFuture(tp, dir); err != nil {
		return err
	}
	s.log.Info().Str("topic", tp.Topic).Int32("partition", tp.Partition).Str("from", log.LogDir()).Str("to", dir).
		Int64("bytes", log.Size()).Msg("moving a replica to another log directory")
	s.startMove(p)
	return nil
}

// resumeMove goes on with a move that a stop interrupted.
func (s *Set) resumeMove(p *Partition) {
	if _, moving := s.options.Logs.Future(p.id); moving {
		s.startMove(p)
	}
}

func (s *Set) startMove(p *Partition) {
	m := &s.moves
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running[p.id] != nil || m.closed {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	mine := &move{cancel: cancel, ended: make(chan struct{})}
	m.running[p.id] = mine
	m.wg.Go(func() {
		defer close(mine.ended)
		defer cancel()
		p.moveLoop(ctx)
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.running, p.id)
	})
}

// stopMove returns when nothing of the move runs any more. The copy stays.
func (s *Set) stopMove(tp cluster.TopicPartition) {
	s.moves.mu.Lock()
	running := s.moves.running[tp]
	s.moves.mu.Unlock()
	if running == nil {
		return
	}
	running.cancel()
	<-running.ended
}

// stop ends all moves, for good.
func (m *moves) stop() {
	m.mu.Lock()
	m.closed = true
	for _, running := range m.running {
		running.cancel()
	}
	m.mu.Unlock()
	m.wg.Wait()
}

// moveLoop copies until the copy has taken the log's place, or ctx ends.
func (p *Partition) moveLoop(ctx context.Context) {
	select {
	case p.set.moves.slots <- struct{}{}:
		defer func() { <-p.set.moves.slots }()
	case <-ctx.Done():
		return
	}
	buf := make([]byte, moveChunkBytes)
	for ctx.Err() == nil {
		done, err := p.moveStep(ctx, buf)
		var fault *logstore.StorageError
		switch {
		case done:
			return
		case err == nil:
		case errors.As(err, &fault) && fault.Full:
			p.set.log.Warn().Err(err).Stringer("partition", p.id).Msg("the move to another log directory waits for space")
			pause(ctx, moveRetryPause)
		default:
			p.set.log.Error().Err(err).Stringer("partition", p.id).Msg("the move to another log directory ended; the replica stays where it is")
			if err := p.set.options.Logs.AbandonFuture(p.id); err != nil {
				p.set.log.Error().Err(err).Stringer("partition", p.id).Msg("the unfinished copy could not be removed")
			}
			return
		}
	}
}

// moveStep copies a chunk, or ends the move when there is nothing left to copy.
func (p *Partition) moveStep(ctx context.Context, buf []byte) (done bool, err error) {
	throttle := p.set.options.Moves
	for throttle != nil && throttle.Exceeded(p.set.now()) {
		if pause(ctx, movePause); ctx.Err() != nil {
			return false, nil
		}
	}
	logs := p.set.options.Logs
	n, err := logs.CopyChunk(p.id, buf)
	if err != nil {
		return false, err
	}
	if throttle != nil {
		throttle.Record(n, p.set.now())
	}
	if n == len(buf) || n > moveChunkBytes/2 {
		return false, nil
	}
	// Close to the end. What is flushed now need not be while nobody may append.
	if err := logs.FlushFuture(p.id); err != nil {
		return false, err
	}
	return p.swapLog(buf)
}

// swapLog copies what is left while nobody appends, and puts the copy in the log's place. done is false when too much came
// meanwhile.
func (p *Partition) swapLog(buf []byte) (done bool, err error) {
	p.gate.Lock()
	defer p.gate.Unlock()
	p.mu.Lock()
	if p.mu.offline != nil || p.mu.log == nil {
		p.mu.Unlock()
		return true, nil
	}
	a, done, err := p.swapLogLocked(buf)
	p.mu.Unlock()
	p.deliver(a)
	return done, err
}

func (p *Partition) swapLogLocked(buf []byte) (a after, done bool, err error) {
	logs := p.set.options.Logs
	future, ok := logs.Future(p.id)
	if !ok {
		return a, true, nil
	}
	if p.mu.log.LogEndOffset() != future.LogEndOffset() && p.mu.log.Size()-future.Size() > moveChunkBytes {
		return a, false, nil
	}
	for {
		n, err := logs.CopyChunk(p.id, buf)
		if err != nil {
			return a, false, err
		}
		if n == 0 {
			break
		}
	}
	moved, err := logs.Promote(p.id)
	if err != nil {
		return a, false, err
	}
	p.mu.log = moved
	p.publishLocked()
	a.wake = wakeOnAll
	return a, true, nil
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
