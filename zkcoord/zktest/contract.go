package zktest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ottla/zkcoord"
)

// Ensemble is what Contract needs of a ZooKeeper, real or not.
type Ensemble struct {
	Open   func(t *testing.T) zkcoord.Session          // a further session, closed when the test ends
	Expire func(t *testing.T, session zkcoord.Session) // ends it as the ensemble does
}

// Contract is what every zkcoord.Session keeps, on one tree that is empty at first.
func Contract(t *testing.T, e Ensemble) {
	s, other := e.Open(t), e.Open(t)
	tests := []struct {
		name string
		test func(t *testing.T, s, other zkcoord.Session, root string)
	}{
		{"create, get, set and delete keep versions", contractVersions},
		{"null and empty data", contractData},
		{"create with parents", contractCreateAll},
		{"sequential names", contractSequential},
		{"children", contractChildren},
		{"multi does all or nothing", contractMulti},
		{"multi shares one transaction", contractTransaction},
		{"many multis", contractMultiMany},
		{"many gets", contractGetMany},
		{"bad paths", contractPaths},
		{"data watch", contractWatchData},
		{"children watch", contractWatchChildren},
		{"cancelled watch", contractWatchCancel},
		{"watches lose nothing under churn", contractWatchChurn},
	}
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root := fmt.Sprint("/contract", i)
			must(t, s.CreateAll(root, nil))
			test.test(t, s, other, root)
		})
	}
	t.Run("expiry", func(t *testing.T) { contractExpiry(t, e, s) })
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

// eventually waits for a condition that another goroutine brings about.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("not within ten seconds: %s", what)
}

func contractVersions(t *testing.T, s, other zkcoord.Session, root string) {
	p := root + "/a"
	created, err := s.Create(p, []byte("one"), zkcoord.Persistent)
	must(t, err)
	if created != p {
		t.Errorf("created %q", created)
	}
	_, err = other.Create(p, nil, zkcoord.Persistent)
	wantErr(t, err, zkcoord.ErrNodeExists)
	_, err = s.Create(root+"/no/parent", nil, zkcoord.Persistent)
	wantErr(t, err, zkcoord.ErrNoNode)

	data, first, err := s.Get(p)
	must(t, err)
	if string(data) != "one" || first.Version != 0 || first.Czxid != first.Mzxid || first.Czxid == 0 || first.EphemeralOwner != 0 {
		t.Errorf("%q %+v", data, first)
	}
	if age := time.Since(time.UnixMilli(first.Ctime)); age < -time.Minute || age > time.Minute {
		t.Errorf("created %v ago", age)
	}
	_, err = s.Set(p, []byte("two"), 1)
	wantErr(t, err, zkcoord.ErrBadVersion)
	second, err := s.Set(p, []byte("two"), 0)
	must(t, err)
	if second.Version != 1 || second.Czxid != first.Czxid || second.Mzxid <= first.Mzxid {
		t.Errorf("after set %+v", second)
	}
	third, err := other.Set(p, []byte("three"), zkcoord.AnyVersion)
	must(t, err)
	if third.Version != 2 {
		t.Errorf("version %d", third.Version)
	}
	_, err = s.Set(root+"/none", nil, zkcoord.AnyVersion)
	wantErr(t, err, zkcoord.ErrNoNode)

	wantErr(t, s.Delete(p, 1), zkcoord.ErrBadVersion)
	must(t, s.Delete(p, 2))
	wantErr(t, s.Delete(p, zkcoord.AnyVersion), zkcoord.ErrNoNode)
	_, _, err = s.Get(p)
	wantErr(t, err, zkcoord.ErrNoNode)
	found, _, err := s.Exists(p)
	must(t, err)
	if found {
		t.Error("it exists")
	}
}

func contractData(t *testing.T, s, _ zkcoord.Session, root string) {
	for name, data := range map[string][]byte{"null": nil, "empty": {}, "bytes": {0, 1, 255}, "large": bytes.Repeat([]byte("x"), 100_000)} {
		_, err := s.Create(root+"/"+name, data, zkcoord.Persistent)
		must(t, err)
		got, _, err := s.Get(root + "/" + name)
		must(t, err)
		if !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes back", name, len(got))
		}
		if many := s.GetMany([]string{root, root + "/" + name}); !bytes.Equal(many[1].Data, data) {
			t.Errorf("%s: %d bytes back by GetMany", name, len(many[1].Data))
		}
	}
}

func contractCreateAll(t *testing.T, s, _ zkcoord.Session, root string) {
	p := root + "/a/b/c"
	must(t, s.CreateAll(p, []byte("x")))
	wantErr(t, s.CreateAll(p, nil), zkcoord.ErrNodeExists)
	data, _, err := s.Get(p)
	must(t, err)
	parent, _, err := s.Get(root + "/a/b")
	must(t, err)
	if string(data) != "x" || len(parent) != 0 {
		t.Errorf("%q below %q", data, parent)
	}
	wantErr(t, s.Delete(root+"/a", zkcoord.AnyVersion), zkcoord.ErrNotEmpty)
}

func contractSequential(t *testing.T, s, _ zkcoord.Session, root string) {
	for i := range 3 {
		created, err := s.Create(root+"/n_", nil, zkcoord.PersistentSequential)
		must(t, err)
		if want := fmt.Sprintf("%s/n_%010d", root, i); created != want {
			t.Errorf("created %q, want %q", created, want)
		}
		if n, ok := zkcoord.Sequence(created); !ok || n != int32(i) {
			t.Errorf("sequence %d %v", n, ok)
		}
		must(t, s.Delete(created, zkcoord.AnyVersion)) // the count goes on
	}
}

func contractChildren(t *testing.T, s, _ zkcoord.Session, root string) {
	names, _, err := s.Children(root)
	must(t, err)
	if len(names) != 0 {
		t.Errorf("%q", names)
	}
	for _, name := range []string{"b", "a", "<default>", "us%20er"} {
		must(t, s.CreateAll(root+"/"+name+"/deeper", nil))
	}
	names, stat, err := s.Children(root)
	must(t, err)
	slices.Sort(names)
	if want := []string{"<default>", "a", "b", "us%20er"}; !slices.Equal(names, want) || stat.NumChildren != 4 || stat.Cversion != 4 {
		t.Errorf("%q %+v", names, stat)
	}
	_, _, err = s.Children(root + "/none")
	wantErr(t, err, zkcoord.ErrNoNode)
}

func contractMulti(t *testing.T, s, _ zkcoord.Session, root string) {
	must(t, s.CreateAll(root+"/fence", nil))
	_, err := s.Multi()
	must(t, err)
	results, err := s.Multi(
		zkcoord.CheckOp(root+"/fence", 0), zkcoord.CreateOp(root+"/a", nil, zkcoord.Persistent),
		zkcoord.CreateOp(root+"/a/b", []byte("b"), zkcoord.Persistent), zkcoord.SetOp(root+"/a", []byte("a"), 0),
		zkcoord.CreateOp(root+"/n_", nil, zkcoord.PersistentSequential))
	must(t, err)
	if results[2].Path != root+"/a/b" || results[3].Stat.Version != 1 || results[3].Stat.NumChildren != 1 || results[4].Path <= root+"/n_" {
		t.Errorf("%+v", results)
	}
	results, err = s.Multi(zkcoord.CheckOp(root+"/fence", 1), zkcoord.SetOp(root+"/a", []byte("x"), 7))
	wantErr(t, err, zkcoord.ErrBadVersion)
	if len(results) != 2 || !errors.Is(results[0].Err, zkcoord.ErrBadVersion) || !errors.Is(results[1].Err, zkcoord.ErrSkipped) {
		t.Errorf("failed check: %+v", results)
	}
	results, err = s.Multi(zkcoord.CheckOp(root+"/fence", 0), zkcoord.DeleteOp(root+"/a/b", 0), zkcoord.SetOp(root+"/a", []byte("x"), 7),
		zkcoord.CreateOp(root+"/c", nil, zkcoord.Persistent))
	wantErr(t, err, zkcoord.ErrBadVersion)
	if len(results) != 4 || !errors.Is(results[2].Err, zkcoord.ErrBadVersion) || !errors.Is(results[1].Err, zkcoord.ErrSkipped) ||
		!errors.Is(results[3].Err, zkcoord.ErrSkipped) {
		t.Errorf("failed set: %+v", results)
	}
	if data, _, err := s.Get(root + "/a/b"); err != nil || string(data) != "b" {
		t.Errorf("the failed multi left %q, %v", data, err)
	}
	_, err = s.Multi(zkcoord.CheckOp(root+"/none", 0))
	wantErr(t, err, zkcoord.ErrNoNode)
	_, err = s.Multi(zkcoord.DeleteOp(root+"/a", zkcoord.AnyVersion))
	wantErr(t, err, zkcoord.ErrNotEmpty)
	_, err = s.Multi(zkcoord.CreateOp(root+"/a", nil, zkcoord.Persistent))
	wantErr(t, err, zkcoord.ErrNodeExists)
}

func contractTransaction(t *testing.T, s, _ zkcoord.Session, root string) {
	results, err := s.Multi(zkcoord.CreateOp(root+"/e", nil, zkcoord.Ephemeral), zkcoord.SetOp(root+"/e", []byte("x"), 0),
		zkcoord.SetOp(root, []byte("y"), 0))
	must(t, err)
	_, e, err := s.Get(root + "/e")
	must(t, err)
	_, r, err := s.Get(root)
	must(t, err)
	if e.Czxid != results[1].Stat.Czxid || e.Mzxid != e.Czxid || r.Mzxid != e.Czxid || e.Version != 1 || e.EphemeralOwner != s.ID() {
		t.Errorf("%+v %+v", e, r)
	}
	_, err = s.Create(root+"/e/child", nil, zkcoord.Persistent)
	wantErr(t, err, zkcoord.ErrInvalid)
}

func contractMultiMany(t *testing.T, s, _ zkcoord.Session, root string) {
	var multis [][]zkcoord.Op
	for i := range 300 {
		multis = append(multis, []zkcoord.Op{zkcoord.CheckOp(root, 0), zkcoord.CreateOp(fmt.Sprint(root, "/", i%250), nil, zkcoord.Persistent)})
	}
	failed := 0
	for _, r := range s.MultiMany(multis) {
		if errors.Is(r.Err, zkcoord.ErrNodeExists) && errors.Is(r.Results[1].Err, zkcoord.ErrNodeExists) {
			failed++
		} else if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if failed != 50 {
		t.Errorf("%d failed, want 50", failed)
	}
}

func contractGetMany(t *testing.T, s, _ zkcoord.Session, root string) {
	if got := s.GetMany(nil); len(got) != 0 {
		t.Errorf("%v", got)
	}
	const n = 1203 // several requests
	var units [][]zkcoord.Op
	var paths []string
	for i := range n {
		p := fmt.Sprint(root, "/", i)
		paths = append(paths, p)
		if i%3 != 0 {
			units = append(units, []zkcoord.Op{zkcoord.CreateOp(p, []byte(p), zkcoord.Persistent)})
		}
	}
	for _, r := range s.MultiMany(units) {
		must(t, r.Err)
	}
	for i, r := range s.GetMany(paths) {
		switch {
		case i%3 == 0:
			wantErr(t, r.Err, zkcoord.ErrNoNode)
		case r.Err != nil || string(r.Data) != paths[i] || r.Stat.Czxid == 0:
			t.Fatalf("%s: %q %+v %v", paths[i], r.Data, r.Stat, r.Err)
		}
	}
}

func contractPaths(t *testing.T, s, _ zkcoord.Session, root string) {
	for _, p := range []string{"", "a", root + "/", root + "//a", root + "/../a", root + "/.", "/"} {
		_, err := s.Multi(zkcoord.CreateOp(p, nil, zkcoord.Persistent))
		if p == "/" {
			wantErr(t, err, zkcoord.ErrNodeExists)
			continue
		}
		wantErr(t, err, zkcoord.ErrInvalid)
		_, _, err = s.Get(p)
		wantErr(t, err, zkcoord.ErrInvalid)
		results := s.GetMany([]string{root, p})
		must(t, results[0].Err)
		wantErr(t, results[1].Err, zkcoord.ErrInvalid)
	}
	found, _, err := s.Exists("/")
	must(t, err)
	if !found {
		t.Error("no root")
	}
}

func contractWatchData(t *testing.T, s, other zkcoord.Session, root string) {
	var told atomic.Int32
	p := root + "/x"
	cancel, err := s.WatchData(p, func() { told.Add(1) })
	must(t, err)
	defer cancel()
	for i, step := range []func() error{
		func() error { return other.CreateAll(p, nil) },
		func() error { _, err := other.Set(p, []byte("1"), zkcoord.AnyVersion); return err },
		func() error { _, err := s.Set(p, []byte("2"), zkcoord.AnyVersion); return err },
		func() error { return other.Delete(p, zkcoord.AnyVersion) },
		func() error { return other.CreateAll(p, nil) },
	} {
		before := told.Load()
		must(t, step())
		eventually(t, fmt.Sprint("told of step ", i), func() bool { return told.Load() > before })
	}
}

func contractWatchChildren(t *testing.T, s, other zkcoord.Session, root string) {
	_, err := s.WatchChildren(root+"/none", func() {})
	wantErr(t, err, zkcoord.ErrNoNode)
	var told atomic.Int32
	p := root + "/dir"
	must(t, s.CreateAll(p, nil))
	cancel, err := s.WatchChildren(p, func() { told.Add(1) })
	must(t, err)
	defer cancel()
	for i, step := range []func() error{
		func() error { return other.CreateAll(p+"/a", nil) },
		func() error { return other.CreateAll(p+"/b", nil) },
		func() error { return other.Delete(p+"/a", zkcoord.AnyVersion) },
		func() error { return other.Delete(p+"/b", zkcoord.AnyVersion) },
		func() error { return other.Delete(p, zkcoord.AnyVersion) },
		func() error { return other.CreateAll(p, nil) },
		func() error { return other.CreateAll(p+"/c", nil) },
	} {
		before := told.Load()
		must(t, step())
		eventually(t, fmt.Sprint("told of step ", i), func() bool { return told.Load() > before })
	}
}

func contractWatchCancel(t *testing.T, s, other zkcoord.Session, root string) {
	var first, second atomic.Int32
	cancel, err := s.WatchData(root, func() { first.Add(1) })
	must(t, err)
	cancelSecond, err := s.WatchData(root, func() { second.Add(1) })
	must(t, err)
	defer cancelSecond()
	cancel()
	_, err = other.Set(root, []byte("x"), zkcoord.AnyVersion)
	must(t, err)
	eventually(t, "the other watcher is told", func() bool { return second.Load() > 0 })
	if first.Load() != 0 {
		t.Error("told after the watch was cancelled")
	}
}

// contractWatchChurn: whoever re-reads when told knows the last state in the end, however fast it changes.
func contractWatchChurn(t *testing.T, s, other zkcoord.Session, root string) {
	const changes = 300
	wake := make(chan struct{}, 1)
	poke := func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	for _, watch := range []func(string, func()) (func(), error){s.WatchData, s.WatchChildren} {
		cancel, err := watch(root, poke)
		must(t, err)
		defer cancel()
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for i := range changes {
			if _, err := other.Set(root, fmt.Append(nil, i), zkcoord.AnyVersion); err != nil {
				t.Error(err)
			}
			if err := other.CreateAll(fmt.Sprint(root, "/", i), nil); err != nil {
				t.Error(err)
			}
		}
	})
	deadline := time.After(20 * time.Second)
	for {
		select {
		case <-wake:
		case <-deadline:
			t.Fatal("the last change was not seen")
		}
		data, _, err := s.Get(root)
		must(t, err)
		names, _, err := s.Children(root)
		must(t, err)
		if string(data) == fmt.Sprint(changes-1) && len(names) == changes {
			return
		}
	}
}

func contractExpiry(t *testing.T, e Ensemble, s zkcoord.Session) {
	root := "/expiry"
	must(t, s.CreateAll(root, nil))
	dying := e.Open(t)
	_, err := dying.Create(root+"/ephemeral", nil, zkcoord.Ephemeral)
	must(t, err)
	must(t, dying.CreateAll(root+"/persistent", nil))
	var over atomic.Bool // before that, a reconnection may tell of no change
	_, err = dying.WatchData(root, func() {
		if over.Load() {
			t.Error("a watch of a session that is over")
		}
	})
	must(t, err)
	_, stat, err := s.Get(root + "/ephemeral")
	must(t, err)
	if stat.EphemeralOwner != dying.ID() || dying.ID() == s.ID() || dying.ID() == 0 {
		t.Errorf("owner %x, sessions %x and %x", stat.EphemeralOwner, dying.ID(), s.ID())
	}
	gone := make(chan struct{}, 1)
	cancel, err := s.WatchData(root+"/ephemeral", func() {
		select {
		case gone <- struct{}{}:
		default:
		}
	})
	must(t, err)
	defer cancel()

	e.Expire(t, dying)
	select {
	case <-dying.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the session does not notice its end")
	}
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Fatal("the ephemeral znode stays")
	}
	found, _, err := s.Exists(root + "/ephemeral")
	must(t, err)
	kept, _, err := s.Exists(root + "/persistent")
	must(t, err)
	if found || !kept {
		t.Errorf("ephemeral: %v, persistent: %v", found, kept)
	}
	contractOver(t, dying, root)
	over.Store(true)
	_, err = s.Set(root, nil, zkcoord.AnyVersion) // would wake a watch of the dead session
	must(t, err)
	time.Sleep(20 * time.Millisecond)
}

// contractOver: nothing works in a session that is over.
func contractOver(t *testing.T, s zkcoord.Session, root string) {
	t.Helper()
	var failures []string
	lost := func(what string, err error) {
		if !errors.Is(err, zkcoord.ErrSessionLost) {
			failures = append(failures, fmt.Sprintf("%s: %v", what, err))
		}
	}
	_, _, err := s.Get(root)
	lost("get", err)
	_, _, err = s.Exists(root)
	lost("exists", err)
	_, _, err = s.Children(root)
	lost("children", err)
	for _, r := range s.GetMany([]string{root, root + "/a", root + "/b"}) {
		lost("get many", r.Err)
	}
	_, err = s.Create(root+"/late", nil, zkcoord.Persistent)
	lost("create", err)
	lost("create all", s.CreateAll(root+"/late", nil))
	_, err = s.Set(root, nil, zkcoord.AnyVersion)
	lost("set", err)
	lost("delete", s.Delete(root, zkcoord.AnyVersion))
	_, err = s.Multi(zkcoord.CheckOp(root, 0))
	lost("multi", err)
	for _, r := range s.MultiMany([][]zkcoord.Op{{zkcoord.CheckOp(root, 0)}, {zkcoord.CheckOp(root, 0)}}) {
		lost("many multis", r.Err)
	}
	_, err = s.WatchData(root, func() {})
	lost("watch", err)
	_, err = s.WatchChildren(root, func() {})
	lost("watch children", err)
	if len(failures) > 0 {
		t.Errorf("after the end of the session:\n%s", strings.Join(failures, "\n"))
	}
}
