package integration

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ottla/integration/kafka39"
)

// memberFamily is one kind of members: a program in the folder members, and what it is told.
type memberFamily struct {
	name     string
	program  string
	assignor string
	static   bool
}

var memberFamilies = []memberFamily{
	{"franz-go", "franz", "cooperative-sticky", false},
	{"franz-go-static", "franz", "range", true},
	{"kafka-go", "kafkago", "range", false},
	{"sarama", "sarama", "sticky", false},
	{"sarama-static", "sarama", "range", true},
	{"librdkafka", "python/librdkafka.py", "range", false},
	{"librdkafka-cooperative-sticky", "python/librdkafka.py", "cooperative-sticky", false},
	{"kafka-python", "python/kafka_python.py", "round-robin", false},
	{"java-range", "java/Member.java", "range", false},
	{"java-round-robin", "java/Member.java", "round-robin", false},
	{"java-sticky", "java/Member.java", "sticky", false},
	{"java-cooperative-sticky", "java/Member.java", "cooperative-sticky", false},
	{"java-static", "java/Member.java", "range", true},
}

// memberCommand is the command of a family's program with these arguments.
type memberCommand func(args ...string) *exec.Cmd

// memberBuilds makes the programs of members, each once. What cannot be had here skips the test.
type memberBuilds struct {
	dir  string
	mu   sync.Mutex
	made map[string]string
}

func newMemberBuilds(t *testing.T) *memberBuilds {
	return &memberBuilds{dir: t.TempDir(), made: map[string]string{}}
}

func (m *memberBuilds) command(t *testing.T, f memberFamily) memberCommand {
	t.Helper()
	source := filepath.Join("members", f.program)
	switch filepath.Ext(source) {
	case ".java":
		k, err := kafka39.Find()
		if err != nil {
			t.Skip(err)
		}
		return func(args ...string) *exec.Cmd { return k.Source(source, args...) }
	case ".py":
		python := pythonClients(t)
		return func(args ...string) *exec.Cmd { return exec.Command(python, append([]string{source}, args...)...) }
	}
	binary := m.build(t, source)
	return func(args ...string) *exec.Cmd { return exec.Command(binary, args...) }
}

// build builds a Go program. One that is a module of its own may need the network for it.
func (m *memberBuilds) build(t *testing.T, source string) string {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.made[source] != "" {
		return m.made[source]
	}
	binary := filepath.Join(m.dir, filepath.Base(source))
	if out, err := exec.Command("go", "build", "-C", source, "-o", binary, ".").CombinedOutput(); err != nil {
		if _, own := os.Stat(filepath.Join(source, "go.mod")); own == nil {
			t.Skipf("%s cannot be built here: %v: %.500s", source, err, out)
		}
		t.Fatalf("%s: %v\n%s", source, err, out)
	}
	m.made[source] = binary
	return binary
}

// pythonClients returns a python with the client libraries of members/python/requirements.txt, which are installed once into the
// user's cache folder.
func pythonClients(t *testing.T) string {
	t.Helper()
	wanted, err := os.ReadFile("members/python/requirements.txt")
	if err != nil {
		t.Fatal(err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Skip(err)
	}
	home := filepath.Join(cache, "ottla", fmt.Sprintf("python-%.4x", sha256.Sum256(wanted)))
	python, done := filepath.Join(home, "bin", "python"), filepath.Join(home, "complete")
	if _, err := os.Stat(done); err == nil {
		return python
	}
	for _, args := range [][]string{{"python3", "-m", "venv", "--clear", home}, {python, "-m", "pip", "install", "-q", "-r", "members/python/requirements.txt"}} {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
		cancel()
		if err != nil {
			t.Skipf("no python with its Kafka clients here: %s: %v: %.500s", strings.Join(args, " "), err, out)
		}
	}
	if err := os.WriteFile(done, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return python
}

// groupMember is a running member.
type groupMember struct {
	g      *groupRun
	name   string
	cmd    *exec.Cmd
	stderr bytes.Buffer
	ended  chan struct{}
	ending bool // it was told to end; guarded by g.mu

	// floor are offsets that were committed before this member got the partition: none below them is handled by it. Guarded by
	// g.mu.
	floor [groupPartitions]int64
}

func startMember(g *groupRun, n int) *groupMember {
	instance := "-"
	if g.family.static {
		instance = fmt.Sprint("worker-", n)
	}
	m := &groupMember{g: g, name: fmt.Sprint("member ", n), ended: make(chan struct{})}
	m.cmd = g.command(g.c.BootstrapText(), g.group, g.topic, strconv.FormatInt(memberSession().Milliseconds(), 10), g.family.assignor, instance)
	m.cmd.Stderr = &m.stderr
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		g.t.Fatal(err)
	}
	g.mu.Lock()
	m.floor = g.committed
	g.mu.Unlock()
	if err := m.cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	go func() {
		defer close(m.ended)
		m.read(out)
		_ = m.cmd.Wait()
		g.memberEnded(m)
	}()
	g.t.Cleanup(func() {
		_ = m.cmd.Process.Kill()
		<-m.ended
	})
	return m
}

// read takes the member's lines, see package members.
func (m *groupMember) read(out io.Reader) {
	for lines := bufio.NewScanner(out); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) == 0 {
			continue
		}
		var numbers []int64
		for _, w := range words[1:] {
			n, err := strconv.ParseInt(w, 10, 64)
			if err != nil {
				break
			}
			numbers = append(numbers, n)
		}
		switch {
		case words[0] == "handled" && len(numbers) == 3:
			m.g.handled(m, int32(numbers[0]), numbers[1], int(numbers[2]))
		case words[0] == "committed" && len(numbers) == 2:
			m.g.acknowledged(int32(numbers[0]), numbers[1])
		case words[0] == "assigned":
			m.g.assigned(m, numbers)
		case words[0] == "error":
			m.g.memberError(m, lines.Text())
		}
	}
}

// stop has the member leave, and waits for its end.
func (m *groupMember) stop() {
	m.end(syscall.SIGTERM)
	select {
	case <-m.ended:
	case <-time.After(time.Minute):
		m.g.t.Fatalf("%s does not stop: %.3000s", m.name, m.stderr.String())
	}
}

// kill ends the member without a word.
func (m *groupMember) kill() {
	m.end(syscall.SIGKILL)
	<-m.ended
}

func (m *groupMember) end(s syscall.Signal) {
	m.g.mu.Lock()
	m.ending = true
	m.g.mu.Unlock()
	_ = m.cmd.Process.Signal(s)
}
