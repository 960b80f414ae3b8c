// Package crashfs is a file system in memory for tests of the store. It remembers what was synced, so that a test can ask at
// any moment what a process kill (everything written stays) or a loss of power (only what was synced surely stays) would
// leave behind, and it can make the n-th operation fail.
//
// The model of a loss of power: a file's content is what its last Sync saw, plus a random share of what was written since,
// cut at a random byte, possibly torn in the middle (a hole of zeros). A directory has the entries that its last SyncDir saw,
// plus a random share of the later creations, renames and removals, in order. A new file's entry can be lost together with
// its synced content when its directory was never synced. That is what POSIX permits and file systems do.
package crashfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"sort"
	"strings"
	"sync"
	"time"

	"ottla/logstore"
)

// ErrInjected is the error of an operation that was made to fail.
var ErrInjected = errors.New("injected fault")

// FS is one file system. It guards itself.
type FS struct {
	mu     sync.Mutex
	root   *node
	locks  map[string]bool
	ops    int64
	fail   func(op Op) error
	space  logstore.Space
	closed bool // a crash happened: the old world's handles fail
}

var _ logstore.FS = (*FS)(nil)

// Op is one operation that changes or syncs something (reads are not counted).
type Op struct {
	N    int64  // from 1
	Kind string // "create", "write", "truncate", "sync", "rename", "remove", "mkdir", "syncdir", "chtimes"
	Name string
}

// node is a file or a directory. The synced side is what a loss of power surely leaves.
type node struct {
	dir      bool
	data     []byte
	synced   []byte
	entries  map[string]*node
	durable  map[string]*node // directory: entries at the last SyncDir
	journal  []change         // directory: later changes in order
	mtime    time.Time
	openings int
}

// change is one journalled change of a directory: a rename within it is one change, so that it is atomic.
type change struct {
	apply func(entries map[string]*node)
}

// New returns an empty file system.
func New() *FS {
	return &FS{root: newDir(), locks: map[string]bool{}}
}

func newDir() *node {
	return &node{dir: true, entries: map[string]*node{}, durable: map[string]*node{}, mtime: time.Now()}
}

// FailWith sets the function that may make an operation fail; nil fails none. A failed write writes half of its bytes, as a
// full disk does.
func (f *FS) FailWith(fn func(op Op) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fn
}

// FailAt makes the n-th operation from now on fail, and with sticky also all that follow.
func (f *FS) FailAt(n int64, sticky bool, err error) {
	f.mu.Lock()
	at := f.ops + n
	f.mu.Unlock()
	f.FailWith(func(op Op) error {
		if op.N == at || sticky && op.N > at {
			return err
		}
		return nil
	})
}

// SetSpace says what Space answers: as if others had filled the volume. Writes are not counted.
func (f *FS) SetSpace(s logstore.Space) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.space = s
}

// Space is what SetSpace said; at first a volume without an end.
func (f *FS) Space(string) (logstore.Space, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.space.Total == 0 {
		return logstore.Space{Total: 1 << 60, Free: 1 << 60}, nil
	}
	return f.space, nil
}

// Ops is how many operations there were.
func (f *FS) Ops() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ops
}

// Kill returns what the next process finds after this one was killed: everything that was written. This file system fails
// every operation from now on.
func (f *FS) Kill() *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return &FS{root: f.root.clone(), locks: map[string]bool{}}
}

// Clone returns a copy of everything that was written, and leaves this file system as it is.
func (f *FS) Clone() *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &FS{root: f.root.clone(), locks: map[string]bool{}}
}

// Crash returns what a loss of power leaves, by chance: what was synced, and any share of the rest. This file system stays as it is.
func (f *FS) Crash(rng *rand.Rand) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	seen := map[*node]*node{}
	return &FS{root: f.root.crash(rng, seen), locks: map[string]bool{}}
}

func (n *node) clone() *node {
	if !n.dir {
		return &node{data: bytes.Clone(n.data), synced: bytes.Clone(n.synced), mtime: n.mtime}
	}
	c := newDir()
	c.mtime = n.mtime
	for name, e := range n.entries {
		c.entries[name] = e.clone()
	}
	// A killed process leaves the kernel's caches alone; what comes to the disk later is not modelled across two crashes.
	for name, e := range c.entries {
		c.durable[name] = e
	}
	return c
}

func (n *node) crash(rng *rand.Rand, seen map[*node]*node) *node {
	if c, ok := seen[n]; ok {
		return c
	}
	if !n.dir {
		c := &node{data: n.survivingBytes(rng), mtime: n.mtime}
		c.synced = bytes.Clone(c.data)
		seen[n] = c
		return c
	}
	left := map[string]*node{}
	for name, e := range n.durable {
		left[name] = e
	}
	for _, ch := range n.journal[:rng.IntN(len(n.journal)+1)] {
		ch.apply(left)
	}
	c := newDir()
	seen[n] = c
	for name, e := range left {
		c.entries[name] = e.crash(rng, seen)
		c.durable[name] = c.entries[name]
	}
	return c
}

// survivingBytes is the synced content plus a share of what was done since.
func (n *node) survivingBytes(rng *rand.Rand) []byte {
	if bytes.Equal(n.data, n.synced) {
		return bytes.Clone(n.data)
	}
	switch rng.IntN(4) {
	case 0:
		return bytes.Clone(n.synced)
	case 1:
		return bytes.Clone(n.data)
	}
	common := 0
	for common < len(n.data) && common < len(n.synced) && n.data[common] == n.synced[common] {
		common++
	}
	if len(n.data) <= common { // it was only cut: the cut happened or did not
		return bytes.Clone(n.synced)
	}
	keep := common + rng.IntN(len(n.data)-common+1)
	out := bytes.Clone(n.data[:keep])
	if keep < len(n.synced) { // overwritten content: the rest is still the old one
		out = append(out, n.synced[keep:]...)
	} else if rng.IntN(3) == 0 && keep > common {
		hole := common + rng.IntN(keep-common) // the length came to the disk before the block
		clear(out[hole:min(len(out), hole+512)])
	}
	return out
}

func (f *FS) step(kind, name string) error {
	if f.closed {
		return fmt.Errorf("%s %s: %w", kind, name, fs.ErrClosed)
	}
	f.ops++
	if f.fail == nil {
		return nil
	}
	if err := f.fail(Op{N: f.ops, Kind: kind, Name: name}); err != nil {
		return &fs.PathError{Op: kind, Path: name, Err: err}
	}
	return nil
}

func clean(name string) []string {
	name = strings.Trim(path.Clean("/"+name), "/")
	if name == "" {
		return nil
	}
	return strings.Split(name, "/")
}

func (f *FS) lookup(name string) (*node, error) {
	n := f.root
	for _, part := range clean(name) {
		if !n.dir {
			return nil, &fs.PathError{Op: "lookup", Path: name, Err: fs.ErrNotExist}
		}
		next, ok := n.entries[part]
		if !ok {
			return nil, &fs.PathError{Op: "lookup", Path: name, Err: fs.ErrNotExist}
		}
		n = next
	}
	return n, nil
}

func (f *FS) parent(name string) (*node, string, error) {
	parts := clean(name)
	if len(parts) == 0 {
		return nil, "", &fs.PathError{Op: "parent", Path: name, Err: fs.ErrInvalid}
	}
	dir, err := f.lookup(strings.Join(parts[:len(parts)-1], "/"))
	if err != nil {
		return nil, "", err
	}
	if !dir.dir {
		return nil, "", &fs.PathError{Op: "parent", Path: name, Err: fs.ErrInvalid}
	}
	return dir, parts[len(parts)-1], nil
}

func (n *node) change(apply func(map[string]*node)) {
	apply(n.entries)
	n.journal = append(n.journal, change{apply})
}

// OpenFile opens or creates a file.
func (f *FS) OpenFile(name string, flag int, _ fs.FileMode) (logstore.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, fs.ErrClosed
	}
	dir, last, err := f.parent(name)
	if err != nil {
		return nil, err
	}
	n, ok := dir.entries[last]
	switch {
	case ok && n.dir:
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("is a directory")}
	case ok && flag&os.O_EXCL != 0:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrExist}
	case !ok && flag&os.O_CREATE == 0:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	case !ok:
		if err := f.step("create", name); err != nil {
			return nil, err
		}
		n = &node{mtime: time.Now()}
		created := n
		dir.change(func(e map[string]*node) { e[last] = created })
	case flag&os.O_TRUNC != 0 && len(n.data) > 0:
		if err := f.step("truncate", name); err != nil {
			return nil, err
		}
		n.data = nil
	}
	n.openings++
	return &file{fs: f, node: n, name: name}, nil
}

// Rename moves a file or directory; within one directory it is atomic, as is a replacement.
func (f *FS) Rename(from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	fromDir, fromName, err := f.parent(from)
	if err != nil {
		return err
	}
	toDir, toName, err := f.parent(to)
	if err != nil {
		return err
	}
	n, ok := fromDir.entries[fromName]
	if !ok {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	if err := f.step("rename", from); err != nil {
		return err
	}
	if fromDir == toDir {
		fromDir.change(func(e map[string]*node) {
			if e[fromName] == n {
				delete(e, fromName)
			}
			e[toName] = n
		})
		return nil
	}
	toDir.change(func(e map[string]*node) { e[toName] = n })
	fromDir.change(func(e map[string]*node) { delete(e, fromName) })
	return nil
}

// Remove removes a file or an empty directory.
func (f *FS) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	dir, last, err := f.parent(name)
	if err != nil {
		return err
	}
	n, ok := dir.entries[last]
	if !ok {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	if n.dir && len(n.entries) > 0 {
		return &fs.PathError{Op: "remove", Path: name, Err: errors.New("directory not empty")}
	}
	if err := f.step("remove", name); err != nil {
		return err
	}
	dir.change(func(e map[string]*node) { delete(e, last) })
	return nil
}

// MkdirAll creates a directory and its parents.
func (f *FS) MkdirAll(name string, _ fs.FileMode) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.root
	for _, part := range clean(name) {
		next, ok := n.entries[part]
		if ok && !next.dir {
			return &fs.PathError{Op: "mkdir", Path: name, Err: fs.ErrExist}
		}
		if !ok {
			if err := f.step("mkdir", name); err != nil {
				return err
			}
			next = newDir()
			created := next
			n.change(func(e map[string]*node) { e[part] = created })
		}
		n = next
	}
	return nil
}

// ReadDir lists a directory by name.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.lookup(name)
	if err != nil {
		return nil, err
	}
	if !n.dir {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrInvalid}
	}
	out := make([]fs.DirEntry, 0, len(n.entries))
	for entry, e := range n.entries {
		out = append(out, fs.FileInfoToDirEntry(e.info(entry)))
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name() < out[j].Name() })
	return out, nil
}

// Stat describes a file or directory.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.lookup(name)
	if err != nil {
		return nil, err
	}
	return n.info(path.Base(name)), nil
}

// Chtimes sets a file's modification time.
func (f *FS) Chtimes(name string, mtime time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.lookup(name)
	if err != nil {
		return err
	}
	if err := f.step("chtimes", name); err != nil {
		return err
	}
	n.mtime = mtime
	return nil
}

// SyncDir makes a directory's entries durable.
func (f *FS) SyncDir(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.lookup(name)
	if err != nil {
		return err
	}
	if err := f.step("syncdir", name); err != nil {
		return err
	}
	n.durable = make(map[string]*node, len(n.entries))
	for name, e := range n.entries {
		n.durable[name] = e
	}
	n.journal = nil
	return nil
}

// Lock creates the file and locks it; a killed process's locks are gone.
func (f *FS) Lock(name string) (io.Closer, error) {
	h, err := f.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.locks[name] {
		return nil, fmt.Errorf("%s: %w", name, logstore.ErrLocked)
	}
	f.locks[name] = true
	return unlock{f, name, h}, nil
}

type unlock struct {
	fs   *FS
	name string
	io.Closer
}

func (u unlock) Close() error {
	u.fs.mu.Lock()
	delete(u.fs.locks, u.name)
	u.fs.mu.Unlock()
	return u.Closer.Close()
}

// OpenFiles is the number of handles that were not closed.
func (f *FS) OpenFiles() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.root.countOpen()
}

func (n *node) countOpen() int {
	open := n.openings
	for _, e := range n.entries {
		open += e.countOpen()
	}
	return open
}

type file struct {
	fs     *FS
	node   *node
	name   string
	closed bool
}

func (h *file) check() error {
	if h.closed || h.fs.closed {
		return &fs.PathError{Op: "use", Path: h.name, Err: fs.ErrClosed}
	}
	return nil
}

func (h *file) ReadAt(p []byte, off int64) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.check(); err != nil {
		return 0, err
	}
	if off >= int64(len(h.node.data)) {
		return 0, io.EOF
	}
	n := copy(p, h.node.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h *file) WriteAt(p []byte, off int64) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.check(); err != nil {
		return 0, err
	}
	err := h.fs.step("write", h.name)
	if err != nil {
		p = p[:len(p)/2]
	}
	if end := off + int64(len(p)); end > int64(len(h.node.data)) {
		h.node.data = append(h.node.data, make([]byte, end-int64(len(h.node.data)))...)
	}
	h.node.mtime = time.Now()
	return copy(h.node.data[off:], p), err
}

func (h *file) Truncate(size int64) error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.check(); err != nil {
		return err
	}
	if err := h.fs.step("truncate", h.name); err != nil {
		return err
	}
	if size <= int64(len(h.node.data)) {
		h.node.data = h.node.data[:size:size]
		return nil
	}
	h.node.data = append(h.node.data, make([]byte, size-int64(len(h.node.data)))...)
	return nil
}

func (h *file) Sync() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.check(); err != nil {
		return err
	}
	if err := h.fs.step("sync", h.name); err != nil {
		return err
	}
	h.node.synced = bytes.Clone(h.node.data)
	return nil
}

func (h *file) Stat() (fs.FileInfo, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.check(); err != nil {
		return nil, err
	}
	return h.node.info(path.Base(h.name)), nil
}

func (h *file) Close() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.closed {
		return &fs.PathError{Op: "close", Path: h.name, Err: fs.ErrClosed}
	}
	h.closed = true
	h.node.openings--
	return nil
}

// Reserve does nothing: space has no end here but by FailWith.
func (h *file) Reserve(int64) error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.check(); err != nil {
		return err
	}
	return h.fs.step("reserve", h.name)
}

func (h *file) Fd() uintptr { return ^uintptr(0) }

type info struct {
	name  string
	size  int64
	dir   bool
	mtime time.Time
}

func (n *node) info(name string) info {
	return info{name: name, size: int64(len(n.data)), dir: n.dir, mtime: n.mtime}
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) ModTime() time.Time { return i.mtime }
func (i info) IsDir() bool        { return i.dir }
func (i info) Sys() any           { return nil }
func (i info) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o755
	}
	return 0o644
}
