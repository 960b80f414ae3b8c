package broker

import (
	"context"
	"fmt"
	"sync"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// producerIDs hands out producer ids that are unique in the cluster: blocks of 1000 come from the controller, which takes
// them from /latest_producer_id_block; the next block is asked for when a tenth of the current one is left. Source: KIP-730.
type producerIDs struct {
	allocate func(ctx context.Context) (first, count int64, err error)
	log      zerolog.Logger
	run      func(func())
	serving  context.Context // ends when nobody waits for ids any more

	mu struct {
		sync.Mutex
		next, end           int64 // current block
		spareNext, spareEnd int64 // the block after it, if it has come
		asking              bool
		waiting             []func(id int64, err error)
	}
}

// maxProducerIDWaiters bounds those who wait for a block; beyond it a client is told to try again.
const maxProducerIDWaiters = 10_000

// take calls done with a fresh id, at once where the block has one, else when the controller has answered.
func (p *producerIDs) take(done func(id int64, err error)) {
	p.mu.Lock()
	if id, ok := p.nextLocked(); ok {
		ask := p.mustAskLocked()
		p.mu.Unlock()
		if ask {
			p.run(p.refill)
		}
		done(id, nil)
		return
	}
	if len(p.mu.waiting) >= maxProducerIDWaiters {
		p.mu.Unlock()
		done(-1, kerr.CoordinatorLoadInProgress)
		return
	}
	p.mu.waiting = append(p.mu.waiting, done)
	ask := p.mustAskLocked()
	p.mu.Unlock()
	if ask {
		p.run(p.refill)
	}
}

func (p *producerIDs) nextLocked() (int64, bool) {
	if p.mu.next == p.mu.end {
		p.mu.next, p.mu.end = p.mu.spareNext, p.mu.spareEnd
		p.mu.spareNext, p.mu.spareEnd = 0, 0
	}
	if p.mu.next == p.mu.end {
		return -1, false
	}
	p.mu.next++
	return p.mu.next - 1, true
}

// mustAskLocked says whether the caller has to ask for a block, and notes that it does.
func (p *producerIDs) mustAskLocked() bool {
	const low = 100 // a tenth of the controller's block
	if p.mu.asking || p.mu.spareEnd > p.mu.spareNext || p.mu.end-p.mu.next > low {
		return false
	}
	p.mu.asking = true
	return true
}

func (p *producerIDs) refill() {
	first, count, err := p.allocate(p.serving)
	if err == nil && count <= 0 {
		err = fmt.Errorf("the controller gave a block of %d producer ids", count)
	}

	type ready struct {
		done func(int64, error)
		id   int64
	}
	var answers []ready
	p.mu.Lock()
	p.mu.asking = false
	if err == nil {
		if p.mu.next == p.mu.end {
			p.mu.next, p.mu.end = first, first+count
		} else {
			p.mu.spareNext, p.mu.spareEnd = first, first+count
		}
	}
	for len(p.mu.waiting) > 0 {
		id, ok := p.nextLocked()
		if !ok && err == nil {
			break
		}
		answers = append(answers, ready{p.mu.waiting[0], id})
		p.mu.waiting = p.mu.waiting[1:]
	}
	again := len(p.mu.waiting) > 0 && p.mustAskLocked()
	p.mu.Unlock()

	if err != nil {
		p.log.Warn().Err(err).Msg("no block of producer ids from the controller yet")
		// As in Kafka, the client is asked to come again rather than given an error that ends its producer.
		err = kerr.CoordinatorLoadInProgress
	}
	for _, a := range answers {
		a.done(a.id, err)
	}
	if again {
		p.run(p.refill)
	}
}

// allocateFromController asks the controller for a block.
func (b *Broker) allocateFromController(ctx context.Context) (first, count int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, b.requestTimeout())
	defer cancel()
	req := kmsg.NewPtrAllocateProducerIDsRequest()
	req.BrokerID, req.BrokerEpoch = int32(b.id), int64(b.epoch())
	resp, err := b.controllerLink.RoundTrip(ctx, req)
	if err != nil {
		return 0, 0, err
	}
	block := resp.(*kmsg.AllocateProducerIDsResponse)
	if err := kerr.ErrorForCode(block.ErrorCode); err != nil {
		return 0, 0, err
	}
	return block.ProducerIDStart, int64(block.ProducerIDLen), nil
}
