package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"ottla/config"
	"ottla/internal/cluster"
	"ottla/zkcoord"
)

// sessions ties the broker to its ZooKeeper session: what belongs to a session ends with it, and a new session begins with
// the registration. Invariant: between the loss of a session and the next registration nothing is led here.
type sessions struct {
	b   *Broker
	log zerolog.Logger

	mu struct {
		sync.Mutex
		started  bool  // begin has been called: there is something that a session can take along
		begun    bool  // begin has registered the broker; new sessions are joined by SessionEstablished from then on
		ended    bool  // until end
		lost     int64 // the last session that was lost
		previous int64 // id of the session under which this process last registered; 0 before the first time
		changes  *zkcoord.ConfigChanges

		closeSecurity func() // beside changes: ends following ACLs
	}
}

func newSessions(b *Broker) *sessions {
	return &sessions{b: b, log: b.log.With().Str("component", "session").Logger()}
}

// begin registers the broker and lets it take part in elections. A session that is lost meanwhile is followed by the next one.
func (s *sessions) begin(ctx context.Context) error {
	s.mu.Lock()
	s.mu.started = true
	s.mu.Unlock()
	session := s.b.zk.Session()
	s.b.buryPredecessor(session)
	for {
		err := s.join(ctx, session)
		switch {
		case err == nil && s.settle(session):
			return nil
		case err != nil && !over(session):
			return err
		}
		s.log.Warn().Err(err).Msg("the zookeeper session was lost while the broker registered; waiting for the next one")
		if session, err = s.next(ctx, session); err != nil {
			return err
		}
	}
}

// settle ends begin, unless the session has been replaced: SessionEstablished has left the new one to begin then.
func (s *sessions) settle(joined zkcoord.Session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.begun = s.b.zk.Session().ID() == joined.ID()
	return s.mu.begun
}

// next waits for the session after an old one.
func (s *sessions) next(ctx context.Context, old zkcoord.Session) (zkcoord.Session, error) {
	for {
		if now := s.b.zk.Session(); now.ID() != old.ID() {
			return now, nil
		}
		if err := sleep(ctx, isrPoll); err != nil {
			return nil, err
		}
	}
}

func over(session zkcoord.Session) bool {
	select {
	case <-session.Done():
		return true
	default:
		return false
	}
}

// end leaves the session alone from now on: the broker is stopping.
func (s *sessions) end() {
	s.mu.Lock()
	s.mu.ended = true
	changes, closeSecurity := s.mu.changes, s.mu.closeSecurity
	s.mu.changes = nil
	s.mu.Unlock()
	if changes != nil {
		changes.Close()
		closeSecurity()
	}
}

// SessionLost stops what belonged to the session: this broker's controllership and all its leaderships.
func (s *sessions) SessionLost(id int64, cause error) {
	s.log.Error().Err(cause).Hex("session", sessionBytes(id)).Msg("zookeeper session lost; this broker stops leading until it has registered again")
	s.b.metrics.session.expires.Add(1)
	s.mu.Lock()
	s.mu.lost = id
	started := s.mu.started
	s.b.registered.shut()
	s.b.brokerEpoch.Store(int64(cluster.NoBrokerEpoch))
	s.mu.Unlock()
	if !started {
		return
	}
	s.b.controller.SessionLost()
	s.b.partitions.StopLeadingEverything("zookeeper session lost")
}

// registered notes the epoch of a registration, unless its session is lost already: whatever is lost must stay closed.
func (s *sessions) registered(session zkcoord.Session, epoch cluster.BrokerEpoch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.lost == session.ID() || over(session) {
		return zkcoord.ErrSessionLost
	}
	s.mu.previous = session.ID()
	s.b.brokerEpoch.Store(int64(epoch))
	s.b.registered.open()
	return nil
}

// SessionEstablished registers the broker anew, for as long as it takes.
func (s *sessions) SessionEstablished(session zkcoord.Session) {
	if s.idle() {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // ends with this call or with the session
		select {
		case <-session.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	for !s.idle() {
		err := s.join(ctx, session)
		if err == nil {
			return
		}
		s.log.Error().Err(err).Msg("the broker could not register again, trying on")
		if sleep(ctx, time.Second) != nil {
			return
		}
	}
}

// idle reports whether new sessions are somebody else's business: begin's, or nobody's once the broker stops.
func (s *sessions) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.mu.begun || s.mu.ended
}

// ConnectionChanged only informs: the session may well live on.
func (s *sessions) ConnectionChanged(connected bool) {
	if connected {
		s.b.metrics.session.syncConnects.Add(1)
		s.log.Info().Msg("connected to zookeeper")
		return
	}
	s.b.metrics.session.disconnects.Add(1)
	s.log.Warn().Msg("zookeeper is not reachable; serving goes on while the session may live")
}

// join makes the broker part of the cluster in this session: registration, then settings, then the controller's election.
func (s *sessions) join(ctx context.Context, session zkcoord.Session) error {
	b := s.b
	registration, err := b.registration()
	if err != nil {
		return err
	}
	if err := b.uniqueEndpoints(session, registration); err != nil {
		return err
	}
	epoch, err := s.registerPatiently(ctx, session, registration)
	if err != nil {
		return err
	}
	if err := s.registered(session, epoch); err != nil {
		return err
	}
	b.logs.SetBrokerEpoch(epoch)
	if err := saveSession(b.config.Load(), session.ID()); err != nil {
		s.log.Warn().Err(err).Msg("the session could not be noted; after a crash its registration has to expire")
	}
	s.log.Info().Int64("broker_epoch", int64(epoch)).Msg("registered")
	s.watchSettings(session)
	b.controller.SessionEstablished(session, epoch)
	return nil
}

// registerPatiently registers, and waits out a registration that a killed process of the same broker has left behind.
func (s *sessions) registerPatiently(ctx context.Context, session zkcoord.Session, r zkcoord.Registration) (cluster.BrokerEpoch, error) {
	s.mu.Lock()
	previous := s.mu.previous
	s.mu.Unlock()
	if previous == 0 && !s.b.logs.WasClean() {
		if err := s.awaitRegistrationGone(ctx, session, r); err != nil {
			return 0, err
		}
		if err := s.b.awaitOutOfISRs(ctx, session); err != nil {
			return 0, err
		}
		if err := s.b.recovered.tell(session); err != nil {
			return 0, fmt.Errorf("tell where the logs end: %w", err)
		}
	}
	w := s.patience(r)
	for {
		epoch, err := zkcoord.RegisterBroker(session, s.b.id, r, previous)
		var taken *zkcoord.ErrBrokerIDTaken
		switch {
		case err == nil:
			return epoch, nil
		case errors.Is(err, zkcoord.ErrConnectionLost):
			s.log.Warn().Err(err).Msg("registration was interrupted, trying again")
		case !errors.As(err, &taken):
			return 0, err
		default:
			if err := w.judge(taken); err != nil {
				return 0, err
			}
		}
		if err := sleep(ctx, isrPoll); err != nil {
			return 0, err
		}
	}
}

// patience is how a broker deals with a registration under its own id.
type patience struct {
	s     *sessions
	own   zkcoord.Registration
	began time.Time
	limit time.Duration
	told  bool
}

func (s *sessions) patience(own zkcoord.Registration) *patience {
	return &patience{s: s, own: own, began: time.Now(), limit: 2*config.ZookeeperSessionTimeoutMs.Of(s.b.config.Load()) + 2*time.Second}
}

// judge says whether waiting makes sense: an earlier process of this broker goes away, another broker does not.
func (p *patience) judge(taken *zkcoord.ErrBrokerIDTaken) error {
	id := p.s.b.id
	switch {
	case !sameEndpoints(taken.Registration.Endpoints, p.own.Endpoints):
		return fmt.Errorf("broker id %d is taken by another broker, which advertises %s: give this broker its own broker.id",
			id, endpointList(taken.Registration.Endpoints))
	case time.Since(p.began) > p.limit:
		return fmt.Errorf("broker id %d is still registered by session %#x after %s: another process runs with this broker.id and the same listeners",
			id, taken.Owner, time.Since(p.began).Round(time.Second))
	case !p.told:
		p.told = true
		p.s.log.Warn().Hex("session", sessionBytes(taken.Owner)).Dur("at_most", p.limit).
			Msg("an earlier registration of this broker is still there; waiting until zookeeper expires its session")
	}
	return nil
}

// registration is what this broker tells of itself.
func (b *Broker) registration() (zkcoord.Registration, error) {
	s := b.config.Load()
	advertised, err := config.AdvertisedListeners(s)
	if err != nil {
		return zkcoord.Registration{}, err
	}
	r := zkcoord.Registration{Rack: config.BrokerRack.Of(s), JMXPort: -1, Timestamp: time.Now()}
	for _, l := range advertised {
		e := cluster.Endpoint{Listener: l.Name, Protocol: l.Protocol, Host: l.Host, Port: int32(l.Port)}
		if e.Host == "" {
			e.Host = canonicalHost()
		}
		if e.Port == 0 {
			e.Port = portOf(b.server.Addr(l.Name))
		}
		r.Endpoints = append(r.Endpoints, e)
	}
	return r, nil
}

// uniqueEndpoints refuses to advertise what another registered broker advertises: clients would mix the two up.
func (b *Broker) uniqueEndpoints(session zkcoord.Session, r zkcoord.Registration) error {
	others, err := zkcoord.Brokers(session)
	if err != nil {
		return err
	}
	for _, other := range others {
		if other.ID == b.id {
			continue
		}
		for _, e := range other.Endpoints {
			for _, own := range r.Endpoints {
				if e.Host == own.Host && e.Port == own.Port {
					return fmt.Errorf("broker %d is registered with the end point %s already: correct listeners or advertised.listeners",
						other.ID, hostPort(e.Host, e.Port))
				}
			}
		}
	}
	return nil
}
