package zkcoord

import (
	"errors"
	"fmt"
	"math"
	"strconv"

	"ottla/internal/cluster"
)

// producerIDBlock is the payload of /latest_producer_id_block: the block that was given out last. Bounds are strings and inclusive.
type producerIDBlock struct {
	broker      cluster.BrokerID
	first, last int64
}

const producerIDBlockSize = 1000

func (p producerIDBlock) encode() []byte {
	return fmt.Appendf(nil, `{"version":1,"broker":%d,"block_start":"%d","block_end":"%d"}`, p.broker, p.first, p.last)
}

func decodeProducerIDBlock(data []byte) (p producerIDBlock, err error) {
	o, err := parseObject(data)
	if err != nil {
		return p, err
	}
	if p.broker, err = required[cluster.BrokerID](o, "broker"); err != nil {
		return p, err
	}
	for _, bound := range []struct {
		key  string
		into *int64
	}{{"block_start", &p.first}, {"block_end", &p.last}} {
		text, err := required[string](o, bound.key)
		if err != nil {
			return p, err
		}
		if *bound.into, err = strconv.ParseInt(text, 10, 64); err != nil {
			return p, fmt.Errorf("%w: %q: %w", ErrInvalid, bound.key, err)
		}
	}
	return p, nil
}

// AllocateProducerIDs takes the next block of producer ids for a broker: [first, first+count). Ids are never given out twice; a
// block whose answer was lost is wasted. Source: KIP-730.
func AllocateProducerIDs(s Session, broker cluster.BrokerID) (first, count int64, err error) {
	for {
		data, stat, err := s.Get(ProducerIDBlockPath)
		if errors.Is(err, ErrNoNode) {
			if err := s.CreateAll(ProducerIDBlockPath, nil); err != nil && !retryable(err) {
				return 0, 0, err
			}
			continue
		}
		if err != nil {
			return 0, 0, err
		}
		next := producerIDBlock{broker: broker}
		if len(data) > 0 {
			latest, err := decodeProducerIDBlock(data)
			if err != nil {
				return 0, 0, opError("decode", ProducerIDBlockPath, err)
			}
			if latest.last > math.MaxInt64-producerIDBlockSize {
				return 0, 0, fmt.Errorf("%w: no producer ids left after %d", ErrInvalid, latest.last)
			}
			next.first = latest.last + 1
		}
		next.last = next.first + producerIDBlockSize - 1
		_, err = s.Set(ProducerIDBlockPath, next.encode(), stat.Version)
		if err == nil {
			return next.first, producerIDBlockSize, nil
		}
		if !retryable(err) {
			return 0, 0, err
		}
	}
}
