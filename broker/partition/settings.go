package partition

import "time"

// TopicSettings are the settings of a topic that replication needs; the log has its own (logstore.Config).
type TopicSettings struct {
	MinISR          int  // min.insync.replicas
	UncleanElection bool // unclean.leader.election.enable: committed records may be given up
}

const defaultLagMax = 30 * time.Second

// Reconfigure takes changed broker settings. Call it after each change.
func (s *Set) Reconfigure() {
	lag := defaultLagMax
	if s.options.LagMax != nil {
		lag = s.options.LagMax()
	}
	s.lagMax.Store(int64(lag))
}

func (s *Set) topicSettings(topic string) TopicSettings {
	if s.options.Topic == nil {
		return TopicSettings{MinISR: 1}
	}
	return s.options.Topic(topic)
}

func (s *Set) minISR(topic string) int { return s.topicSettings(topic).MinISR }

func (s *Set) uncleanAllowed(topic string) bool { return s.topicSettings(topic).UncleanElection }

// TopicConfigChanged makes a topic's partitions take its new settings. A smaller min.insync.replicas can commit what waits.
// The log's own settings are the caller's to set (Partition.Log).
func (s *Set) TopicConfigChanged(topic string) {
	minISR, now := s.minISR(topic), s.now()
	for _, p := range s.All() {
		if p.id.Topic == topic {
			p.setMinISR(minISR, now)
		}
	}
}

func (p *Partition) setMinISR(minISR int, now time.Time) {
	p.mu.Lock()
	p.mu.minISR = minISR
	env := p.envLocked(now)
	var a after
	if p.mu.log != nil {
		a = p.settledLocked(p.mu.state.Advance(env), env)
		a.appends = append(a.appends, p.mu.appends.takeReady(p.mu.state, env)...)
	}
	p.publishLocked()
	p.mu.Unlock()
	p.deliver(a)
}
