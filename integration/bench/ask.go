package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ask sends one request over a connection of its own. Its versions must be without tags in the header.
func ask[R kmsg.Response](ctx context.Context, address string, req kmsg.Request) (R, error) {
	var none R
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return none, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	if _, err := conn.Write(frame(req)); err != nil {
		return none, err
	}
	var head [8]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return none, err
	}
	body := make([]byte, binary.BigEndian.Uint32(head[:])-4)
	if _, err := io.ReadFull(conn, body); err != nil {
		return none, err
	}
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	return resp.(R), resp.ReadFrom(body)
}

// knows asks a broker whether it knows a leader of each partition of a topic.
func knows(ctx context.Context, address, topic string, partitions int) error {
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 8
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = kmsg.StringPtr(topic)
	req.Topics = append(req.Topics, t)
	resp, err := ask[*kmsg.MetadataResponse](ctx, address, req)
	if err != nil {
		return err
	}
	known := 0
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode == 0 && p.Leader >= 0 {
				known++
			}
		}
	}
	if known != partitions {
		return fmt.Errorf("%s knows the leaders of %d of %d partitions", address, known, partitions)
	}
	return nil
}

// listEnds asks a broker for the end of every partition of a topic; an error of any is an error.
func listEnds(ctx context.Context, address, topic string, partitions int) error {
	req := kmsg.NewPtrListOffsetsRequest()
	req.Version, req.ReplicaID = 5, -1
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = topic
	for p := range partitions {
		part := kmsg.NewListOffsetsRequestTopicPartition()
		part.Partition, part.Timestamp, part.CurrentLeaderEpoch = int32(p), -1, -1
		t.Partitions = append(t.Partitions, part)
	}
	req.Topics = append(req.Topics, t)
	resp, err := ask[*kmsg.ListOffsetsResponse](ctx, address, req)
	if err != nil {
		return err
	}
	answered := 0
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode != 0 {
				return fmt.Errorf("partition %d: %w", p.Partition, kerr.ErrorForCode(p.ErrorCode))
			}
			answered++
		}
	}
	if answered != partitions {
		return fmt.Errorf("%d of %d partitions answered", answered, partitions)
	}
	return nil
}
