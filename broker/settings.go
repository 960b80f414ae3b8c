package broker

import (
	"context"
	"errors"
	"strings"

	"ottla/config"
	"ottla/zkcoord"
)

// Settings that change at run time live in /config; a notification below /config/changes names what changed, and everybody
// reads it again. Topics' settings are kept in topicConfigs, the broker's in an immutable snapshot that is replaced whole.

// loadDynamicSettings puts the cluster's and this broker's dynamic settings over the file's.
func (b *Broker) loadDynamicSettings(context.Context) error {
	return b.reloadBrokerSettings(b.zk.Session())
}

func (b *Broker) reloadBrokerSettings(s zkcoord.Session) error {
	name := itoa(int64(b.id))
	read, err := zkcoord.ReadConfigs(s, zkcoord.EntityBrokers, []string{zkcoord.DefaultEntity, name})
	if err != nil {
		return err
	}
	for _, settings := range read {
		b.withoutPasswords(settings)
	}
	next, warnings, err := b.config.Load().WithDynamic(read[zkcoord.DefaultEntity], read[name])
	if err != nil {
		return err
	}
	for _, w := range warnings {
		b.log.Warn().Str("key", w.Key).Msg(w.Message)
	}
	b.config.Store(next)
	return nil
}

// withoutPasswords leaves out what Kafka encrypts in ZooKeeper: it cannot be decrypted here yet.
func (b *Broker) withoutPasswords(settings map[string]string) {
	for name := range settings {
		if config.IsSensitive(name) {
			delete(settings, name)
			b.log.Warn().Str("key", name).Msg("is left out: passwords that are encrypted in zookeeper cannot be read yet; set it in the file")
		}
	}
}

// watchSettings follows the notifications of a session; those that exist already are replayed.
func (s *sessions) watchSettings(session zkcoord.Session) {
	b := s.b
	changes, err := zkcoord.WatchConfigChanges(session, b.log, func(entity string) { b.settingsChanged(session, entity) })
	if err != nil {
		s.log.Error().Err(err).Msg("changes of settings cannot be followed in this session")
		return
	}
	closeSecurity, err := b.followSecurity(session)
	if err != nil {
		s.log.Error().Err(err).Msg("ACLs or credentials cannot be followed in this session")
	}
	s.mu.Lock()
	closeOld := s.mu.closeSecurity
	s.mu.closeSecurity = closeSecurity
	old := s.mu.changes
	s.mu.changes = changes
	s.mu.Unlock()
	if old != nil {
		old.Close()
		closeOld()
	}
}

func (b *Broker) settingsChanged(session zkcoord.Session, entity string) {
	kind, name, _ := strings.Cut(entity, "/")
	var err error
	switch kind {
	case zkcoord.EntityTopics:
		err = b.topicConfigs.load(session, []string{name})
	case zkcoord.EntityBrokers:
		if name != zkcoord.DefaultEntity && name != itoa(int64(b.id)) {
			return
		}
		if err = b.reloadBrokerSettings(session); err == nil {
			b.tls.Poll()
			b.topicConfigs.brokerChanged()
			b.partitions.Reconfigure()
			err = b.readConnectionLimits()
			b.server.LimitsChanged()
			if config.UncleanLeaderElectionEnable.Of(b.config.Load()) {
				b.controller.UncleanElectionEnabled("")
			}
		}
	case zkcoord.EntityUsers:
		err = b.quotasChanged(session, kind, name)
		if !strings.Contains(name, "/") { // else it is a client of a user
			err = errors.Join(err, b.readCredentials(session, []string{name}))
		}
	case zkcoord.EntityClients, zkcoord.EntityIPs:
		err = b.quotasChanged(session, kind, name)
	default:
		return
	}
	if err != nil {
		b.log.Error().Err(err).Str("entity", entity).Msg("a change of settings was not taken over")
		return
	}
	b.log.Info().Str("entity", entity).Msg("settings changed")
}

// topicConfigChanged hands a topic's new settings to its logs and partitions.
func (b *Broker) topicConfigChanged(topic string, t *config.Topic) {
	b.throttleTopic(topic, t)
	if b.partitions == nil || b.controller == nil {
		return // at start: what is opened later takes the settings as they are
	}
	c := logConfig(b.config.Load(), t)
	for _, copied := range b.logs.Futures() { // first: one that takes its log's place meanwhile takes the log's settings
		if copied.TopicPartition().Topic == topic {
			copied.SetConfig(c)
		}
	}
	for _, p := range b.partitions.All() {
		if log := p.Log(); log != nil && p.TopicPartition().Topic == topic {
			log.SetConfig(c)
		}
	}
	b.partitions.TopicConfigChanged(topic)
	if config.TopicUncleanLeaderElectionEnable.Of(t) {
		b.controller.UncleanElectionEnabled(topic)
	}
}
