package controller

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/internal/cluster"
	"ottla/zkcoord"
)

type ids = []cluster.BrokerID

// modelOf makes a model with live brokers, brokers that are shutting down, and one partition.
func modelOf(live, leaving, replicas ids, st zkcoord.PartitionState) (*model, *partition) {
	m := newModel(5)
	for _, id := range live {
		m.brokers[id] = &broker{Broker: cluster.Broker{ID: id, Epoch: cluster.BrokerEpoch(100 + id)}}
	}
	for _, id := range leaving {
		m.brokers[id] = &broker{Broker: cluster.Broker{ID: id, Epoch: cluster.BrokerEpoch(100 + id)}, shuttingDown: true}
	}
	t := m.addTopic("t", zkcoord.TopicNode{ID: cluster.NewTopicID(), Partitions: map[int32][]cluster.BrokerID{0: replicas}})
	p := t.partition(0)
	p.known, p.state, p.version = true, st, 7
	return m, p
}

func TestDecideLeader(t *testing.T) {
	for _, c := range []struct {
		name           string
		live, leaving  ids
		replicas, isr  ids
		leader         cluster.BrokerID
		strategy       strategy
		want           cluster.BrokerID // -1: no candidate
		wantISR, hears ids
		recovering     bool
	}{
		{"offline: assignment order, not that of the in-sync set", ids{2, 3}, nil, ids{1, 2, 3}, ids{3, 2, 1}, 1, electOffline, 2, ids{3, 2}, ids{2, 3}, false},
		{"offline: not a replica that is out of sync", ids{2, 3}, nil, ids{1, 2, 3}, ids{1, 3}, 1, electOffline, 3, ids{3}, ids{2, 3}, false},
		{"offline: not one that is shutting down", ids{3}, ids{2}, ids{1, 2, 3}, ids{1, 2, 3}, 1, electOffline, 3, ids{3}, ids{3}, false},
		{"offline: nobody", ids{2}, nil, ids{1, 2}, ids{1}, 1, electOffline, -1, nil, nil, false},
		{"unclean: clean when that helps", ids{2, 3}, nil, ids{1, 2, 3}, ids{1, 3}, 1, electUnclean, 3, ids{3}, ids{2, 3}, false},
		{"unclean: first that is online", ids{3, 2}, nil, ids{1, 2, 3}, ids{1}, 1, electUnclean, 2, ids{2}, ids{2, 3}, true},
		{"unclean: nobody is online", nil, ids{2}, ids{1, 2}, ids{1}, 1, electUnclean, -1, nil, nil, false},
		{"preferred", ids{1, 2}, nil, ids{1, 2}, ids{2, 1}, 2, electPreferred, 1, ids{2, 1}, ids{1, 2}, false},
		{"preferred: out of sync", ids{1, 2}, nil, ids{1, 2}, ids{2}, 2, electPreferred, -1, nil, nil, false},
		{"preferred: away", ids{2}, nil, ids{1, 2}, ids{2, 1}, 2, electPreferred, -1, nil, nil, false},
		{"shutdown: the leaver hears, too", ids{2, 3}, ids{1}, ids{1, 2, 3}, ids{1, 2, 3}, 1, electShutdown, 2, ids{2, 3}, ids{1, 2, 3}, false},
		{"shutdown: nobody else", nil, ids{1}, ids{1, 2}, ids{1, 2}, 1, electShutdown, -1, nil, nil, false},
		{"reassigned", ids{1, 4}, nil, ids{3, 4}, ids{1, 4}, 1, electReassigned, 4, ids{1, 4}, ids{3, 4}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			cur := zkcoord.PartitionState{Leader: c.leader, LeaderEpoch: 9, ISR: c.isr, ControllerEpoch: 4}
			m, p := modelOf(c.live, c.leaving, c.replicas, cur)
			d, err := m.decideLeader(p, cur, c.strategy)
			if c.want < 0 {
				require.ErrorIs(t, err, errNoCandidate)
				return
			}
			require.NoError(t, err)
			want := zkcoord.PartitionState{Leader: c.want, LeaderEpoch: 10, ISR: c.wantISR, ControllerEpoch: 5}
			if c.recovering {
				want.Recovery = cluster.Recovering
			}
			require.Equal(t, want, d.state)
			require.Equal(t, c.hears, d.recipients)
			require.Equal(t, c.recovering, d.unclean)
		})
	}
	m, p := modelOf(ids{1}, nil, ids{1}, zkcoord.PartitionState{Leader: 1, ISR: ids{1}, ControllerEpoch: 6})
	_, err := m.decideLeader(p, p.state, electOffline)
	require.ErrorIs(t, err, errNewerController)
}

func TestDecideLeaderFailedDirectory(t *testing.T) {
	cur := zkcoord.PartitionState{Leader: 1, ISR: ids{1, 2}}
	m, p := modelOf(ids{1, 2}, nil, ids{1, 2}, cur)
	p.replica(1).dirFailed = true
	require.Equal(t, phaseOffline, m.phase(p))
	d, err := m.decideLeader(p, cur, electOffline)
	require.NoError(t, err)
	require.Equal(t, cluster.BrokerID(2), d.state.Leader)
	require.Equal(t, ids{2}, d.state.ISR)
}

func TestDecideShrink(t *testing.T) {
	for _, c := range []struct {
		name      string
		isr, gone ids
		leader    cluster.BrokerID
		want      cluster.BrokerID
		wantISR   ids // nil: unchanged
	}{
		{"a follower", ids{1, 2, 3}, ids{2}, 1, 1, ids{1, 3}},
		{"the leader", ids{1, 2}, ids{1}, 1, -1, ids{2}},
		{"the last member stays", ids{1}, ids{1}, 1, -1, ids{1}},
		{"all members stay", ids{1, 2}, ids{1, 2}, 1, -1, ids{1, 2}},
		{"not in sync anyway", ids{1}, ids{2}, 1, 1, nil},
		{"again", ids{1}, ids{1}, -1, -1, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			cur := zkcoord.PartitionState{Leader: c.leader, LeaderEpoch: 3, ISR: c.isr}
			m, p := modelOf(ids{1, 2, 3}, nil, ids{1, 2, 3}, cur)
			d, err := m.decideShrink(p, cur, func(id cluster.BrokerID) bool { return !subset(ids{id}, without(ids{1, 2, 3}, c.gone)) })
			if c.wantISR == nil {
				require.ErrorIs(t, err, errUnchanged)
				return
			}
			require.NoError(t, err)
			require.Equal(t, zkcoord.PartitionState{Leader: c.want, LeaderEpoch: 4, ISR: c.wantISR, ControllerEpoch: 5}, d.state)
		})
	}
}

func TestDecideAlter(t *testing.T) {
	cur := zkcoord.PartitionState{Leader: 1, LeaderEpoch: 9, ISR: ids{1, 2}, ControllerEpoch: 4}
	good := proposal{leaderEpoch: 9, partitionEpoch: 7, isr: ids{1, 2, 3}}
	with := func(change func(*proposal)) proposal {
		p := good
		change(&p)
		return p
	}
	for _, c := range []struct {
		name string
		ask  proposal
		want error
	}{
		{"grow", good, nil},
		{"shrink", with(func(p *proposal) { p.isr = ids{1} }), nil},
		{"partition epoch ahead", with(func(p *proposal) { p.partitionEpoch = 8 }), kerr.NotController},
		{"leader epoch ahead", with(func(p *proposal) { p.leaderEpoch = 10 }), kerr.NotController},
		{"leader epoch behind", with(func(p *proposal) { p.leaderEpoch = 8 }), kerr.FencedLeaderEpoch},
		{"partition epoch behind", with(func(p *proposal) { p.partitionEpoch = 6 }), kerr.InvalidUpdateVersion},
		{"a repeat is fine, whatever its order", with(func(p *proposal) { p.partitionEpoch, p.isr = 6, ids{2, 1} }), errUnchanged},
		{"a dead member", with(func(p *proposal) { p.isr = ids{1, 4} }), kerr.IneligibleReplica},
		{"a member that is shutting down", with(func(p *proposal) { p.isr = ids{1, 5} }), kerr.IneligibleReplica},
		{"a broker without a replica", with(func(p *proposal) { p.isr = ids{1, 6} }), kerr.IneligibleReplica},
		{"recovering alone", with(func(p *proposal) { p.isr, p.recovery = ids{1}, cluster.Recovering }), kerr.InvalidRequest},
		{"without its leader", with(func(p *proposal) { p.isr = ids{2, 3} }), kerr.InvalidRequest},
		{"empty", with(func(p *proposal) { p.isr = ids{} }), kerr.InvalidRequest},
		{"the member's registration is known", with(func(p *proposal) { p.brokerEpochs = []cluster.BrokerEpoch{101, -1, 103} }), nil},
		{"an earlier registration of the member", with(func(p *proposal) { p.brokerEpochs = []cluster.BrokerEpoch{101, -1, 99} }), kerr.IneligibleReplica},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, p := modelOf(ids{1, 2, 3, 6}, ids{5}, ids{1, 2, 3, 4, 5}, cur)
			got, err := m.decideAlter(p, c.ask, kerr.IneligibleReplica)
			if c.want != nil {
				require.ErrorIs(t, err, c.want)
				return
			}
			require.NoError(t, err)
			require.Equal(t, zkcoord.PartitionState{Leader: 1, LeaderEpoch: 9, ISR: c.ask.isr, ControllerEpoch: 5}, got)
		})
	}
}

func TestReassignTo(t *testing.T) {
	a := assignment{replicas: ids{1, 2, 3}}
	b := a.reassignTo(ids{4, 2})
	require.Equal(t, assignment{ids{4, 2, 1, 3}, ids{4}, ids{1, 3}}, b)
	require.Equal(t, ids{4, 2}, b.target())
	require.False(t, b.caughtUp(ids{1, 2, 3}))
	require.True(t, b.caughtUp(ids{2, 4, 1}))
	c := b.reassignTo(ids{5, 2}) // replaced: 4 is not needed any more
	require.Equal(t, assignment{ids{5, 2, 1, 3}, ids{5}, ids{1, 3}}, c)
	cancelled := b.reassignTo(b.origin())
	require.False(t, cancelled.reassigning())
	require.ElementsMatch(t, a.replicas, cancelled.replicas)
	require.True(t, b.completed().equal(assignment{replicas: ids{4, 2}}))
}

func TestDiffBrokers(t *testing.T) {
	m, _ := modelOf(ids{1, 2, 3}, nil, nil, zkcoord.PartitionState{})
	d := m.diffBrokers([]cluster.Broker{
		{ID: 2, Epoch: 200},                // bounced
		{ID: 3, Epoch: 103, Rack: "moved"}, // the same registration
		{ID: 4, Epoch: 104},
	})
	require.Equal(t, ids{1, 2}, d.gone)
	require.Equal(t, []cluster.Broker{{ID: 2, Epoch: 200}, {ID: 4, Epoch: 104}}, d.come)
	require.Equal(t, []cluster.Broker{{ID: 3, Epoch: 103, Rack: "moved"}}, d.modified)
	require.True(t, m.diffBrokers([]cluster.Broker{{ID: 1, Epoch: 101}, {ID: 2, Epoch: 102}, {ID: 3, Epoch: 103}}).empty())
}

func TestDecideRebalance(t *testing.T) {
	m, _ := modelOf(ids{1, 2}, nil, nil, zkcoord.PartitionState{})
	node := zkcoord.TopicNode{ID: cluster.NewTopicID(), Partitions: map[int32][]cluster.BrokerID{}}
	for number := range int32(10) {
		node.Partitions[number] = ids{1, 2}
	}
	for p := range m.addTopic("u", node).each() {
		p.known, p.state = true, zkcoord.PartitionState{Leader: 1, ISR: ids{1, 2}}
	}
	first, second := m.topics["u"].partition(0), m.topics["u"].partition(1)
	first.state.Leader = 2
	require.Empty(t, m.decideRebalance(10), "10 % is not more than 10 %")
	second.state.Leader = 2
	require.Len(t, m.decideRebalance(10), 2)
	second.state.ISR = ids{2}
	require.Equal(t, []*partition{first}, m.decideRebalance(10), "only what can be moved")
	m.brokers[1].shuttingDown = true
	require.Empty(t, m.decideRebalance(10))
}

func TestDeletionStep(t *testing.T) {
	_, p := modelOf(ids{1, 2}, nil, ids{1, 2}, zkcoord.PartitionState{})
	topic := p.topic
	require.Equal(t, stepWait, topic.deletionStep(), "not to be deleted")
	topic.deletion = &deletion{}
	require.Equal(t, stepStart, topic.deletionStep())
	topic.deletion.ineligible = "broker away"
	require.Equal(t, stepWait, topic.deletionStep())
	topic.deletion = &deletion{started: true}
	p.replicas[0].deletion, p.replicas[1].deletion = deletionSuccessful, deletionStarted
	require.Equal(t, stepWait, topic.deletionStep())
	p.replicas[1].deletion = deletionIneligible
	require.Equal(t, stepStart, topic.deletionStep(), "once more")
	p.replicas[1].deletion = deletionSuccessful
	require.Equal(t, stepComplete, topic.deletionStep())
}
