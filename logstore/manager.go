package logstore

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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

// Manager owns the log directories and the logs in them. It guards itself. It starts no goroutine of its own, but for flushes
// in the background, which Close awaits; the passes are run by a scheduler.
type Manager struct {
	options     ManagerOptions
	seed        maphash.Seed
	dirs        []*logDir // constant after open
	clean       bool      // constant after open
	cleanEpoch  cluster.BrokerEpoch
	brokerEpoch atomic.Int64
	deleteDelay atomic.Int64 // time.Duration; see SetDeleteDelay

	mu struct {
		sync.RWMutex
		logs   map[cluster.TopicPartition]*Log
		closed bool
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
	m.mu.logs = map[cluster.TopicPartition]*Log{}
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
		d.reserve.share = m.options.ReserveShare
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

// agreeOnMeta refuses directories of different brokers or clusters, and fills in what they lack.
func (m *Manager) agreeOnMeta() error {
	o := &m.options
	for _, d := range m.dirs {
		meta := d.meta()
		if meta.ClusterID != "" {
			if o.ClusterID != "" && o.ClusterID != meta.ClusterID {
				return fmt.Errorf("log directory %s belongs to cluster %s, not to %s", d.path, meta.ClusterID, o.ClusterID)
			}
			o.ClusterID = meta.ClusterID
		}
		if meta.BrokerID != cluster.NoBroker {
			if o.BrokerID != cluster.NoBroker && o.BrokerID != meta.BrokerID {
				return fmt.Errorf("log directory %s belongs to broker %d, not to %d", d.path, meta.BrokerID, o.BrokerID)
			}
			o.BrokerID = meta.BrokerID
		}
	}
	if o.ClusterID == "" || o.BrokerID == cluster.NoBroker {
		return nil // Format will, once they are known
	}
	return m.Format(o.BrokerID, o.ClusterID)
}

// Format writes meta.properties where it is missing or incomplete. OpenManager does it when it knows both values.
func (m *Manager) Format(id cluster.BrokerID, clusterID string) error {
	for _, d := range m.dirs {
		if d.fault() != nil {
			continue
		}
		was := d.meta()
		meta := was
		meta.BrokerID, meta.ClusterID = id, clusterID
		if meta.DirectoryID == "" {
			meta.DirectoryID = NewDirectoryID()
		}
		if meta == was {
			continue
		}
		if err := WriteMeta(d.fs, d.path, meta); err != nil {
			return storageError("write", filepath.Join(d.path, MetaPropertiesFile), err)
		}
		d.mu.Lock()
		d.mu.meta = meta
		d.mu.Unlock()
	}
	return nil
}

// Identity is what the directories say of whom they belong to: NoBroker and "" when they are all new.
func (m *Manager) Identity() (cluster.BrokerID, string) {
	return m.options.BrokerID, m.options.ClusterID
}

// job is one partition directory to load.
type job struct {
	dir   *logDir
	name  string
	tp    cluster.TopicPartition
	state loadState
}

func (m *Manager) load() error {
	m.clean, m.cleanEpoch = true, cluster.NoBrokerEpoch
	jobs := map[*logDir][]job{}
	total := 0
	for i, d := range m.dirs {
		if d.fault() != nil {
			m.clean = false
			continue
		}
		found, clean, epoch, err := m.survey(d)
		if err != nil {
			d.fail(storageError("open", d.path, err))
			m.clean = false
			continue
		}
		m.clean = m.clean && clean
		if i == 0 {
			m.cleanEpoch = epoch
		} else if epoch != m.cleanEpoch {
			m.cleanEpoch = cluster.NoBrokerEpoch
		}
		jobs[d], total = found, total+len(found)
	}
	if !m.clean {
		m.cleanEpoch = cluster.NoBrokerEpoch
	}
	if err := m.loadAll(jobs, total); err != nil {
		return err
	}
	return m.afterLoad()
}

// survey looks at one directory: the clean marker goes first, so that a crash from now on counts as unclean.
func (m *Manager) survey(d *logDir) (jobs []job, clean bool, epoch cluster.BrokerEpoch, err error) {
	epoch, clean, err = ReadCleanMarker(d.fs, d.path)
	if err == nil && clean {
		err = RemoveCleanMarker(d.fs, d.path)
	}
	if err != nil {
		return nil, false, cluster.NoBrokerEpoch, err
	}
	if !clean {
		epoch = cluster.NoBrokerEpoch
	}
	for _, c := range []*checkpointer{&d.recoveryPoints, &d.logStarts, &d.highWatermarks, &d.cleanPoints} {
		if err := c.load(); err != nil {
			return nil, clean, epoch, err
		}
	}
	entries, err := d.fs.ReadDir(d.path)
	if err != nil {
		return nil, clean, epoch, err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if strings.HasSuffix(e.Name(), deleteSuffix) {
			d.trash.addDir(m.options.Now(), filepath.Join(d.path, e.Name()))
			continue
		}
		tp, ok := parsePartitionDir(e.Name())
		if !ok {
			d.logger.Warn().Str("dir", filepath.Join(d.path, e.Name())).Msg("not a partition's directory: left alone (Kafka would refuse to start)")
			continue
		}
		jobs = append(jobs, job{dir: d, name: e.Name(), tp: tp, state: d.loadState(tp, clean)})
	}
	return jobs, clean || len(jobs) == 0, epoch, nil
}

func (d *logDir) loadState(tp cluster.TopicPartition, clean bool) loadState {
	s := loadState{clean: clean}
	s.recoveryPoint, _ = d.recoveryPoints.get(tp)
	s.logStart, _ = d.logStarts.get(tp)
	s.highWatermark, _ = d.highWatermarks.get(tp)
	return s
}

// parsePartitionDir reads "topic-partition"; topics may contain '-'. Directories on their way in or out are none.
func parsePartitionDir(name string) (cluster.TopicPartition, bool) {
	if strings.HasSuffix(name, futureSuffix) || strings.HasSuffix(name, straySuffix) || strings.HasSuffix(name, deleteSuffix) {
		return cluster.TopicPartition{}, false
	}
	dash := strings.LastIndexByte(name, '-')
	if dash < 1 {
		return cluster.TopicPartition{}, false
	}
	partition, err := strconv.ParseInt(name[dash+1:], 10, 32)
	if err != nil || partition < 0 {
		return cluster.TopicPartition{}, false
	}
	return cluster.TopicPartition{Topic: name[:dash], Partition: int32(partition)}, true
}

// loadAll loads the logs of all directories, each with its own number of threads.
func (m *Manager) loadAll(jobs map[*logDir][]job, total int) error {
	began := m.options.Now()
	progress := newProgress(m.options.Logger, total)
	var (
		wg     sync.WaitGroup
		faults = make(chan error, total)
	)
	for _, list := range jobs {
		queue := make(chan job, len(list))
		for _, j := range list {
			queue <- j
		}
		close(queue)
		for range min(m.options.RecoveryThreads, len(list)) {
			wg.Go(func() {
				for j := range queue {
					if err := m.loadOne(j); err != nil {
						faults <- err
					}
					progress.step()
				}
			})
		}
	}
	wg.Wait()
	progress.stop()
	close(faults)
	var all []error
	for err := range faults {
		all = append(all, err)
	}
	if total > 0 {
		m.options.Logger.Info().Int("logs", total).Bool("clean", m.clean).Int64("dur_ms", m.options.Now().Sub(began).Milliseconds()).Msg("loaded logs")
	}
	return errors.Join(all...)
}

func (m *Manager) loadOne(j job) error {
	if j.dir.fault() != nil {
		return nil
	}
	l, err := loadLog(j.dir, filepath.Join(j.dir.path, j.name), j.tp, m.options.Defaults(j.tp.Topic), j.state)
	var fault *StorageError
	if errors.As(err, &fault) {
		j.dir.fail(fault)
		return nil
	}
	if err != nil {
		return err
	}
	m.mu.Lock()
	other, twice := m.mu.logs[j.tp]
	m.mu.logs[j.tp] = l
	m.mu.Unlock()
	if twice {
		l.closeFiles()
		return fmt.Errorf("partition %s is in two log directories, %s and %s: remove the stale one", j.tp, other.LogDir(), j.dir.path)
	}
	j.dir.add(l)
	return nil
}

// afterLoad writes checkpoints that claim more than is there, before anything can be appended, and flushes what was recovered.
func (m *Manager) afterLoad() error {
	for _, d := range m.dirs {
		if d.fault() != nil {
			continue
		}
		stale := false
		for _, l := range d.logs() {
			written, ok := d.recoveryPoints.get(l.tp)
			stale = stale || ok && written > l.FlushedOffset()
			if l.LogEndOffset() > l.FlushedOffset() {
				l.FlushSoon()
			}
		}
		if stale {
			if err := d.recoveryPoints.write(); err != nil {
				return err
			}
		}
	}
	if m.allOffline() {
		return fmt.Errorf("all log directories are offline: %w", m.dirs[0].fault())
	}
	return nil
}

// progress tells every few seconds how far loading is.
type progress struct {
	done  atomic.Int64
	ended chan struct{}
	wg    sync.WaitGroup
}

const progressInterval = 5 * time.Second

func newProgress(logger zerolog.Logger, total int) *progress {
	p := &progress{ended: make(chan struct{})}
	if total == 0 {
		return p
	}
	p.wg.Go(func() {
		ticker := time.NewTicker(progressInterval)
		defer ticker.Stop()
		for {
			select {
			case <-p.ended:
				return
			case <-ticker.C:
				logger.Info().Int64("done", p.done.Load()).Int("total", total).Msg("loading logs")
			}
		}
	})
	return p
}

func (p *progress) step() { p.done.Add(1) }

func (p *progress) stop() {
	close(p.ended)
	p.wg.Wait()
}

// Get returns the log of a partition.
func (m *Manager) Get(tp cluster.TopicPartition) (*Log, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	l, ok := m.mu.logs[tp]
	return l, ok
}

// GetOrCreate returns the log of a partition, and creates it, durably, in the directory with the fewest partitions when there is
// none. isNew says that the controller has just made the partition. id may be zero for "unknown".
//
// Errors: kerr.InconsistentTopicID; kerr.KafkaStorageError, also when a directory is offline and !isNew: the log may be there.
func (m *Manager) GetOrCreate(tp cluster.TopicPartition, id cluster.TopicID, isNew bool) (*Log, error) {
	l, ok := m.Get(tp)
	if !ok {
		var err error
		if l, err = m.create(tp, id, isNew); err != nil {
			return nil, err
		}
	}
	if id.IsZero() {
		return l, nil
	}
	return l, l.SetTopicID(id)
}

func (m *Manager) create(tp cluster.TopicPartition, id cluster.TopicID, isNew bool) (*Log, error) {
	lock := m.creationLock(tp)
	lock.Lock()
	defer lock.Unlock()
	if l, ok := m.Get(tp); ok {
		return l, nil
	}
	m.mu.RLock()
	closed := m.mu.closed
	m.mu.RUnlock()
	if closed {
		return nil, ErrClosed
	}
	d, err := m.dirForNew(isNew)
	if err != nil {
		return nil, err
	}
	l, err := d.create(tp, id, m.options.Defaults(tp.Topic))
	if err != nil {
		fault := storageError("create", filepath.Join(d.path, tp.String()), err)
		if !fault.Full {
			d.fail(fault)
		}
		return nil, fault
	}
	m.mu.Lock()
	m.mu.logs[tp] = l
	m.mu.Unlock()
	d.add(l)
	d.touchAll()
	return l, nil
}

func (m *Manager) creationLock(tp cluster.TopicPartition) *sync.Mutex {
	h := maphash.String(m.seed, tp.Topic) + uint64(tp.Partition)
	return &m.creating[h%uint64(len(m.creating))]
}

func (m *Manager) dirForNew(isNew bool) (*logDir, error) {
	var best *logDir
	for _, d := range m.dirs {
		if err := d.fault(); err != nil {
			if !isNew {
				return nil, err
			}
			continue
		}
		if best == nil || d.count() < best.count() {
			best = d
		}
	}
	if best == nil {
		return nil, m.dirs[0].fault()
	}
	return best, nil
}

func (d *logDir) create(tp cluster.TopicPartition, id cluster.TopicID, c *Config) (*Log, error) {
	for _, checkpoint := range []*checkpointer{&d.recoveryPoints, &d.logStarts, &d.highWatermarks, &d.cleanPoints} {
		if err := checkpoint.forget(tp); err != nil {
			return nil, err
		}
	}
	dir := filepath.Join(d.path, tp.String())
	if err := d.fs.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	l, err := loadLog(d, dir, tp, c, loadState{clean: true})
	if err != nil {
		return nil, err
	}
	// All names first, then the syncs: each of them is a commit of the file system's journal only when there is news.
	if err := d.makeDurable(l, id); err != nil {
		l.closeFiles()
		return nil, err
	}
	l.recovery.New = true
	return l, nil
}

func (d *logDir) makeDurable(l *Log, id cluster.TopicID) error {
	if !id.IsZero() {
		if err := WritePartitionMetadata(d.fs, l.Dir(), id); err != nil {
			return err
		}
		l.topicID.Store(&id)
		l.dirDirty.Store(false) // WritePartitionMetadata synced it
	}
	if err := l.syncDir(); err != nil {
		return err
	}
	return d.syncNames()
}

// SetDeleteDelay sets how long the directories of deleted partitions stay: log.segment.delete.delay.ms of the broker.
func (m *Manager) SetDeleteDelay(d time.Duration) { m.deleteDelay.Store(int64(d)) }

// Delete removes a partition's log: its directory is renamed to -delete at once, durably, and removed by a DeletePass after
// the delay. Without a log it does nothing.
func (m *Manager) Delete(tp cluster.TopicPartition) error {
	lock := m.creationLock(tp)
	lock.Lock()
	defer lock.Unlock()
	m.mu.Lock()
	l, ok := m.mu.logs[tp]
	delete(m.mu.logs, tp)
	m.mu.Unlock()
	if !ok {
		return nil
	}
	d := l.owner
	d.drop(tp)
	name := deletedDirName(tp)
	if err := l.moveAway(filepath.Join(d.path, name)); err != nil {
		d.fail(storageError("delete", l.Dir(), err))
		return d.fault()
	}
	d.trash.addDir(m.options.Now().Add(time.Duration(m.deleteDelay.Load())), filepath.Join(d.path, name))
	d.touchAll()
	if err := d.syncNames(); err != nil {
		d.fail(storageError("sync", d.path, err))
		return d.fault()
	}
	return nil
}

func deletedDirName(tp cluster.TopicPartition) string {
	var unique [16]byte
	_, _ = rand.Read(unique[:])
	tail := fmt.Sprintf("-%d.%s%s", tp.Partition, hex.EncodeToString(unique[:]), deleteSuffix)
	topic := tp.Topic
	return topic[:min(len(topic), fileNameMax-len(tail))] + tail
}

// moveAway ends the log and renames its directory. Slices in use stay readable.
func (l *Log) moveAway(to string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.err == nil {
		l.mu.err = ErrClosed
	}
	for _, s := range l.view.Load().segments {
		s.retire()
	}
	if err := l.fs.Rename(l.Dir(), to); err != nil {
		return err
	}
	l.dir.Store(&to)
	return nil
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

// Dirs describes the log directories.
func (m *Manager) Dirs() []DirInfo {
	infos := make([]DirInfo, 0, len(m.dirs))
	for _, d := range m.dirs {
		info := DirInfo{Path: d.path, ID: d.meta().DirectoryID, Err: d.fault(), Short: d.reserve.short.Load()}
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

// RetentionPass applies retention to all logs that are not compacted; it returns how many segments went. Compacted logs
// are the cleaner's.
func (m *Manager) RetentionPass(now time.Time) int {
	removed := 0
	for _, l := range m.Logs() {
		if l.Config().Compact {
			continue
		}
		n, err := l.Retain(now)
		removed += n
		if err != nil && !errors.Is(err, ErrClosed) && !errors.Is(err, ErrDirOffline) {
			l.event(m.options.Logger.Warn()).Err(err).Msg("retention failed")
		}
	}
	return removed
}

func (m *Manager) eachDir(fn func(d *logDir) error) error {
	var all []error
	for _, d := range m.dirs {
		if d.fault() == nil {
			all = append(all, fn(d))
		}
	}
	return errors.Join(all...)
}

// CheckpointRecoveryPoints writes recovery-point-offset-checkpoint where something changed.
func (m *Manager) CheckpointRecoveryPoints() error {
	return m.eachDir(func(d *logDir) error { return d.recoveryPoints.writeIfDirty() })
}

// CheckpointLogStarts writes log-start-offset-checkpoint where something changed.
func (m *Manager) CheckpointLogStarts() error {
	return m.eachDir(func(d *logDir) error { return d.logStarts.writeIfDirty() })
}

// CheckpointHighWatermarks writes replication-offset-checkpoint where something changed.
func (m *Manager) CheckpointHighWatermarks() error {
	return m.eachDir(func(d *logDir) error { return d.highWatermarks.writeIfDirty() })
}

// DeletePass removes files and directories whose delay is over.
func (m *Manager) DeletePass(now time.Time) {
	for _, d := range m.dirs {
		if d.fault() == nil {
			d.emptyTrash(now)
		}
	}
}

// FlushPass flushes logs that have unflushed data and were last flushed flush.ms ago. It waits for the flushes.
func (m *Manager) FlushPass(now time.Time) error {
	var all []error
	for _, l := range m.Logs() {
		end := l.LogEndOffset()
		if end == l.FlushedOffset() || now.Sub(time.Unix(0, l.lastFlush.Load())) < l.Config().FlushMs {
			continue
		}
		if err := l.Flush(end); err != nil && !errors.Is(err, ErrClosed) {
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}

// ExpireProducers forgets producers that were idle for producer.id.expiration.ms.
func (m *Manager) ExpireProducers(now time.Time) {
	for _, l := range m.Logs() {
		l.expireProducers(now)
	}
}

// CloseIdleFiles closes the descriptors that were not used since the last call, and gives back memory of idle logs.
func (m *Manager) CloseIdleFiles() {
	for _, l := range m.Logs() {
		l.closeIdleFiles()
	}
}

// Close stops everything and unlocks the directories. clean: flush, snapshots, exact index lengths, checkpoints, and then the
// marker, in every directory where all of that went well.
func (m *Manager) Close(clean bool) error {
	for i := range m.creating {
		m.creating[i].Lock()
		defer m.creating[i].Unlock()
	}
	m.mu.Lock()
	closed := m.mu.closed
	m.mu.closed = true
	m.mu.Unlock()
	if closed {
		return nil
	}
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex
		all []error
	)
	for _, d := range m.dirs {
		wg.Go(func() {
			err := d.close(clean, m.options.RecoveryThreads, cluster.BrokerEpoch(m.brokerEpoch.Load()))
			mu.Lock()
			defer mu.Unlock()
			all = append(all, err)
		})
	}
	wg.Wait()
	return errors.Join(all...)
}

func (d *logDir) close(clean bool, threads int, epoch cluster.BrokerEpoch) error {
	d.background.wait()
	clean = clean && d.fault() == nil
	err := d.closeLogs(clean, threads)
	if clean && err == nil {
		err = d.markClean(epoch)
	}
	return errors.Join(err, d.unlockDir())
}

// closersPerDir is how many logs of a directory are closed side by side, at least: closing waits for the disk.
const closersPerDir = 8

func (d *logDir) closeLogs(clean bool, threads int) error {
	logs := d.logs()
	queue := make(chan *Log, len(logs))
	for _, l := range logs {
		queue <- l
	}
	close(queue)
	faults := make(chan error, len(logs))
	var wg sync.WaitGroup
	for range min(max(threads, closersPerDir), len(logs)) {
		wg.Go(func() {
			for l := range queue {
				if err := l.close(clean); err != nil {
					faults <- err
				}
			}
		})
	}
	wg.Wait()
	close(faults)
	var all []error
	for err := range faults {
		all = append(all, err)
	}
	return errors.Join(all...)
}

func (d *logDir) markClean(epoch cluster.BrokerEpoch) error {
	for _, c := range []*checkpointer{&d.recoveryPoints, &d.logStarts, &d.highWatermarks, &d.cleanPoints} {
		if err := c.write(); err != nil {
			return err
		}
	}
	if err := WriteCleanMarker(d.fs, d.path, epoch); err != nil {
		return storageError("write", filepath.Join(d.path, CleanShutdownFile), err)
	}
	return nil
}
