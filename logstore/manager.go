package logstore

import (
	"errors"
	"fmt"
	"hash/maphash"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"ottla/internal/cluster"
)

// Names in a log directory.
const (
	lockFile     = ".lock"
	deleteSuffix = "-delete"
	futureSuffix = "-future"
	straySuffix  = "-stray"
	// fileNameMax is what file systems allow a name; the topic's part of a -delete name is cut to fit.
	fileNameMax = 255
)

// ManagerOptions says where the logs are and who we are.
type ManagerOptions struct {
	Dirs            []string                   // log.dirs
	FS              FS                         // nil: the operating system's
	BrokerID        cluster.BrokerID           // NoBroker: take what the directories say
	ClusterID       string                     // empty: take what the directories say
	Defaults        func(topic string) *Config // nil: DefaultConfig
	ReserveShare    float64                    // ottla.disk.reserve.percent / 100: below it clients' appends are refused; 0: no reserve
	RecoveryThreads int                        // num.recovery.threads.per.data.dir, at least 1
	Logger          zerolog.Logger
	OnDirFailure    func(dir string, err error) // called once for a directory, without locks
	Now             func() time.Time            // nil: time.Now
}

// DirInfo describes one log directory.
type DirInfo struct {
	Path       string
	ID         string // directory.id of meta.properties
	Partitions int
	Size       int64 // bytes of all segments
	Err        error // set: the directory is offline
	Short      bool  // its volume has less free space than the reserve: clients' appends are refused
}

// LogInfo describes one log in a directory.
type LogInfo struct {
	TopicPartition cluster.TopicPartition
	Size           int64
	OffsetLag      int64 // how far its end is behind: of a copy behind the log, of a log behind its high watermark
	Future         bool  // a copy on its way here
}

// Manager owns the log directories and the logs in them. It guards itself. It starts no goroutine of its own, but for flushes
// in the background, which Close awaits; the passes are run by a scheduler.
type Manager struct {
	options     ManagerOptions
	seed        maphash.Seed
	dirs        []*logDir // constant after open
	clean       bool      // constant after open
	cleanEpoch  cluster.BrokerEpoch
	brokerEpoch atomic.Int64
	recovered   atomic.Int64 // bytes of segments that were read because a stop was not clean
	deleteDelay atomic.Int64 // time.Duration; see SetDeleteDelay

	mu struct {
		sync.RWMutex
		logs      map[cluster.TopicPartition]*Log
		futures   map[cluster.TopicPartition]*Log   // copies of logs that are being moved; see move.go
		preferred map[cluster.TopicPartition]string // directories for logs that may be created
		closed    bool
	}
	// creating lets one creation or deletion of a partition happen at a time, and those of different partitions side by side:
	// each waits for the disk. Taken before mu.
	creating [32]sync.Mutex
}

// OpenManager locks the directories, removes the clean markers, and loads every log, in parallel; after an unclean stop with
// recovery. A directory with a fault of its disk is left offline, as long as there is another one.
//
// Errors: ErrLocked, directories that belong to another broker or cluster, a partition in two directories, a log that cannot
// be loaded though its disk is sound.
func OpenManager(o ManagerOptions) (*Manager, error) {
	m := &Manager{options: o.withDefaults(), seed: maphash.MakeSeed()}
	m.mu.logs, m.mu.futures = map[cluster.TopicPartition]*Log{}, map[cluster.TopicPartition]*Log{}
	m.mu.preferred = map[cluster.TopicPartition]string{}
	m.brokerEpoch.Store(int64(cluster.NoBrokerEpoch))
	m.deleteDelay.Store(int64(DefaultConfig().FileDeleteDelay))
	if err := m.open(); err != nil {
		return nil, errors.Join(err, m.Close(false))
	}
	return m, nil
}

func (o ManagerOptions) withDefaults() ManagerOptions {
	if o.FS == nil {
		o.FS = OSFS
	}
	if o.Defaults == nil {
		defaults := DefaultConfig()
		o.Defaults = func(string) *Config { return defaults }
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.RecoveryThreads = max(o.RecoveryThreads, 1)
	return o
}

func (m *Manager) open() error {
	if len(m.options.Dirs) == 0 {
		return errors.New("no log directory: set log.dirs")
	}
	for _, path := range m.options.Dirs {
		d := newLogDir(filepath.Clean(path), m.options.FS, m.options.Logger, m.options.Now, m.options.OnDirFailure)
		d.reserve.share, d.recovered = m.options.ReserveShare, &m.recovered
		if slices.ContainsFunc(m.dirs, func(other *logDir) bool { return other.path == d.path }) {
			return fmt.Errorf("log directory %s is named twice", path)
		}
		m.dirs = append(m.dirs, d)
		if err := d.prepare(); err != nil {
			if errors.Is(err, ErrLocked) || errors.Is(err, ErrCheckpoint) {
				return err
			}
			d.fail(storageError("open", d.path, err))
		}
	}
	if m.allOffline() {
		return fmt.Errorf("all log directories are offline: %w", m.dirs[0].fault())
	}
	if err := m.agreeOnMeta(); err != nil {
		return err
	}
	return m.load()
}

func (m *Manager) allOffline() bool {
	return !slices.ContainsFunc(m.dirs, func(d *logDir) bool { return d.fault() == nil })
}

// prepare creates and locks a directory, and reads who it belongs to.
func (d *logDir) prepare() error {
	if err := mkdirDurably(d.fs, d.path); err != nil {
		return err
	}
	lock, err := d.fs.Lock(filepath.Join(d.path, lockFile))
	if err != nil {
		return err
	}
	meta, ok, err := ReadMeta(d.fs, d.path)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.lock = lock
	if err != nil {
		return err
	}
	if ok {
		d.mu.meta = meta
	} else {
		d.mu.meta.BrokerID = cluster.NoBroker
	}
	return nil
}

// Get returns the log of a partition.
func (m *Manager) Get(tp cluster.TopicPartition) (*Log, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	l, ok := m.mu.logs[tp]
	return l, ok
}

// Logs lists all logs, in no order.
func (m *Manager) Logs() []*Log {
	m.mu.RLock()
	defer m.mu.RUnlock()
	logs := make([]*Log, 0, len(m.mu.logs))
	for _, l := range m.mu.logs {
		logs = append(logs, l)
	}
	return logs
}

// Short reports whether the volume of some log directory has less free space than the reserve.
func (m *Manager) Short(now time.Time) bool {
	short := false
	for _, d := range m.dirs {
		if d.fault() == nil {
			short = d.reserve.look(now) || short
		}
	}
	return short
}

// Dirs describes the log directories.
func (m *Manager) Dirs() []DirInfo {
	infos := make([]DirInfo, 0, len(m.dirs))
	for _, d := range m.dirs {
		info := DirInfo{Path: d.path, ID: d.meta().DirectoryID, Err: d.fault(), Short: d.reserve.look(m.options.Now())}
		for _, l := range d.logs() {
			info.Partitions++
			info.Size += l.Size()
		}
		infos = append(infos, info)
	}
	return infos
}

// WasClean reports whether every directory had been stopped cleanly (or is new).
func (m *Manager) WasClean() bool { return m.clean }

// CleanBrokerEpoch is the broker epoch in the clean markers; NoBrokerEpoch when unknown, unclean, or not the same in all.
func (m *Manager) CleanBrokerEpoch() cluster.BrokerEpoch { return m.cleanEpoch }

// SetBrokerEpoch says which epoch a clean stop shall leave in the markers.
func (m *Manager) SetBrokerEpoch(e cluster.BrokerEpoch) { m.brokerEpoch.Store(int64(e)) }

// CheckpointedHighWatermark is the high watermark that the checkpoint said at start, not clamped into the log; 0 when it said
// nothing, and for logs that were created since.
func (m *Manager) CheckpointedHighWatermark(tp cluster.TopicPartition) int64 {
	if l, ok := m.Get(tp); ok {
		return l.recovery.CheckpointedHighWatermark
	}
	return 0
}

// LogsIn describes the logs in a directory, in no order.
func (m *Manager) LogsIn(dir string) []LogInfo {
	d := m.dirOf(dir)
	if d == nil {
		return nil
	}
	logs := d.logs()
	out := make([]LogInfo, len(logs))
	for i, l := range logs {
		out[i] = m.describe(l)
	}
	return out
}

func (m *Manager) describe(l *Log) LogInfo {
	info := LogInfo{TopicPartition: l.tp, Size: l.Size()}
	log, _ := m.Get(l.tp)
	if info.Future = log != l; !info.Future {
		info.OffsetLag = max(0, l.HighWatermark()-l.LogEndOffset())
	} else if log != nil {
		info.OffsetLag = max(0, log.LogEndOffset()-l.LogEndOffset())
	}
	return info
}
