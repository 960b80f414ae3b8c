package harness

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ottla/integration/kafka39"
)

// Kind says which program a broker is.
type Kind string

const (
	Ottla Kind = "ottla"
	Kafka Kind = "kafka" // Apache Kafka 3.9
)

// Broker is one broker process, running or not. Its methods fail the test on error.
type Broker struct {
	ID      int
	Kind    Kind
	Address string // host:port of its only listener
	Dir     string // server.properties, log, data
	DataDir string

	t       testing.TB
	process *exec.Cmd
	ended   chan struct{} // closed when process has been reaped
	code    int           // exit code, valid after ended
}

// start runs the process. It does not wait until it serves; see Cluster.WaitRegistered.
func (b *Broker) start() {
	b.t.Helper()
	if b.Running() {
		b.t.Fatalf("broker %d runs already", b.ID)
	}
	cmd, err := b.command()
	if err != nil {
		b.t.Fatal(err)
	}
	out, err := os.OpenFile(b.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		b.t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	// A process group of its own, so that an interrupt at the terminal reaches only the test, which then cleans up.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	ended := make(chan struct{})
	b.process, b.ended = cmd, ended
	go func() {
		_ = cmd.Wait()
		b.code = cmd.ProcessState.ExitCode()
		close(ended)
	}()
}

func (b *Broker) command() (*exec.Cmd, error) {
	file := filepath.Join(b.Dir, "server.properties")
	if b.Kind == Kafka {
		k, err := kafka39.Find()
		if err != nil {
			return nil, err
		}
		return k.Broker(file), nil
	}
	binary, err := Binary()
	if err != nil {
		return nil, err
	}
	return exec.Command(binary, "broker", "--log-format", "kafka", file), nil
}

// Binary returns the path of the program under test: OTTLA_BIN, or one that is built once per test run, with its invariant
// checks on.
var Binary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("OTTLA_BIN"); path != "" {
		return filepath.Abs(path)
	}
	dir, err := os.MkdirTemp("", "ottla-bin")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "ottla")
	out, err := exec.Command("go", "build", "-tags", "invariants", "-o", path, "ottla/cmd/ottla").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the program under test: %w\n%s", err, out)
	}
	builtDir = dir
	return path, nil
})

var builtDir string

// Main runs the tests of a package and removes what Binary built.
func Main(m *testing.M) {
	code := m.Run()
	if builtDir != "" {
		_ = os.RemoveAll(builtDir)
	}
	os.Exit(code)
}

// Running reports whether the process is there (paused or not).
func (b *Broker) Running() bool {
	if b.process == nil {
		return false
	}
	select {
	case <-b.ended:
		return false
	default:
		return true
	}
}

// Start runs the broker again, with its old data.
func (b *Broker) Start() { b.t.Helper(); b.start() }

// Kill ends the broker at once, as kill -9 does, and waits for its end.
func (b *Broker) Kill() {
	b.t.Helper()
	b.signal(syscall.SIGKILL)
	<-b.ended
}

// Terminate asks the broker to stop and waits for its end; it returns the exit code.
func (b *Broker) Terminate() int {
	b.t.Helper()
	b.signal(syscall.SIGTERM)
	select {
	case <-b.ended:
		return b.code
	case <-time.After(time.Minute):
		b.t.Fatalf("broker %d does not stop", b.ID)
		return 0
	}
}

// Pause stops the process from running (SIGSTOP); its connections stay open.
func (b *Broker) Pause() { b.t.Helper(); b.signal(syscall.SIGSTOP) }

// Resume lets a paused process go on.
func (b *Broker) Resume() { b.t.Helper(); b.signal(syscall.SIGCONT) }

// WaitEnd waits until the process ends by itself and returns its exit code.
func (b *Broker) WaitEnd(patience time.Duration) int {
	b.t.Helper()
	select {
	case <-b.ended:
		return b.code
	case <-time.After(patience):
		b.t.Fatalf("broker %d still runs after %v", b.ID, patience)
		return 0
	}
}

// PID is the process' id.
func (b *Broker) PID() int { return b.process.Process.Pid }

func (b *Broker) signal(s syscall.Signal) {
	b.t.Helper()
	if !b.Running() {
		b.t.Fatalf("broker %d does not run\n%s", b.ID, b.LogTail())
	}
	if err := b.process.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		b.t.Fatalf("signal %v to broker %d: %v", s, b.ID, err)
	}
}

// end is for the test's clean-up.
func (b *Broker) end() {
	if !b.Running() {
		return
	}
	_ = b.process.Process.Signal(syscall.SIGKILL)
	<-b.ended
}

// LogFile is where the process' output goes.
func (b *Broker) LogFile() string { return filepath.Join(b.Dir, "log") }

// Log is all that the process has printed, over all its starts.
func (b *Broker) Log() string {
	text, err := os.ReadFile(b.LogFile())
	if err != nil {
		b.t.Fatal(err)
	}
	return string(text)
}

// LogTail is the end of Log.
func (b *Broker) LogTail() string {
	text, _ := os.ReadFile(b.LogFile())
	return string(text[max(0, len(text)-3000):])
}

// SetProperties changes the broker's file; it takes effect at the next start.
func (b *Broker) SetProperties(properties map[string]string) {
	b.t.Helper()
	var text strings.Builder
	for _, key := range slices.Sorted(maps.Keys(properties)) {
		fmt.Fprintf(&text, "%s=%s\n", key, properties[key])
	}
	if err := os.WriteFile(filepath.Join(b.Dir, "server.properties"), []byte(text.String()), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// freePorts asks the kernel for ports that are free now, all at once so that they differ.
func freePorts(t testing.TB, n int) []int {
	t.Helper()
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
