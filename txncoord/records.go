package txncoord

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/internal/cluster"
)

// The records of __transaction_state. The key is version 0 and the transactional id, a null value is a tombstone. Version 0 of the
// value is written, as Kafka 3.9 does in ZooKeeper mode; version 1, which has tagged fields, is read too:
//
//	int16   version                        array  of topics, null in the state Empty:
//	int64   producer id                             string topic, array of int32 partitions
//	int16   producer epoch                 int64  last update, ms since 1970
//	int32   timeout, ms                    int64  start of the transaction, ms since 1970, -1 none
//	int8    state
//
// kafka-dump-log and others read them: the bytes are Kafka's.
const (
	keyVersion      = 0
	valueVersion    = 0
	valueVersionMax = 1
)

var errRecord = errors.New("malformed record")

func encodeKey(id string) []byte {
	k := kmsg.TxnMetadataKey{Version: keyVersion, TransactionalID: id}
	return k.AppendTo(make([]byte, 0, 4+len(id)))
}

// encodeImage is a record's value; nil for an id that is forgotten.
func encodeImage(i *image) []byte {
	if i.state == Dead {
		return nil
	}
	v := kmsg.TxnMetadataValue{
		Version: valueVersion, ProducerID: i.ID, ProducerEpoch: i.Epoch, TimeoutMillis: i.timeoutMs,
		State: kmsg.TransactionState(i.state), LastUpdateTimestamp: i.updatedMs, StartTimestamp: i.startedMs,
		PreviousProducerID: noProducerID, NextProducerID: noProducerID, NextProducerEpoch: noProducerEpoch,
	}
	if i.state != Empty {
		v.Topics = []kmsg.TxnMetadataValueTopic{} // not null
	}
	for _, tp := range i.partitions.sorted() {
		if n := len(v.Topics); n == 0 || v.Topics[n-1].Topic != tp.Topic {
			v.Topics = append(v.Topics, kmsg.TxnMetadataValueTopic{Topic: tp.Topic})
		}
		t := &v.Topics[len(v.Topics)-1]
		t.Partitions = append(t.Partitions, tp.Partition)
	}
	return v.AppendTo(make([]byte, 0, 64))
}

func (p partitions) sorted() []cluster.TopicPartition {
	tps := make([]cluster.TopicPartition, 0, len(p))
	for tp := range p {
		tps = append(tps, tp)
	}
	slices.SortFunc(tps, func(a, b cluster.TopicPartition) int {
		if c := strings.Compare(a.Topic, b.Topic); c != 0 {
			return c
		}
		return int(a.Partition) - int(b.Partition)
	})
	return tps
}

// decodeKey reads a key; known is false for versions that are none of ours.
func decodeKey(key []byte) (id string, known bool, err error) {
	if len(key) < 2 {
		return "", false, fmt.Errorf("%w: key of %d bytes", errRecord, len(key))
	}
	if binary.BigEndian.Uint16(key) != keyVersion {
		return "", false, nil
	}
	var k kmsg.TxnMetadataKey
	if err := k.ReadFrom(key); err != nil {
		return "", true, fmt.Errorf("%w: key: %w", errRecord, err)
	}
	return k.TransactionalID, true, nil
}

func decodeImage(value []byte) (image, error) {
	if len(value) < 2 || binary.BigEndian.Uint16(value) > valueVersionMax {
		return image{}, fmt.Errorf("%w: value of an unknown version", errRecord)
	}
	v := kmsg.NewTxnMetadataValue()
	if err := v.ReadFrom(value); err != nil {
		return image{}, fmt.Errorf("%w: value: %w", errRecord, err)
	}
	i := image{
		Producer: Producer{v.ProducerID, v.ProducerEpoch}, previousID: v.PreviousProducerID, lastEpoch: noProducerEpoch,
		timeoutMs: v.TimeoutMillis, state: State(v.State), startedMs: v.StartTimestamp, updatedMs: v.LastUpdateTimestamp,
	}
	if i.state < Empty || i.state > CompleteAbort || i.ID < 0 || i.Epoch < 0 {
		return image{}, fmt.Errorf("%w: producer %d, epoch %d, state %d", errRecord, i.ID, i.Epoch, i.state)
	}
	for _, t := range v.Topics {
		for _, p := range t.Partitions {
			if i.partitions == nil {
				i.partitions = partitions{}
			}
			i.partitions[cluster.TopicPartition{Topic: t.Topic, Partition: p}] = struct{}{}
		}
	}
	return i, nil
}
