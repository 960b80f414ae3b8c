package broker

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/internal/cluster"
)

// TestFetchSessionEndsWithTheFollowersRegistration: a follower that registered anew must name all its partitions again, also the idle
// ones, so that leaders learn its new registration for each.
func TestFetchSessionEndsWithTheFollowersRegistration(t *testing.T) {
	sessions, now := newFetchSessions(func() int { return 10 }), time.Now()
	follower := func(registration cluster.BrokerEpoch) *fetch { return &fetch{replica: 3, epoch: registration} }
	first := follower(5)
	s := sessions.open(true, true, now, first)
	s.leave(first)

	req := kmsg.NewPtrFetchRequest()
	req.Version, req.SessionID, req.SessionEpoch = 17, s.id, 1
	same := follower(5)
	resumed, err := sessions.resume(req, now, same)
	require.NoError(t, err)
	require.Same(t, s, resumed)
	resumed.leave(same)

	req.SessionEpoch = 2
	_, err = sessions.resume(req, now, follower(6))
	require.ErrorIs(t, err, kerr.FetchSessionIDNotFound)
	require.Zero(t, sessions.size())
}
