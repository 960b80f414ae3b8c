// Package zkserver starts Apache ZooKeeper servers as processes of this machine: it finds the jars, writes the configuration and
// builds the command. What runs them (tests, the local cluster) owns the processes.
package zkserver

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// mainClass runs one server, standalone or as a member of an ensemble, by its configuration file.
const mainClass = "org.apache.zookeeper.server.quorum.QuorumPeerMain"

// ErrNotFound wraps what Find is missing.
var ErrNotFound = errors.New("ZooKeeper is not installed")

// Installation says how a ZooKeeper server is launched.
type Installation struct {
	Java      string   // the java executable
	Classpath []string // jars and folders, in order
	Origin    string   // where it was found, for people
}

// Find looks for java and ZooKeeper's jars. In this order: ZOOKEEPER_CLASSPATH (a class path; entries may end in /*),
// ZOOKEEPER_HOME (an unpacked release), and the jars of the Debian packages zookeeper or libzookeeper-java.
// The error wraps ErrNotFound and says what to install or to set.
func Find() (Installation, error) {
	java, err := findJava()
	if err != nil {
		return Installation{}, err
	}
	if cp := os.Getenv("ZOOKEEPER_CLASSPATH"); cp != "" {
		return Installation{Java: java, Classpath: filepath.SplitList(cp), Origin: "ZOOKEEPER_CLASSPATH"}, nil
	}
	if home := os.Getenv("ZOOKEEPER_HOME"); home != "" {
		jars, err := releaseJars(home)
		return Installation{Java: java, Classpath: jars, Origin: home}, err
	}
	jars, err := debianJars(debianFolder)
	return Installation{Java: java, Classpath: jars, Origin: debianFolder}, err
}

func findJava() (string, error) {
	if home := os.Getenv("JAVA_HOME"); home != "" {
		java := filepath.Join(home, "bin", "java")
		if _, err := os.Stat(java); err == nil {
			return java, nil
		}
	}
	java, err := exec.LookPath("java")
	if err != nil {
		return "", fmt.Errorf("%w: no java on the PATH and none in JAVA_HOME (on Debian: apt install default-jre-headless)", ErrNotFound)
	}
	return java, nil
}

// releaseJars lists the jars of an unpacked release: lib/*.jar since 3.5.
func releaseJars(home string) ([]string, error) {
	server, _ := filepath.Glob(filepath.Join(home, "lib", "zookeeper-[0-9]*.jar"))
	if len(server) == 0 {
		return nil, fmt.Errorf("%w: ZOOKEEPER_HOME=%s holds no lib/zookeeper-*.jar", ErrNotFound, home)
	}
	return []string{filepath.Join(home, "lib", "*")}, nil
}

const debianFolder = "/usr/share/java"

// debianNames are the jars that a server needs; those marked optional exist only in some releases of the package.
var debianNames = []struct {
	name     string
	optional bool
}{
	{"zookeeper", false}, {"zookeeper-jute", true}, {"slf4j-api", false}, {"slf4j-simple", true},
	{"metrics-core", true}, {"commons-cli", true}, {"snappy-java", true}, {"netty-common", true}, {"netty-buffer", true},
	{"netty-transport", true}, {"netty-handler", true}, {"netty-codec", true}, {"netty-resolver", true}, {"netty-all", true},
}

func debianJars(folder string) ([]string, error) {
	var jars []string
	for _, jar := range debianNames {
		path := filepath.Join(folder, jar.name+".jar")
		_, err := os.Stat(path)
		switch {
		case err == nil:
			jars = append(jars, path)
		case !jar.optional:
			return nil, fmt.Errorf("%w: no %s (on Debian: apt install zookeeper; otherwise set ZOOKEEPER_HOME to an unpacked release)", ErrNotFound, path)
		}
	}
	return jars, nil
}

// Member is one server of an ensemble, as the others know it.
type Member struct {
	ID           int
	Host         string
	PeerPort     int
	ElectionPort int
}

// Config is the configuration of one server. Zero values get the defaults given here.
type Config struct {
	ID           int    // myid; needed when Members are given
	ClientHost   string // address of the client port; "" = 127.0.0.1
	ClientPort   int
	Members      []Member          // the whole ensemble with this server; empty = standalone
	TickMs       int               // 2000; half a tick is the grain of heartbeats and expiry
	InitLimit    int               // ticks to connect and sync to the leader; 20
	SyncLimit    int               // ticks that a follower may lag; 5
	MinSessionMs int               // 0 = ZooKeeper's own, 2 ticks
	MaxSessionMs int               // 0 = ZooKeeper's own, 20 ticks
	HeapMB       int               // 256
	Extra        map[string]string // further properties
}

// Write puts zoo.cfg and data/myid into dir and returns the path of zoo.cfg. Data that is there already stays.
func (c Config) Write(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(data, 0o755); err != nil {
		return "", err
	}
	if len(c.Members) > 0 {
		if err := os.WriteFile(filepath.Join(data, "myid"), []byte(strconv.Itoa(c.ID)), 0o644); err != nil {
			return "", err
		}
	}
	path := filepath.Join(dir, "zoo.cfg")
	return path, os.WriteFile(path, []byte(c.text(data)), 0o644)
}

func (c Config) text(data string) string {
	var b strings.Builder
	line := func(key string, value any) { fmt.Fprintf(&b, "%s=%v\n", key, value) }
	line("dataDir", data)
	line("clientPort", c.ClientPort)
	line("clientPortAddress", orString(c.ClientHost, "127.0.0.1"))
	line("tickTime", orInt(c.TickMs, 2000))
	line("initLimit", orInt(c.InitLimit, 20))
	line("syncLimit", orInt(c.SyncLimit, 5))
	if c.MinSessionMs > 0 {
		line("minSessionTimeout", c.MinSessionMs)
	}
	if c.MaxSessionMs > 0 {
		line("maxSessionTimeout", c.MaxSessionMs)
	}
	line("maxClientCnxns", 0)
	line("admin.enableServer", false)
	line("4lw.commands.whitelist", "*")
	line("autopurge.snapRetainCount", 3)
	line("autopurge.purgeInterval", 24)
	for _, m := range c.Members {
		line("server."+strconv.Itoa(m.ID), fmt.Sprintf("%s:%d:%d", m.Host, m.PeerPort, m.ElectionPort))
	}
	for key, value := range c.Extra {
		line(key, value)
	}
	return b.String()
}

// Command builds the command that runs the server whose zoo.cfg Write returned. It logs warnings to standard error.
func (c Config) Command(in Installation, zooCfg string) *exec.Cmd {
	heap := strconv.Itoa(orInt(c.HeapMB, 256)) + "m"
	return exec.Command(in.Java, "-Xmx"+heap, "-Xms16m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true",
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true",
		"-Dzookeeper.jmx.log4j.disable=true", "-cp", strings.Join(in.Classpath, string(os.PathListSeparator)), mainClass, zooCfg)
}

func orInt(v, otherwise int) int {
	if v == 0 {
		return otherwise
	}
	return v
}

func orString(v, otherwise string) string {
	if v == "" {
		return otherwise
	}
	return v
}
