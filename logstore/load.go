package logstore

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"ottla/internal/cluster"
)

// job is one partition directory to load.
type job struct {
	dir    *logDir
	name   string
	tp     cluster.TopicPartition
	state  loadState
	future bool // the copy of a log that is being moved here
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
	if err := m.settleMoves(jobs); err != nil {
		return err
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
			d.deleted = append(d.deleted, e.Name())
			d.trash.addDir(m.options.Now(), filepath.Join(d.path, e.Name()))
			continue
		}
		tp, state, ok := PartitionDir(e.Name())
		if !ok || state == DirStray {
			d.logger.Warn().Str("dir", filepath.Join(d.path, e.Name())).Msg("not a partition's directory: left alone (Kafka would refuse to start)")
			continue
		}
		jobs = append(jobs, job{dir: d, name: e.Name(), tp: tp, state: d.loadState(tp, clean), future: state == DirFuture})
	}
	return jobs, clean || len(jobs) == 0, epoch, nil
}

func (d *logDir) loadState(tp cluster.TopicPartition, clean bool) loadState {
	s := loadState{clean: clean}
	s.recoveryPoint, _ = d.recoveryPoints.get(tp)
	s.logStart, _ = d.logStarts.get(tp)
	s.highWatermark, _ = d.highWatermarks.get(tp)
	s.cleanedTo, _ = d.cleanPoints.get(tp)
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
	progress := newProgress(m.options.Logger, total, &m.recovered)
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
		m.options.Logger.Info().Int("logs", total).Bool("clean", m.clean).Int64("recovered_bytes", m.recovered.Load()).Int64("dur_ms", m.options.Now().Sub(began).Milliseconds()).Msg("loaded logs")
	}
	return errors.Join(all...)
}

func (m *Manager) loadOne(j job) error {
	if j.dir.fault() != nil {
		return nil
	}
	l, err := loadLog(j.dir, filepath.Join(j.dir.path, j.name), j.tp, m.options.Defaults(j.tp.Topic), j.state)
	var fault *StorageError
	if errors.As(err, &fault) && fault.Full {
		m.putOff(j, fault)
		return nil
	}
	if errors.As(err, &fault) {
		j.dir.fail(fault)
		return nil
	}
	if err != nil {
		return err
	}
	return m.adopt(j, l)
}

// adopt takes a loaded log in.
func (m *Manager) adopt(j job, l *Log) error {
	m.mu.Lock()
	to := m.mu.logs
	if j.future {
		to = m.mu.futures
	}
	other, twice := to[j.tp]
	if !twice {
		to[j.tp] = l
	}
	m.mu.Unlock()
	if twice {
		l.closeFiles()
		return fmt.Errorf("partition %s is in two log directories, %s and %s: remove the stale one", j.tp, other.Dir(), l.Dir())
	}
	j.dir.add(l)
	return nil
}

// putOff leaves a log for which there is no space now (its recovery writes index files) to the next attempt to open it: the
// directory and the other logs in it go on.
func (m *Manager) putOff(j job, fault *StorageError) {
	m.options.Logger.Error().Err(fault).Str("topic", j.tp.Topic).Int32("partition", j.tp.Partition).Str("dir", j.dir.path).
		Msg("no space to open a log: it stays offline until there is")
	j.dir.putOff(j)
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

var progressInterval = 5 * time.Second // a test shortens it

func newProgress(logger zerolog.Logger, total int, recovered *atomic.Int64) *progress {
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
				logger.Info().Int64("done", p.done.Load()).Int("total", total).Int64("recovered_bytes", recovered.Load()).Msg("loading logs")
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
