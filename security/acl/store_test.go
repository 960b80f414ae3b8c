package acl

import (
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/zkcoord"
	"ottla/zkcoord/zktest"
)

// TestStoreWritesWhatAnotherBrokerReads has two brokers' stores on one ZooKeeper.
func TestStoreWritesWhatAnotherBrokerReads(t *testing.T) {
	tree := zktest.NewTree()
	sessions := [2]zkcoord.Session{tree.NewSession(), tree.NewSession()}
	var stores [2]*Store
	for i := range stores {
		stores[i] = NewStore(Settings{}, zerolog.Nop())
		require.NoError(t, stores[i].Load(sessions[i]))
		changes, err := zkcoord.WatchACLChanges(sessions[i], zerolog.Nop(), func(r zkcoord.ACLResource) {
			if err := stores[i].Reload(sessions[i], r); err != nil {
				t.Error(err)
			}
		})
		require.NoError(t, err)
		t.Cleanup(changes.Close)
	}
	q := Question{"User:alice", "10.0.0.1", write, topic, "orders"}
	require.False(t, stores[1].May(q))

	errs := stores[0].Create(sessions[0], []Binding{
		{Resource{topic, "ord", prefixed}, Entry{"User:alice", "*", write, allow}},
		{Resource{topic, "a/b", literal}, Entry{"User:alice", "*", write, allow}},
		{Resource{topic, "ord", prefixed}, Entry{"User:alice", "*", write, allow}},
		{Resource{kmsg.ACLResourceTypeTransactionalId, "t", literal}, Entry{"User:alice", "*", write, deny}},
	})
	require.NoError(t, errs[0])
	require.Error(t, errs[1])
	require.NoError(t, errs[2])
	require.NoError(t, errs[3])
	require.True(t, stores[0].May(q))
	require.True(t, stores[0].MayAny("User:alice", "h", write, topic))
	data, _, err := sessions[1].Get("/kafka-acl-extended/prefixed/Topic/ord")
	require.NoError(t, err)
	require.Equal(t, `{"acls":[{"principal":"User:alice","permissionType":"Allow","host":"*","operation":"Write"}],"version":1}`, string(data))
	require.Eventually(t, func() bool { return stores[1].May(q) }, 10*time.Second, time.Millisecond)

	all := Filter{Type: kmsg.ACLResourceTypeAny, Pattern: kmsg.ACLResourcePatternTypeAny, Operation: kmsg.ACLOperationAny, Permission: kmsg.ACLPermissionTypeAny}
	require.Eventually(t, func() bool { return len(stores[1].Find(all)) == 2 }, 10*time.Second, time.Millisecond)
	none := all
	none.Permission, none.Type = deny, topic
	deleted := stores[1].Delete(sessions[1], []Filter{none, all})
	require.Empty(t, deleted[0])
	require.Len(t, deleted[1], 2)
	for _, d := range deleted[1] {
		require.NoError(t, d.Err)
	}
	require.False(t, stores[1].May(q))
	require.Eventually(t, func() bool { return !stores[0].May(q) }, 10*time.Second, time.Millisecond)
	_, _, err = sessions[0].Get("/kafka-acl-extended/prefixed/Topic/ord")
	require.ErrorIs(t, err, zkcoord.ErrNoNode)
}

// TestUnreadableACLStopsTheLoad: to go on without a DENY could let somebody in.
func TestUnreadableACLStopsTheLoad(t *testing.T) {
	for _, payload := range []string{`{`, `{"version":2,"acls":[]}`, `{"version":1,"acls":[{"principal":"User:a","permissionType":"Perhaps","operation":"Read","host":"*"}]}`} {
		s := zktest.NewTree().NewSession()
		require.NoError(t, zkcoord.EnsureACLPaths(s))
		require.NoError(t, s.CreateAll("/kafka-acl/Topic/orders", []byte(payload)))
		require.ErrorIs(t, NewStore(Settings{}, zerolog.Nop()).Load(s), zkcoord.ErrInvalid)
	}
}
