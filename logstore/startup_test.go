package logstore_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"ottla/internal/cluster"
	"ottla/logstore"
)

// readingFS is the operating system's file system; it counts the bytes that are read of each .log, and how many files are read at
// once.
type readingFS struct {
	logstore.FS
	mu   sync.Mutex
	read map[string]int64
	busy map[string]int
	most int // partitions at once
}

func (f *readingFS) OpenFile(name string, flag int, perm os.FileMode) (logstore.File, error) {
	file, err := f.FS.OpenFile(name, flag, perm)
	if err != nil || !strings.HasSuffix(name, ".log") {
		return file, err
	}
	return &readingFile{file, f, name}, nil
}

type readingFile struct {
	logstore.File
	fs   *readingFS
	name string
}

func (r *readingFile) ReadAt(p []byte, off int64) (int, error) {
	dir := filepath.Dir(r.name)
	r.fs.mu.Lock()
	r.fs.read[r.name] += int64(len(p))
	r.fs.busy[dir]++
	r.fs.most = max(r.fs.most, len(r.fs.busy))
	r.fs.mu.Unlock()
	if len(p) > 1<<19 { // recovery reads: long enough for another one to begin
		time.Sleep(2 * time.Millisecond)
	}
	defer func() {
		r.fs.mu.Lock()
		defer r.fs.mu.Unlock()
		if r.fs.busy[dir]--; r.fs.busy[dir] == 0 {
			delete(r.fs.busy, dir)
		}
	}()
	return r.File.ReadAt(p, off)
}

const (
	vastPartitions = 50
	vastSealed     = 4 // sparse segments of 1 GiB in each of them: 200 GiB together
)

// vast makes a log directory that looks like 200 GiB: in each partition sealed segments, of which nearly all is a hole in the file, and
// a real active segment. It was stopped cleanly; flushed is how far the recovery points are.
func vast(t *testing.T) (dir string, active map[string]int64) {
	t.Helper()
	dir = t.TempDir()
	c := logstore.DefaultConfig()
	m, err := logstore.OpenManager(logstore.ManagerOptions{Dirs: []string{dir}, BrokerID: 1, ClusterID: "c", Logger: zerolog.Nop(), Defaults: func(string) *logstore.Config { return c }})
	require.NoError(t, err)
	value := strings.Repeat("v", 100<<10)
	for i := range vastPartitions {
		l, err := m.GetOrCreate(partition(i), cluster.TopicID{1}, true)
		require.NoError(t, err)
		for range vastSealed {
			appendValue(t, l, 1, "sealed")
			require.NoError(t, l.Roll(time.Now()))
		}
		for range 10 {
			appendValue(t, l, 1, value)
		}
		l.SetHighWatermark(l.LogEndOffset())
	}
	require.NoError(t, m.Close(true))
	active = map[string]int64{}
	for i := range vastPartitions {
		at := filepath.Join(dir, partition(i).String())
		logs, err := filepath.Glob(filepath.Join(at, "*.log"))
		require.NoError(t, err)
		require.Len(t, logs, vastSealed+1)
		for _, sealed := range logs[:vastSealed] {
			require.NoError(t, os.Truncate(sealed, 1<<30))
		}
		info, err := os.Stat(logs[vastSealed])
		require.NoError(t, err)
		active[logs[vastSealed]] = info.Size()
	}
	return dir, active
}

func openVast(t *testing.T, dir string, threads int) (*readingFS, *logstore.Manager, time.Duration, string) {
	t.Helper()
	fsys := &readingFS{FS: logstore.OSFS, read: map[string]int64{}, busy: map[string]int{}}
	out := &lockedBuffer{}
	began := time.Now()
	m, err := logstore.OpenManager(logstore.ManagerOptions{Dirs: []string{dir}, FS: fsys, BrokerID: 1, ClusterID: "c", Logger: zerolog.New(out), RecoveryThreads: threads})
	require.NoError(t, err)
	took := time.Since(began)
	require.Len(t, m.Logs(), vastPartitions)
	size := int64(0)
	for _, l := range m.Logs() {
		size += l.Size()
		require.EqualValues(t, vastSealed+10, l.LogEndOffset())
	}
	require.Greater(t, size, int64(200)<<30)
	return fsys, m, took, out.String()
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestStartWith200GiBReadsOnlyWhatItMust: after a clean stop the end of each active segment; after a kill what is past the recovery
// points, several partitions at once, with progress in the log.
func TestStartWith200GiBReadsOnlyWhatItMust(t *testing.T) {
	dir, active := vast(t)
	defer logstore.SetProgressInterval(10 * time.Millisecond)()

	fsys, m, took, _ := openVast(t, dir, 1)
	require.True(t, m.WasClean())
	total := int64(0)
	for name, n := range fsys.read {
		require.Contains(t, active, name, "a sealed segment was read")
		require.LessOrEqual(t, n, int64(16<<10), name)
		total += n
	}
	t.Logf("clean start with %d partitions, 200 GiB: %v, %d bytes of segments read", vastPartitions, took, total)
	require.NoError(t, m.CheckpointRecoveryPoints())
	require.NoError(t, m.Close(false)) // a kill: the clean marker went at the start

	const threads = 4
	fsys, m, took, log := openVast(t, dir, threads)
	require.False(t, m.WasClean())
	total = 0
	for name, n := range fsys.read {
		require.Contains(t, active, name, "a segment below the recovery point was read")
		total += n
	}
	for name, size := range active {
		require.GreaterOrEqual(t, fsys.read[name], size, name)
	}
	require.Greater(t, fsys.most, 1, "partitions are recovered side by side")
	require.LessOrEqual(t, fsys.most, threads)
	require.Contains(t, log, `"message":"loading logs"`)
	require.Contains(t, log, `"recovered_bytes":`)
	t.Logf("unclean start: %v, %d bytes of segments read, %d partitions at once", took, total, fsys.most)
	require.NoError(t, m.Close(false))
}
