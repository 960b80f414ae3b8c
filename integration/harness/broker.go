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
	// Supervised brokers are run by 'ottla supervise', which removes the registration of one that was killed. It takes effect at
	// the next start, for Ottla only.
	Supervised bool

	t          testing.TB
	network    Network // nil = the loopback
	production bool    // see Options
	program    string  // see Options
	parent     bool    // process is the supervisor, the broker is its child
	process    *exec.Cmd
	ended      chan struct{} // closed when process has been reaped
	code       int           // exit code, valid after ended
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
	// A process group of its own, so that an interrupt at the terminal reaches only the test, which then cleans up; and no broker
	// outlives a test that was killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := b.launch(cmd); err != nil {
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
		if b.production {
			return k.ProductionBroker(file), nil
		}
		return k.Broker(file), nil
	}
	binary, err := b.program, error(nil)
	if binary == "" {
		binary, err = Binary()
	}
	if err != nil {
		return nil, err
	}
	if b.Supervised {
		return exec.Command(binary, "supervise", "--pid-file", b.pidFile(), "--log-format", "kafka", "--log-level", logLevel(), file), nil
	}
	return exec.Command(binary, "broker", "--log-format", "kafka", "--log-level", logLevel(), file), nil
}

// launch starts the command on the broker's machine.
func (b *Broker) launch(cmd *exec.Cmd) error {
	b.parent = b.Supervised && b.Kind == Ottla
	_ = os.Remove(b.pidFile())
	if b.network == nil {
		return cmd.Start()
	}
	return b.network.Start(b.Machine(), cmd)
}

// Machine is the broker's name in the cluster's Network.
func (b *Broker) Machine() string { return fmt.Sprint("broker-", b.ID) }

func (b *Broker) pidFile() string { return filepath.Join(b.Dir, "pid") }

// KillWithParent ends the broker and its supervisor at once, so that nobody removes its registration, and waits for their end.
func (b *Broker) KillWithParent() {
	b.t.Helper()
	child := b.PID()
	_ = syscall.Kill(-b.process.Process.Pid, syscall.SIGKILL)
	<-b.ended
	for syscall.Kill(child, 0) == nil { // an orphan is reaped by the first process of the machine
		time.Sleep(time.Millisecond)
	}
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

// Stop asks the broker to stop and does not wait.
func (b *Broker) Stop() { b.t.Helper(); b.signal(syscall.SIGTERM) }

// Ended waits for the end of the process and returns its exit code; ok is false if it still runs after that time.
func (b *Broker) Ended(patience time.Duration) (code int, ok bool) {
	select {
	case <-b.ended:
		return b.code, true
	case <-time.After(patience):
		return 0, false
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

// PID is the id of the broker's own process, also when a supervisor runs it.
func (b *Broker) PID() int {
	if !b.parent {
		return b.process.Process.Pid
	}
	var pid int
	Eventually(b.t, 5*time.Second, fmt.Sprintf("the supervisor of broker %d starts it", b.ID), func() error {
		text, err := os.ReadFile(b.pidFile())
		if err != nil {
			return err
		}
		pid, err = strconv.Atoi(string(text))
		return err
	})
	return pid
}

func (b *Broker) signal(s syscall.Signal) {
	b.t.Helper()
	if !b.Running() {
		b.t.Fatalf("broker %d does not run\n%s", b.ID, b.LogTail())
	}
	if err := syscall.Kill(b.PID(), s); err != nil && !errors.Is(err, syscall.ESRCH) {
		b.t.Fatalf("signal %v to broker %d: %v", s, b.ID, err)
	}
}

// end is for the test's clean-up.
func (b *Broker) end() {
	if !b.Running() {
		return
	}
	_ = syscall.Kill(-b.process.Process.Pid, syscall.SIGKILL) // its whole group
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

// ChangeProperties changes some properties of the broker's file; it takes effect at the next start.
func (b *Broker) ChangeProperties(properties map[string]string) {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join(b.Dir, "server.properties"))
	if err != nil {
		b.t.Fatal(err)
	}
	all := map[string]string{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		all[key] = value
	}
	maps.Copy(all, properties)
	b.SetProperties(all)
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// logLevel is how much the program under test logs: OTTLA_TEST_LOG_LEVEL, else info.
func logLevel() string {
	if level := os.Getenv("OTTLA_TEST_LOG_LEVEL"); level != "" {
		return level
	}
	return "info"
}
