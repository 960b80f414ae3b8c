package broker

import (
	"errors"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/quota"
	"ottla/broker/scrape"
	"ottla/broker/wire"
	"ottla/config"
	"ottla/internal/cluster"
	"ottla/zkcoord"
)

// Client quotas: what users, clients and addresses are allowed of bytes, processor time, changes to topics and connections. The truth
// is in /config/users, /config/clients and /config/ips; notifications keep this copy fresh. Whoever takes more is told for how long it
// should be quiet, and its connection is not read from for that long (KIP-219).

func newClientQuotas(s *config.Snapshot) *quota.Clients {
	return quota.NewClients(
		quota.Window{Samples: config.QuotaWindowNum.Of(s), Span: config.QuotaWindowSizeSeconds.Of(s)},
		quota.Window{Samples: config.ControllerQuotaWindowNum.Of(s), Span: config.ControllerQuotaWindowSizeSeconds.Of(s)},
	)
}

// loadQuotas reads the quotas of all entities. What is unreadable limits nobody, and is told.
func (b *Broker) loadQuotas(s zkcoord.Session) error {
	all, err := zkcoord.ReadClientEntities(s)
	var bad *zkcoord.BadNodesError
	if errors.As(err, &bad) {
		b.log.Error().Err(err).Msg("settings of users, clients or addresses are unreadable; their quotas do not count")
		err = nil
	}
	if err == nil {
		b.quotas.Replace(all)
	}
	return err
}

// quotasChanged takes the quotas of an entity, named as in its notification.
func (b *Broker) quotasChanged(s zkcoord.Session, entityType, name string) error {
	e, err := zkcoord.ParseClientEntity(entityType, name)
	if err != nil {
		return err
	}
	settings, err := zkcoord.ReadConfig(s, entityType, name)
	if err != nil {
		return err
	}
	b.quotas.Set(e, settings)
	return nil
}

// userOf is the name that quotas know a client's user by.
func userOf(c *wire.Conn) string {
	_, name, _ := strings.Cut(c.Principal(), ":")
	return name
}

// hooks are the metrics' hooks, with quotas before them: an answer tells its client how long to be quiet.
type hooks struct {
	*scrape.Requests
	b *Broker
}

// Answering implements wire.Hooks.
func (h hooks) Answering(r *wire.Request, enc wire.Encoder) {
	if wait := h.b.throttled(r, enc); wait > 0 {
		r.Throttle(wait)
		tellThrottle(enc, max(wait, r.Throttled()))
	}
	h.Requests.Answering(r, enc)
}

// brokersOnly are the requests that only brokers send: no quota counts them.
var brokersOnly = map[int16]bool{
	kmsg.LeaderAndISR.Int16(): true, kmsg.StopReplica.Int16(): true, kmsg.UpdateMetadata.Int16(): true,
	kmsg.ControlledShutdown.Int16(): true, kmsg.AlterPartition.Int16(): true, kmsg.AllocateProducerIDs.Int16(): true,
	kmsg.WriteTxnMarkers.Int16(): true, kmsg.OffsetForLeaderEpoch.Int16(): true,
}

// throttled counts a request's bytes and its processor time, and says for how long its client should be quiet.
func (b *Broker) throttled(r *wire.Request, enc wire.Encoder) time.Duration {
	if brokersOnly[r.Key] || r.Conn.Principal() == "" || ofReplica(r) {
		return 0
	}
	user, now := userOf(r.Conn), time.Now()
	wait := b.quotas.TakeTime(user, r.ClientID, 100*r.LocalTime(now).Seconds(), now)
	if _, produce := enc.(*wire.ProduceResponse); produce {
		wait = max(wait, b.quotas.TakeBytes(user, r.ClientID, r.Size, now))
	}
	return wait
}

// ofReplica reports whether another broker fetches.
func ofReplica(r *wire.Request) bool {
	f, fetch := r.Body.(*kmsg.FetchRequest)
	return fetch && replicaOf(f) >= 0
}

func replicaOf(f *kmsg.FetchRequest) cluster.BrokerID {
	if f.Version >= 15 {
		return cluster.BrokerID(f.ReplicaState.ID)
	}
	return cluster.BrokerID(f.ReplicaID)
}

// throttleSilent is for produce requests that get no answer: their bytes count, the connection is muted.
func (b *Broker) throttleSilent(r *wire.Request) {
	if wait := b.quotas.TakeBytes(userOf(r.Conn), r.ClientID, r.Size, time.Now()); wait > 0 {
		r.Throttle(wait)
	}
}

// tellThrottle puts the time into the answer. It is told in whole milliseconds, at least one.
func tellThrottle(enc wire.Encoder, wait time.Duration) {
	ms := int32(max(1, wait.Milliseconds()))
	switch resp := enc.(type) {
	case *wire.ProduceResponse:
		resp.ThrottleMillis = ms
	case *wire.FetchResponse:
		resp.ThrottleMillis = ms
	case kmsg.SetThrottleResponse:
		resp.SetThrottle(ms)
	}
}

// mutations counts one request's changes to topics against its client's quota. From the version on that knows the error a client over
// its quota is refused, topic by topic; an older one is only made to wait.
type mutations struct {
	b      *Broker
	r      *wire.Request
	user   string
	strict bool
	wait   time.Duration
}

func (b *Broker) mutationsOf(r *wire.Request, strictFrom int16) *mutations {
	return &mutations{b: b, r: r, user: userOf(r.Conn), strict: r.Version >= strictFrom}
}

// counted reports whether there is a quota at all.
func (m *mutations) counted() bool {
	_, ok := m.b.quotas.Limit(quota.Mutation, m.user, m.r.ClientID)
	return ok
}

// may counts changes to so many partitions, or refuses them.
func (m *mutations) may(partitions int) error {
	now := time.Now()
	if !m.strict {
		m.wait = m.b.quotas.Mutate(m.user, m.r.ClientID, partitions, now)
		return nil
	}
	wait, ok := m.b.quotas.MayMutate(m.user, m.r.ClientID, partitions, now)
	if !ok {
		m.wait = wait
		return kerr.ThrottlingQuotaExceeded
	}
	return nil
}

// undo gives back what has not been changed after all.
func (m *mutations) undo(partitions int) {
	wait := m.b.quotas.Mutate(m.user, m.r.ClientID, -partitions, time.Now())
	if !m.strict {
		m.wait = wait
	}
}

// tell puts the wait into the answer and mutes the connection; the hooks may find a longer one.
func (m *mutations) tell(resp kmsg.Response) {
	if m.wait > 0 {
		m.r.Throttle(m.wait)
		tellThrottle(resp, m.wait)
	}
}
