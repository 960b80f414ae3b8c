// Package kafka39 brings Apache Kafka 3.9 to the tests: its jars through Maven, its broker and its tools through java. The
// tools and clients of Kafka 4.x, which has no ZooKeeper any more, come the same way.
package kafka39

import (
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

var (
	//go:embed pom.xml
	pom []byte
	//go:embed pom4.xml
	pom4 []byte
)

// ErrAbsent wraps what is missing to run Kafka here.
var ErrAbsent = errors.New("Kafka cannot run here")

// Kafka is a set of jars and a java to run them.
type Kafka struct {
	java  string
	home  string            // lib/*.jar, broker.properties and tool.properties (log4j)
	tools map[string]string // classes by the names of their scripts
}

var (
	find  = sync.OnceValues(func() (*Kafka, error) { return bring("kafka39", pom, tools) })
	find4 = sync.OnceValues(func() (*Kafka, error) { return bring("kafka4", pom4, tools4) })
)

// Find returns Kafka 3.9. It is fetched once through Maven into the user's cache folder; without java or mvn the error wraps
// ErrAbsent. OTTLA_TEST_KAFKA=off leaves it out.
func Find() (*Kafka, error) { return find() }

// Find4 returns the tools and clients of Kafka 4.x, as Find does those of 3.9. It has no Broker.
func Find4() (*Kafka, error) { return find4() }

func bring(name string, pom []byte, tools map[string]string) (*Kafka, error) {
	if os.Getenv("OTTLA_TEST_KAFKA") == "off" {
		return nil, fmt.Errorf("%w: OTTLA_TEST_KAFKA=off", ErrAbsent)
	}
	java, err := exec.LookPath("java")
	if err != nil {
		return nil, fmt.Errorf("%w: no java on the PATH", ErrAbsent)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	home := filepath.Join(cache, "ottla", fmt.Sprintf("%s-%.4x", name, sha256.Sum256(pom)))
	if err := os.MkdirAll(home, 0o755); err != nil {
		return nil, err
	}
	unlock, err := lock(filepath.Join(home, "lock")) // test binaries of several packages may come here at once
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := fetchJars(home, pom); err != nil {
		return nil, err
	}
	return &Kafka{java: java, home: home, tools: tools}, writeLogging(home)
}

// fetchJars asks Maven for the jars unless they are there. Each pom has a folder of its own: nothing is taken from under a
// process that runs.
func fetchJars(home string, pom []byte) error {
	done := filepath.Join(home, "complete")
	if _, err := os.Stat(done); err == nil {
		return nil
	}
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return fmt.Errorf("%w: no mvn on the PATH to fetch its jars", ErrAbsent)
	}
	file := filepath.Join(home, "pom.xml")
	lib := filepath.Join(home, "lib")
	if err := errors.Join(os.RemoveAll(lib), os.WriteFile(file, pom, 0o644)); err != nil {
		return err
	}
	out, err := exec.Command(mvn, "-q", "-B", "-f", file, "dependency:copy-dependencies", "-DoutputDirectory="+lib).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: Maven could not fetch its jars: %w: %.500s", ErrAbsent, err, out)
	}
	return os.WriteFile(done, nil, 0o644)
}

const log4j = `log4j.rootLogger=%s, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.Target=System.%s
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=[%%d] %%p %%m (%%c)%%n
`

func writeLogging(home string) error {
	return errors.Join(
		os.WriteFile(filepath.Join(home, "broker.properties"), fmt.Appendf(nil, log4j, "INFO", "out"), 0o644),
		os.WriteFile(filepath.Join(home, "tool.properties"), fmt.Appendf(nil, log4j, "ERROR", "err"), 0o644),
	)
}

func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// Broker is the command of a broker with this properties file.
func (k *Kafka) Broker(properties string) *exec.Cmd {
	return k.command("broker.properties", "384m", "kafka.Kafka", properties)
}

// ProductionBroker is Broker with the heap and the collector that Kafka's own scripts choose: for measurements.
func (k *Kafka) ProductionBroker(properties string) *exec.Cmd {
	return exec.Command(k.java,
		"-Xmx1G", "-Xms1G", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
		"-XX:+ExplicitGCInvokesConcurrent", "-XX:MaxInlineLevel=15", "-Djava.awt.headless=true",
		"-Dlog4j.configuration=file:"+filepath.Join(k.home, "broker.properties"), "-cp", filepath.Join(k.home, "lib", "*"),
		"kafka.Kafka", properties)
}

// tools are Kafka's scripts and the classes behind them.
var tools = map[string]string{
	"kafka-topics":               "org.apache.kafka.tools.TopicCommand",
	"kafka-configs":              "kafka.admin.ConfigCommand",
	"kafka-acls":                 "kafka.admin.AclCommand",
	"kafka-consumer-groups":      "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
	"kafka-console-producer":     "kafka.tools.ConsoleProducer",
	"kafka-console-consumer":     "org.apache.kafka.tools.consumer.ConsoleConsumer",
	"kafka-get-offsets":          "org.apache.kafka.tools.GetOffsetShell",
	"kafka-delete-records":       "org.apache.kafka.tools.DeleteRecordsCommand",
	"kafka-reassign-partitions":  "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
	"kafka-leader-election":      "org.apache.kafka.tools.LeaderElectionCommand",
	"kafka-log-dirs":             "org.apache.kafka.tools.LogDirsCommand",
	"kafka-replica-verification": "org.apache.kafka.tools.ReplicaVerificationTool",
	"kafka-broker-api-versions":  "kafka.admin.BrokerApiVersionsCommand",
	"kafka-verifiable-producer":  "org.apache.kafka.tools.VerifiableProducer",
	"kafka-verifiable-consumer":  "org.apache.kafka.tools.VerifiableConsumer",
	"kafka-producer-perf-test":   "org.apache.kafka.tools.ProducerPerformance",
	"kafka-consumer-perf-test":   "org.apache.kafka.tools.ConsumerPerformance",
	"kafka-e2e-latency":          "org.apache.kafka.tools.EndToEndLatency",
	"kafka-dump-log":             "kafka.tools.DumpLogSegments",
	"kafka-transactions":         "org.apache.kafka.tools.TransactionsCommand",
	"transactional-copier":       "org.apache.kafka.tools.TransactionalMessageCopier",
	"connect-standalone":         "org.apache.kafka.connect.cli.ConnectStandalone",
	"connect-distributed":        "org.apache.kafka.connect.cli.ConnectDistributed",
	"connect-mirror-maker":       "org.apache.kafka.connect.mirror.MirrorMaker",
	"zookeeper-shell":            "org.apache.zookeeper.ZooKeeperMainWithTlsSupportForKafka",
}

// tools4 are those of Kafka 4.x that the tests use.
var tools4 = map[string]string{
	"kafka-topics":              "org.apache.kafka.tools.TopicCommand",
	"kafka-configs":             "org.apache.kafka.tools.ConfigCommand",
	"kafka-consumer-groups":     "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
	"kafka-console-producer":    "org.apache.kafka.tools.ConsoleProducer",
	"kafka-console-consumer":    "org.apache.kafka.tools.consumer.ConsoleConsumer",
	"kafka-broker-api-versions": "org.apache.kafka.tools.BrokerApiVersionsCommand",
	"kafka-verifiable-producer": "org.apache.kafka.tools.VerifiableProducer",
	"kafka-verifiable-consumer": "org.apache.kafka.tools.VerifiableConsumer",
	"kafka-producer-perf-test":  "org.apache.kafka.tools.ProducerPerformance",
	"kafka-consumer-perf-test":  "org.apache.kafka.tools.ConsumerPerformance",
	"kafka-e2e-latency":         "org.apache.kafka.tools.EndToEndLatency",
}

// Tool is the command of one of Kafka's tools, by its script's name.
func (k *Kafka) Tool(name string, args ...string) *exec.Cmd {
	class, ok := k.tools[name]
	if !ok {
		panic("kafka39: no tool called " + name)
	}
	return k.command("tool.properties", "256m", class, args...)
}

// Source is the command of a Java source file with a main method, with Kafka's jars at hand. It needs a JDK, not only a JRE.
func (k *Kafka) Source(file string, args ...string) *exec.Cmd {
	return k.command("tool.properties", "256m", file, args...)
}

// Plugins is the folder of the jars, for plugin.path of Connect.
func (k *Kafka) Plugins() string { return filepath.Join(k.home, "lib") }

func (k *Kafka) command(logging, heap, class string, args ...string) *exec.Cmd {
	all := []string{
		"-Xmx" + heap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true",
		"-Dlog4j.configuration=file:" + filepath.Join(k.home, logging),
		"-cp", filepath.Join(k.home, "lib", "*"), class,
	}
	return exec.Command(k.java, append(all, args...)...)
}

// Version is the version of Kafka 3.9, as in the pom.
func Version() string { return version(pom) }

// Version4 is the version of Kafka 4.x.
func Version4() string { return version(pom4) }

func version(pom []byte) string {
	_, after, _ := strings.Cut(string(pom), "<kafka.version>")
	version, _, _ := strings.Cut(after, "<")
	return version
}
