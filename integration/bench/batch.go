package bench

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// batchHeader is the length of a record batch before its records, magic 2.
const batchHeader = 61

// Where things are in a record batch, magic 2.
const (
	batchLengthAt    = 8
	batchCRCAt       = 17
	batchAttributeAt = 21
	batchLastDeltaAt = 23
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// batch is a record batch as it goes over the wire, and how many records it holds.
type batch struct {
	bytes   []byte
	records int
}

// newBatch builds a batch of at most size bytes, before compression, of records of recordBytes each.
func newBatch(size, recordBytes int, codec string) (batch, error) {
	rng := rand.New(rand.NewPCG(1, 2))
	now := time.Now().UnixMilli()
	var records []byte
	n := 0
	for {
		r := appendRecord(nil, n, value(rng, recordBytes))
		if n > 0 && batchHeader+len(records)+len(r) > size {
			break
		}
		records = append(records, r...)
		n++
	}
	attributes, packed, err := compress(codec, records)
	if err != nil {
		return batch{}, err
	}
	b := make([]byte, batchHeader, batchHeader+len(packed))
	binary.BigEndian.PutUint32(b[batchLengthAt:], uint32(batchHeader-12+len(packed)))
	binary.BigEndian.PutUint32(b[12:], 0xffffffff) // leader epoch
	b[16] = 2
	binary.BigEndian.PutUint16(b[batchAttributeAt:], attributes)
	binary.BigEndian.PutUint32(b[batchLastDeltaAt:], uint32(n-1))
	binary.BigEndian.PutUint64(b[27:], uint64(now))
	binary.BigEndian.PutUint64(b[35:], uint64(now))
	binary.BigEndian.PutUint64(b[43:], ^uint64(0)) // no producer
	binary.BigEndian.PutUint16(b[51:], 0xffff)
	binary.BigEndian.PutUint32(b[53:], 0xffffffff)
	binary.BigEndian.PutUint32(b[57:], uint32(n))
	b = append(b, packed...)
	binary.BigEndian.PutUint32(b[batchCRCAt:], crc32.Checksum(b[batchAttributeAt:], castagnoli))
	return batch{bytes: b, records: n}, nil
}

// value is text that compresses about as well as log lines do.
func value(rng *rand.Rand, n int) []byte {
	words := []string{"GET ", "/orders/", "status=", "200 ", "user-", "latency_ms=", "region=eu-west ", "request_id="}
	var b []byte
	for len(b) < n {
		b = append(b, words[rng.IntN(len(words))]...)
		b = fmt.Appendf(b, "%x ", rng.Uint32())
	}
	return b[:n]
}

func appendRecord(b []byte, delta int, value []byte) []byte {
	body := []byte{0} // attributes
	body = binary.AppendVarint(body, 0)
	body = binary.AppendVarint(body, int64(delta))
	body = binary.AppendVarint(body, -1) // no key
	body = binary.AppendVarint(body, int64(len(value)))
	body = append(body, value...)
	body = binary.AppendVarint(body, 0) // no headers
	return append(binary.AppendVarint(b, int64(len(body))), body...)
}

func compress(codec string, p []byte) (attributes uint16, _ []byte, err error) {
	switch codec {
	case "":
		return 0, p, nil
	case "lz4":
		var out bytes.Buffer
		w := lz4.NewWriter(&out)
		if err := w.Apply(lz4.BlockSizeOption(lz4.Block64Kb)); err != nil {
			return 0, nil, err
		}
		if _, err := w.Write(p); err != nil {
			return 0, nil, err
		}
		err := w.Close()
		return 3, out.Bytes(), err
	case "zstd":
		w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
		if err != nil {
			return 0, nil, err
		}
		defer w.Close()
		return 4, w.EncodeAll(p, nil), nil
	}
	return 0, nil, fmt.Errorf("no codec %q", codec)
}

// Versions of the requests: what clients of today speak, with topic names.
const (
	produceVersion = 9
	fetchVersion   = 12
)

// correlationAt is where the correlation id is in a request frame that starts with its length.
const correlationAt = 8

func frame(req kmsg.Request) []byte {
	f := kmsg.NewRequestFormatter(kmsg.FormatterClientID("bench"))
	return f.AppendRequest(nil, req, 0)
}

// produceFrame is a request with one batch for one partition.
func produceFrame(topic string, partition int32, acks int16, b batch) []byte {
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = produceVersion, acks, 60_000
	t := kmsg.NewProduceRequestTopic()
	t.Topic = topic
	p := kmsg.NewProduceRequestTopicPartition()
	p.Partition, p.Records = partition, b.bytes
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	return frame(req)
}

// Where an answer to produceFrame has its error code: after length, correlation id, tags, one topic with its name, one partition
// with its index.
func produceErrorAt(topic string) int { return 4 + 4 + 1 + 1 + 1 + len(topic) + 1 + 4 }

// fetchFrame is a request for one partition, and where its offset is.
func fetchFrame(topic string, partition int32, maxBytes int32) (b []byte, offsetAt int) {
	const marker = 0x1122334455667788
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.SessionEpoch = fetchVersion, 500, 1, 50<<20, -1
	t := kmsg.NewFetchRequestTopic()
	t.Topic = topic
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch = partition, marker, maxBytes, -1
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	b = frame(req)
	return b, bytes.Index(b, binary.BigEndian.AppendUint64(nil, marker))
}

// An answer to fetchFrame: length, correlation id, tags, throttle, error, session, one topic with its name, one partition: index,
// error, high watermark, last stable offset, log start, aborted (null or none), preferred replica, then the records' length.
func fetchErrorAt(topic string) int   { return 4 + 4 + 1 + 4 + 2 + 4 + 1 + 1 + len(topic) + 1 + 4 }
func fetchRecordsAt(topic string) int { return fetchErrorAt(topic) + 2 + 8 + 8 + 8 + 1 + 4 }
