package zkcoord

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"ottla/internal/cluster"
)

// notify creates a sequential notification. One that is doubled because an answer was lost does no harm.
func notify(s Session, prefix string, payload []byte) error {
	return retryLost(func() error {
		_, err := s.Create(prefix, payload, PersistentSequential)
		if errors.Is(err, ErrNoNode) {
			if err = s.CreateAll(parentPath(prefix), nil); err == nil || errors.Is(err, ErrNodeExists) {
				err = ErrConnectionLost // once more
			}
		}
		return err
	})
}

// notification is one child of a notification container.
type notification struct {
	path     string
	sequence int32
	data     []byte
	stat     Stat
}

// readNotifications reads the notifications below a container, in their order.
func readNotifications(s Session, container string) ([]notification, error) {
	names, _, err := s.Children(container)
	if err != nil {
		return nil, err
	}
	var list []notification
	for _, name := range names {
		if sequence, ok := Sequence(name); ok {
			list = append(list, notification{path: container + "/" + name, sequence: sequence})
		}
	}
	slices.SortFunc(list, func(a, b notification) int { return cmp.Compare(a.sequence, b.sequence) })
	paths := make([]string, len(list))
	for i := range list {
		paths[i] = list[i].path
	}
	read := list[:0]
	for i, r := range s.GetMany(paths) {
		if errors.Is(r.Err, ErrNoNode) {
			continue // handled by somebody else
		}
		if r.Err != nil {
			return nil, r.Err
		}
		list[i].data, list[i].stat = r.Data, r.Stat
		read = append(read, list[i])
	}
	return read, nil
}

// NotifyConfigChange tells all brokers to read an entity's configuration again; the path is like "topics/orders".
// Call it after the configuration was written.
func NotifyConfigChange(s Session, entityPath string) error {
	return notify(s, configChangePrefix, encodeConfigChange(entityPath))
}

func encodeConfigChange(entityPath string) []byte {
	return append(appendQuoted([]byte(`{"version":2,"entity_path":`), entityPath), '}')
}

// decodeConfigChange reads versions 1 and 2.
func decodeConfigChange(data []byte) (entityPath string, err error) {
	o, err := parseObject(data)
	if err != nil {
		return "", err
	}
	version, err := required[int32](o, "version")
	if err != nil {
		return "", err
	}
	switch version {
	case 1:
		entityType, err := required[string](o, "entity_type")
		if err != nil {
			return "", err
		}
		name, err := required[string](o, "entity_name")
		return entityType + "/" + name, err
	case 2:
		return required[string](o, "entity_path")
	default:
		return "", fmt.Errorf("%w: version %d", ErrInvalid, version)
	}
}

// configChangeLife is how long notifications of changes are kept, so that every broker sees them.
const configChangeLife = 15 * time.Minute

// ConfigChanges follows a container of notifications, such as /config/changes, for one session.
type ConfigChanges struct {
	cancelWatch func()
	cancel      context.CancelFunc
	done        chan struct{}
	stop        sync.Once
}

// WatchConfigChanges calls fn, from one goroutine of its own, with the path of every entity whose configuration changed, for
// example "topics/orders" or "users/u/clients/c". Notifications that exist already come first, since they may have been missed;
// fn may use the session, and re-reads what the path names. It ends with the session, or by Close.
func WatchConfigChanges(s Session, logger zerolog.Logger, fn func(entityPath string)) (*ConfigChanges, error) {
	return follow(s, logger, ConfigChangesPath, func(data []byte) error {
		path, err := decodeConfigChange(data)
		if err == nil {
			fn(path)
		}
		return err
	})
}

// follow calls handle with the payload of every notification below a container. What handle refuses is logged.
func follow(s Session, logger zerolog.Logger, container string, handle func(data []byte) error) (*ConfigChanges, error) {
	wake := make(chan struct{}, 1)
	wake <- struct{}{}
	cancelWatch, err := s.WatchChildren(container, func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &ConfigChanges{cancelWatch: cancelWatch, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		last := int64(math.MinInt64)
		for {
			select {
			case <-ctx.Done():
				return
			case <-s.Done():
				return
			case <-wake:
			}
			handled, err := handleChanges(ctx, s, logger, container, last, handle)
			last = max(last, handled)
			if err != nil && ctx.Err() == nil && !errors.Is(err, ErrSessionLost) {
				logger.Error().Err(err).Str("znode", container).Msg("changes could not be read")
			}
		}
	}()
	return c, nil
}

// Close ends it, and waits for a call of fn that is under way.
func (c *ConfigChanges) Close() {
	c.stop.Do(func() {
		c.cancelWatch()
		c.cancel()
	})
	<-c.done
}

// handleChanges handles what is newer than last and removes what is too old. It returns the newest one handled.
func handleChanges(ctx context.Context, s Session, logger zerolog.Logger, container string, last int64, handle func([]byte) error) (int64, error) {
	changes, err := readNotifications(s, container)
	if err != nil {
		return last, err
	}
	for _, change := range changes {
		if ctx.Err() != nil {
			return last, nil
		}
		if int64(change.sequence) > last {
			last = int64(change.sequence)
			if err := handle(change.data); err != nil {
				logger.Error().Err(err).Str("znode", change.path).Msg("change is unreadable and ignored")
			}
		}
	}
	for _, change := range changes {
		if time.Since(time.UnixMilli(change.stat.Ctime)) > configChangeLife {
			if err := s.Delete(change.path, AnyVersion); err != nil && !retryable(err) {
				return last, err
			}
		}
	}
	return last, nil
}

// ISRChange is a notification of a broker that changed an ISR by itself (inter.broker.protocol.version before 2.7).
type ISRChange struct {
	Path       string // to be deleted when handled
	Partitions []cluster.TopicPartition
}

// NotifyISRChange writes /isr_change_notification/isr_change_N.
func NotifyISRChange(s Session, tps []cluster.TopicPartition) error {
	return notify(s, isrChangePrefix, EncodePartitions(tps))
}

// ISRChanges reads the notifications that nobody has handled yet. Unreadable ones are named by a *BadNodesError beside the result.
func ISRChanges(s Session) ([]ISRChange, error) {
	list, err := readNotifications(s, ISRChangesPath)
	if err != nil {
		return nil, err
	}
	var bad badNodes
	var changes []ISRChange
	for _, n := range list {
		tps, err := DecodePartitions(n.data)
		if err != nil {
			bad.add(n.path, err)
			continue
		}
		changes = append(changes, ISRChange{Path: n.path, Partitions: tps})
	}
	return changes, bad.err()
}

// LogDirEvent is a broker's notice that one of its log directories failed.
type LogDirEvent struct {
	Path   string // to be deleted when handled
	Broker cluster.BrokerID
	Event  int32
}

// LogDirFailure is the only log dir event there is.
const LogDirFailure = 1

// NotifyLogDirFailure writes /log_dir_event_notification/log_dir_event_N.
func NotifyLogDirFailure(s Session, broker cluster.BrokerID) error {
	return notify(s, logDirEventPrefix, encodeLogDirEvent(LogDirEvent{Broker: broker, Event: LogDirFailure}))
}

func encodeLogDirEvent(e LogDirEvent) []byte {
	return fmt.Appendf(nil, `{"version":1,"broker":%d,"event":%d}`, e.Broker, e.Event)
}

func decodeLogDirEvent(data []byte) (e LogDirEvent, err error) {
	o, err := parseObject(data)
	if err != nil {
		return e, err
	}
	if e.Broker, err = required[cluster.BrokerID](o, "broker"); err != nil {
		return e, err
	}
	e.Event, err = optional(o, "event", int32(LogDirFailure))
	return e, err
}

// LogDirEvents reads the notices that nobody has handled yet. Unreadable ones are named by a *BadNodesError beside the result.
func LogDirEvents(s Session) ([]LogDirEvent, error) {
	list, err := readNotifications(s, LogDirEventsPath)
	if err != nil {
		return nil, err
	}
	var bad badNodes
	var events []LogDirEvent
	for _, n := range list {
		e, err := decodeLogDirEvent(n.data)
		if err != nil {
			bad.add(n.path, err)
			continue
		}
		e.Path = n.path
		events = append(events, e)
	}
	return events, bad.err()
}
