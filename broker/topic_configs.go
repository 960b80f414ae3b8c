package broker

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"ottla/config"
	"ottla/zkcoord"
)

// topicConfigs holds the settings of every topic that this broker has met, so that a role change needs no answer from
// ZooKeeper. The truth is /config/topics; notifications keep this copy fresh.
type topicConfigs struct {
	broker  func() *config.Snapshot
	session func() zkcoord.Session
	run     func(func())
	changed func(topic string, t *config.Topic) // told after a topic's settings have changed
	log     zerolog.Logger

	mu struct {
		sync.Mutex
		overrides map[string]map[string]string // as read; nil map: no overrides
		resolved  map[string]*config.Topic
		reads     uint64            // counts the reads that have begun
		reading   int               // how many of them have not ended
		newest    map[string]uint64 // while some are under way: the latest read or deletion of a topic that has ended
	}
}

func newTopicConfigs() *topicConfigs {
	c := &topicConfigs{}
	c.mu.overrides = map[string]map[string]string{}
	c.mu.resolved = map[string]*config.Topic{}
	c.mu.newest = map[string]uint64{}
	return c
}

// get returns a topic's settings: with what is known of its overrides, else with the broker's defaults.
func (c *topicConfigs) get(topic string) (*config.Topic, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.mu.resolved[topic]; t != nil {
		return t, nil
	}
	overrides, known := c.mu.overrides[topic]
	t, err := config.ResolveTopic(c.broker(), overrides)
	if err != nil {
		return nil, err
	}
	if known { // names that clients make up leave nothing behind
		c.mu.resolved[topic] = t
	}
	return t, nil
}

// orDefault is get for those who cannot fail: overrides that do not parse are left out, and said so.
func (c *topicConfigs) orDefault(topic string) *config.Topic {
	t, err := c.get(topic)
	if err == nil {
		return t
	}
	c.log.Error().Err(err).Str("topic", topic).Msg("topic settings are unusable, the broker's defaults apply")
	t, err = config.ResolveTopic(c.broker(), nil)
	if err != nil {
		panic("the broker's own settings were validated at start: " + err.Error())
	}
	return t
}

// loadAll reads the settings of all topics; at start and after each new session.
func (c *topicConfigs) loadAll(s zkcoord.Session) error {
	names, err := zkcoord.EntityNames(s, zkcoord.EntityTopics)
	if err != nil {
		return err
	}
	return c.load(s, names)
}

// topicConfigWait bounds how long a role change waits for the settings of new topics.
const topicConfigWait = time.Second

var errTopicConfigs = errors.New("zookeeper did not answer in time")

// ensureWithin reads the settings of those topics that are not known yet, and waits for them at most so long. What comes
// later is taken over when it comes.
func (c *topicConfigs) ensureWithin(topics []string, wait time.Duration) error {
	c.mu.Lock()
	missing := slices.DeleteFunc(topics, func(t string) bool {
		_, known := c.mu.overrides[t]
		return known
	})
	c.mu.Unlock()
	if len(missing) == 0 {
		return nil
	}
	read := make(chan error, 1)
	c.run(func() { read <- c.load(c.session(), missing) })
	select {
	case err := <-read:
		return err
	case <-time.After(wait):
		return errTopicConfigs
	}
}

func (c *topicConfigs) load(s zkcoord.Session, names []string) error {
	if len(names) == 0 {
		return nil
	}
	c.mu.Lock()
	c.mu.reads++
	c.mu.reading++
	begun := c.mu.reads
	c.mu.Unlock()
	read, err := zkcoord.ReadConfigs(s, zkcoord.EntityTopics, names)

	var differ []string
	c.mu.Lock()
	if c.mu.reading--; c.mu.reading == 0 {
		defer c.forgetReads()
	}
	if err != nil {
		c.mu.Unlock()
		return err
	}
	for _, name := range names {
		// Of two reads at a time the one that began later counts: what the other has seen may be older.
		if c.mu.newest[name] > begun {
			continue
		}
		c.mu.newest[name] = begun
		old, known := c.mu.overrides[name]
		if known && maps.Equal(old, read[name]) {
			continue
		}
		c.mu.overrides[name] = read[name]
		delete(c.mu.resolved, name)
		differ = append(differ, name)
	}
	c.mu.Unlock()
	for _, name := range differ {
		c.changed(name, c.orDefault(name))
	}
	return nil
}

// forgetReads drops what only reads under way need to know.
func (c *topicConfigs) forgetReads() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.reading == 0 {
		clear(c.mu.newest)
	}
}

// forget drops the settings of deleted topics: a later topic of that name starts anew.
func (c *topicConfigs) forget(topic string) {
	c.mu.Lock()
	if c.mu.reading > 0 { // what they bring is of the topic that is gone
		c.mu.reads++
		c.mu.newest[topic] = c.mu.reads
	}
	delete(c.mu.overrides, topic)
	delete(c.mu.resolved, topic)
	c.mu.Unlock()
}

// brokerChanged resolves every topic anew over changed settings of the broker.
func (c *topicConfigs) brokerChanged() {
	c.mu.Lock()
	names := slices.Collect(maps.Keys(c.mu.resolved))
	clear(c.mu.resolved)
	c.mu.Unlock()
	for _, name := range names {
		c.changed(name, c.orDefault(name))
	}
}
