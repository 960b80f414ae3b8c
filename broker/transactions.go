package broker

import (
	"context"

	"ottla/broker/partition"
	"ottla/config"
	"ottla/controller"
	"ottla/internal/cluster"
	"ottla/txncoord"
)

// openTransactions makes the transaction coordinator. It loads a partition of __transaction_state when this broker begins to lead it.
func (b *Broker) openTransactions(context.Context) error {
	s := b.config.Load()
	b.transactions = txncoord.New(txncoord.Options{
		TimeoutMax:    config.TransactionMaxTimeoutMs.Of(s),
		IDExpiration:  config.TransactionalIDExpirationMs.Of(s),
		AppendTimeout: b.requestTimeout(),
		LoadBytes:     config.TransactionStateLogLoadBufferSize.Of(s),
		Partitions:    func() int32 { return b.partitionsOf(transactionsTopic) },
		Lease:         b.zk.LeaseValid,
		NewProducerID: b.producerIDs.take,
		Leader:        b.markerLeader,
		Send:          b.markerLinks.RoundTrip,
		Logger:        b.log,
		Metrics:       txncoord.NewMetrics(b.registry),
	})
	b.partitions.OnLeadershipChange(b.transactionsLeadership)
	return nil
}

// closeTransactions ends the sending of markers; what comes later is told COORDINATOR_NOT_AVAILABLE.
func (b *Broker) closeTransactions(context.Context) {
	b.transactions.Close()
	b.markerLinks.close()
	b.verifyLinks.close()
}

// transactionsLeadership tells the coordinator which transactional ids it has won and lost.
func (b *Broker) transactionsLeadership(became, resigned []*partition.Partition) {
	for _, p := range resigned {
		if tp := p.TopicPartition(); tp.Topic == transactionsTopic {
			b.transactions.Resigned(tp.Partition)
		}
	}
	for _, p := range became {
		tp := p.TopicPartition()
		if tp.Topic != transactionsTopic {
			continue
		}
		if epoch, leads := p.IsLeader(); leads {
			b.transactions.Elected(tp.Partition, epoch, coordinatorLog{p})
		}
	}
}

// markerLeader is who is to write a partition's marker. Before the metadata has come nothing is known not to exist.
func (b *Broker) markerLeader(tp cluster.TopicPartition) (leader cluster.BrokerID, known bool) {
	m := b.metadata.load()
	t := m.topics[tp.Topic]
	switch {
	case m.topics[transactionsTopic] == nil:
		return cluster.NoBroker, true
	case t == nil || tp.Partition < 0 || int(tp.Partition) >= len(t.partitions):
		return cluster.NoBroker, false
	case t.partitions[tp.Partition] == nil || !m.alive(t.partitions[tp.Partition].leader):
		return cluster.NoBroker, true
	}
	return t.partitions[tp.Partition].leader, true
}

// transactionsTopicSpec is how __transaction_state is made.
func transactionsTopicSpec(s *config.Snapshot) controller.TopicSpec {
	return controller.TopicSpec{
		Name:              transactionsTopic,
		Partitions:        int32(config.TransactionStateLogNumPartitions.Of(s)),
		ReplicationFactor: int16(config.TransactionStateLogReplicationFactor.Of(s)),
		Configs: map[string]string{
			"cleanup.policy":                 "compact",
			"compression.type":               "uncompressed",
			"min.insync.replicas":            itoa(int64(config.TransactionStateLogMinISR.Of(s))),
			"segment.bytes":                  itoa(int64(config.TransactionStateLogSegmentBytes.Of(s))),
			"unclean.leader.election.enable": "false",
		},
	}
}
