package partition

import (
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/broker/replication"
	"ottla/internal/cluster"
	"ottla/logstore"
)

// The way of a produce request through here, with one partition and acks=1: one shared gate, one mutex twice for some
// hundred nanoseconds, one write(2) inside the log, no allocation and no copy of our own. With acks=all it adds one entry in
// a slice; whoever moves the high watermark calls done.

// Append appends as leader. done is called exactly once: inline for acks 0 and 1, for errors, and when the records are
// committed already; otherwise later, from the goroutine that moved the high watermark, changed the role, or noticed that
// the time is over. done must not block.
func (p *Partition) Append(a AppendRequest, done func(AppendResult)) {
	if a.Now.IsZero() {
		a.Now = p.set.now()
	}
	if !p.set.mayAppend(a.Acks) {
		done(p.refused(kerr.NotLeaderForPartition))
		return
	}
	info, epoch, err := p.write(&a)
	if err != nil {
		r := p.refused(err)
		r.RecordErrors, r.ErrorMessage = info.RecordErrors, info.ErrorMessage
		var invalid *logstore.ValidationError
		if errors.As(err, &invalid) {
			r.RecordErrors, r.ErrorMessage = invalid.RecordErrors, invalid.Message
		}
		done(r)
		return
	}
	result := AppendResult{
		BaseOffset: info.FirstOffset, LastOffset: info.LastOffset, LogAppendTime: info.LogAppendTime,
		LogStartOffset: info.LogStartOffset, Duplicate: info.Duplicate, RecordErrors: info.RecordErrors,
		ErrorMessage: info.ErrorMessage, CurrentLeader: cluster.NoBroker, CurrentEpoch: cluster.NoLeaderEpoch,
	}
	w := appendWait{Wait: replication.Wait{End: info.LastOffset + 1, Epoch: epoch}, result: result, done: done}
	if a.Acks == -1 && info.FirstOffset >= 0 {
		w.deadline = a.Now.Add(a.Timeout)
	}
	p.written(&a, w)
}

// write passes the gate and appends to the log.
func (p *Partition) write(a *AppendRequest) (logstore.AppendInfo, cluster.LeaderEpoch, error) {
	p.gate.RLock()
	defer p.gate.RUnlock()
	v := p.view.Load()
	if err := v.appendCheck(a); err != nil {
		return logstore.AppendInfo{}, 0, err
	}
	info, err := v.log.AppendAsLeader(logstore.AppendParams{
		Records: a.Records, Epoch: v.leaderEpoch, Origin: a.Origin, ProduceVersion: a.ProduceVersion, Guard: a.Guard, Now: a.Now,
	})
	return info, v.leaderEpoch, err
}

// appendCheck judges an append before anything is written.
func (v *view) appendCheck(a *AppendRequest) error {
	epoch := cluster.NoLeaderEpoch
	if a.Fenced || a.LeaderEpoch > 0 {
		epoch = a.LeaderEpoch
	}
	if err := v.leaderCheck(epoch); err != nil {
		return err
	}
	if a.Acks == -1 && len(v.isr) < v.minISR {
		return kerr.NotEnoughReplicas
	}
	return nil
}

// written follows the write: it moves the ends, and answers or waits.
func (p *Partition) written(a *AppendRequest, w appendWait) {
	p.mu.Lock()
	env := p.envLocked(a.Now)
	if p.mu.state.Role() != replication.Leader || p.mu.log == nil {
		p.mu.Unlock()
		w.done(p.refused(kerr.NotLeaderForPartition)) // appended, but nobody knows whether it survives
		return
	}
	out := p.settledLocked(p.syncEndsLocked(env), env)
	out.wake |= WakeOnLogEnd
	waits := false
	if !w.deadline.IsZero() {
		over, err := p.mu.state.Acknowledged(w.Wait, env)
		if waits = !over; waits {
			p.mu.appends.add(w)
			p.mu.timer.atLatest(w.deadline, a.Now, p.expire)
		} else if err != nil {
			w.result = refusal(err, p.view.Load())
		}
	}
	p.mu.Unlock()
	p.deliver(out)
	switch {
	case waits:
	case !p.set.mayAppend(a.Acks):
		w.done(p.refused(kerr.NotLeaderForPartition))
	default:
		w.done(w.result)
	}
}

func (p *Partition) refused(err error) AppendResult { return refusal(err, p.view.Load()) }

func refusal(err error, v *view) AppendResult {
	return AppendResult{
		Err: err, BaseOffset: -1, LastOffset: -1, LogAppendTime: -1, LogStartOffset: -1,
		CurrentLeader: v.leader, CurrentEpoch: v.leaderEpoch,
	}
}

// appendWait is one acks=all append that waits for replication.
type appendWait struct {
	replication.Wait
	deadline time.Time // zero: does not wait
	result   AppendResult
	done     func(AppendResult)
}

// completion is an append whose wait is over.
type completion struct {
	done   func(AppendResult)
	result AppendResult
}

// appendWaits are the waits of a partition in the order of their end offsets. Appends arrive in that order, except for
// duplicates. The live ones are list[head:].
type appendWaits struct {
	list []appendWait
	head int
}

func (w *appendWaits) len() int { return len(w.list) - w.head }

func (w *appendWaits) add(a appendWait) {
	if w.head > 0 && w.head >= len(w.list)/2 {
		n := copy(w.list, w.list[w.head:])
		clear(w.list[n:])
		w.list, w.head = w.list[:n], 0
	}
	i := len(w.list)
	for i > w.head && w.list[i-1].End > a.End {
		i--
	}
	w.list = slices.Insert(w.list, i, a)
}

// takeReady removes the waits that are over and returns their completions.
func (w *appendWaits) takeReady(s *replication.State, env replication.Env) []completion {
	var out []completion
	for w.head < len(w.list) {
		a := &w.list[w.head]
		over, err := s.Acknowledged(a.Wait, env)
		if !over {
			break
		}
		c := completion{done: a.done, result: a.result}
		if err != nil {
			c.result.Err = err
		}
		out = append(out, c)
		*a = appendWait{}
		w.head++
	}
	if w.head == len(w.list) {
		w.list, w.head = w.list[:0], 0
	}
	return out
}

// takeAll removes every wait, with one verdict.
func (w *appendWaits) takeAll(r AppendResult) []completion {
	out := make([]completion, 0, w.len())
	for i := w.head; i < len(w.list); i++ {
		out = append(out, completion{done: w.list[i].done, result: r})
	}
	w.list, w.head = nil, 0
	return out
}

// takeExpired removes the waits whose time is over and returns the next deadline, zero for none.
func (w *appendWaits) takeExpired(now time.Time, r AppendResult) (out []completion, next time.Time) {
	kept := w.list[w.head:w.head]
	for i := w.head; i < len(w.list); i++ {
		a := w.list[i]
		if !a.deadline.After(now) {
			out = append(out, completion{done: a.done, result: r})
			continue
		}
		if next.IsZero() || a.deadline.Before(next) {
			next = a.deadline
		}
		kept = append(kept, a)
	}
	clear(w.list[w.head+len(kept):])
	w.list = w.list[:w.head+len(kept)]
	return out, next
}

// deadlineTimer fires at the earliest deadline of a partition's waits. It is armed only while somebody waits; when all are
// done early it fires once for nothing.
type deadlineTimer struct {
	timer *time.Timer
	at    time.Time // zero: not armed
}

// atLatest arms the timer so that it fires no later than at. Called with the partition's mu held.
func (t *deadlineTimer) atLatest(at, now time.Time, fire func()) {
	if !t.at.IsZero() && !at.Before(t.at) {
		return
	}
	t.at = at
	if t.timer == nil {
		t.timer = time.AfterFunc(at.Sub(now), fire)
		return
	}
	t.timer.Reset(at.Sub(now))
}

// expire answers the waits whose time is over.
func (p *Partition) expire() {
	now := p.set.now()
	p.mu.Lock()
	p.mu.timer.at = time.Time{}
	timedOut := refusal(kerr.RequestTimedOut, p.view.Load())
	var out after
	var next, nextDelete time.Time
	out.appends, next = p.mu.appends.takeExpired(now, timedOut)
	out.deletes, nextDelete = p.takeExpiredDeletesLocked(now)
	if next.IsZero() || !nextDelete.IsZero() && nextDelete.Before(next) {
		next = nextDelete
	}
	if !next.IsZero() {
		p.mu.timer.atLatest(next, now, p.expire)
	}
	p.mu.Unlock()
	p.deliver(out)
}
