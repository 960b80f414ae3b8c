package bench

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
)

// inFlight bounds what a connection has in flight: so many bytes, at least two requests, at most 32.
const inFlight = 256 << 10

func windowOf(request int) int { return min(max(inFlight/request, 2), 32) }

// producer sends the same batch over and over on one connection.
type producer struct {
	s       *socket
	frames  []byte // window copies of a request, back to back
	frame   int    // length of one
	payload int64  // bytes of the batch
	errorAt int
	parts   []int32 // partitions, in turn
	partAt  int

	sent   uint32
	acked  uint32
	stop   atomic.Bool
	stored atomic.Int64 // payload bytes acknowledged
}

// newProducer spreads its requests over the partitions given, all led by the broker at address.
func newProducer(address, topic string, partitions []int32, acks int16, b batch) (*producer, error) {
	s, err := dial(address)
	if err != nil {
		return nil, err
	}
	one := produceFrame(topic, partitions[0], acks, b)
	p := &producer{s: s, frame: len(one), payload: int64(len(b.bytes)), errorAt: produceErrorAt(topic), parts: partitions}
	for range windowOf(len(one)) {
		p.frames = append(p.frames, one...)
	}
	p.partAt = partitionAt(topic)
	return p, nil
}

// partitionAt is where produceFrame has the partition: after length, key, version, correlation id, client id, tags, transaction,
// acks, timeout, one topic with its name, one partition.
func partitionAt(topic string) int {
	return 4 + 2 + 2 + 4 + 2 + len("bench") + 1 + 1 + 2 + 4 + 1 + 1 + len(topic) + 1
}

func (p *producer) run() error {
	window := uint32(len(p.frames) / p.frame)
	for {
		free := window - (p.sent - p.acked)
		if p.stop.Load() {
			free = 0
		}
		if free > 0 {
			if err := p.send(int(free)); err != nil {
				return err
			}
		}
		if p.sent == p.acked {
			return nil
		}
		if err := p.s.frames(p.take); err != nil {
			return err
		}
	}
}

func (p *producer) send(n int) error {
	for i := range n {
		f := p.frames[i*p.frame:]
		binary.BigEndian.PutUint32(f[correlationAt:], p.sent)
		if len(p.parts) > 1 {
			binary.BigEndian.PutUint32(f[p.partAt:], uint32(p.parts[int(p.sent)%len(p.parts)]))
		}
		p.sent++
	}
	return p.s.write(p.frames[:n*p.frame])
}

func (p *producer) take(answer []byte) error {
	if err := checkProduced(answer, p.acked, p.errorAt); err != nil {
		return err
	}
	p.acked++
	p.stored.Add(p.payload)
	return nil
}

func checkProduced(answer []byte, want uint32, errorAt int) error {
	if got := binary.BigEndian.Uint32(answer[4:]); got != want {
		return fmt.Errorf("answer %d came, %d was due", got, want)
	}
	if code := int16(binary.BigEndian.Uint16(answer[errorAt:])); code != 0 {
		return fmt.Errorf("produce refused: error %d", code)
	}
	return nil
}
