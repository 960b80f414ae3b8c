package broker

import (
	"context"
	"errors"
	"strings"

	"ottla/config"
	"ottla/security"
	"ottla/zkcoord"
)

// Settings that change at run time live in /config; a notification below /config/changes names what changed, and everybody
// reads it again. Topics' settings are kept in topicConfigs, the broker's in an immutable snapshot that is replaced whole.

// loadDynamicSettings puts the cluster's and this broker's dynamic settings over the file's.
func (b *Broker) loadDynamicSettings(context.Context) error {
	if err := b.renewPasswords(b.zk.Session()); err != nil {
		return err
	}
	return b.reloadBrokerSettings(b.zk.Session())
}

func (b *Broker) reloadBrokerSettings(s zkcoord.Session) error {
	name := itoa(int64(b.id))
	read, err := zkcoord.ReadConfigs(s, zkcoord.EntityBrokers, []string{zkcoord.DefaultEntity, name})
	if err != nil {
		return err
	}
	for _, settings := range read {
		b.decodePasswords(settings)
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

// decodePasswords decrypts the passwords among settings from ZooKeeper; one that cannot be decrypted is left out.
func (b *Broker) decodePasswords(settings map[string]string) {
	for name, text := range settings {
		if !config.IsSensitive(name) {
			continue
		}
		password, _, err := security.DecodePassword(b.config.Load(), text)
		if err != nil {
			delete(settings, name)
			b.log.Error().Err(err).Str("key", name).Msg("a password in zookeeper cannot be decrypted and is left out: correct password.encoder.secret, or set it again")
			continue
		}
		settings[name] = string(password)
	}
}

// renewPasswords encrypts with the present secret what was encrypted with the one before it. Source: password.encoder.old.secret.
func (b *Broker) renewPasswords(s zkcoord.Session) error {
	snapshot := b.config.Load()
	if config.PasswordEncoderOldSecret.Of(snapshot) == "" || config.PasswordEncoderSecret.Of(snapshot) == "" {
		return nil
	}
	name := itoa(int64(b.id))
	settings, err := zkcoord.ReadConfig(s, zkcoord.EntityBrokers, name)
	if err != nil {
		return err
	}
	renewed := 0
	for key, text := range settings {
		if !config.IsSensitive(key) {
			continue
		}
		password, old, err := security.DecodePassword(snapshot, text)
		if err != nil || !old {
			continue // told when it is used
		}
		if settings[key], err = security.EncodePassword(snapshot, password); err != nil {
			return err
		}
		renewed++
	}
	if renewed == 0 {
		return nil
	}
	b.log.Info().Int("passwords", renewed).Msg("passwords in zookeeper are encrypted with the new secret")
	return zkcoord.SeedConfig(s, zkcoord.EntityBrokers, name, settings)
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
			b.logs.SetDeleteDelay(config.LogSegmentDeleteDelayMs.Of(b.config.Load()))
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
