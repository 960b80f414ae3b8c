package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/urfave/cli/v2"

	"ottla/internal/localcluster"
	"ottla/internal/zkserver"
)

func upCommand() *cli.Command {
	return command(&cli.Command{
		Name:  "up",
		Usage: "start a whole cluster on this machine",
		Description: `ZooKeeper servers and brokers run as processes of their own and go on after this command ends.
A second 'ottla up' starts what does not run and finds the data again.

  ottla up
  ottla up --brokers 1 --zookeepers 1 --dir /tmp/small
  ottla up --zookeeper zk1:2181,zk2:2181/kafka
  ottla up --follow`,
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "brokers", Value: 3, Usage: "how many brokers"},
			&cli.IntFlag{Name: "zookeepers", Value: 3, Usage: "how many ZooKeeper servers"},
			&cli.StringFlag{Name: "zookeeper", Usage: "use the ensemble at `HOST:PORT,…[/chroot]` instead of starting one"},
			&cli.StringFlag{Name: "dir", EnvVars: []string{"OTTLA_DIR"}, Value: defaultDir, Usage: "`FOLDER` for configuration, data and logs"},
			&cli.IntFlag{Name: "port", Value: 9092, Usage: "port of the first broker"},
			&cli.IntFlag{Name: "zookeeper-port", Value: 2181, Usage: "port of the first ZooKeeper server"},
			&cli.BoolFlag{Name: "follow", Usage: "show the brokers' logs until interrupted, then stop the cluster"},
			&cli.DurationFlag{Name: "timeout", Value: 90 * time.Second, Usage: "give up when the cluster is not ready after this long"},
		},
		Action: up,
	})
}

func up(c *cli.Context) error {
	spec := localcluster.Spec{
		Brokers: c.Int("brokers"), ZooKeepers: c.Int("zookeepers"), Port: c.Int("port"),
		ZooKeeperPort: c.Int("zookeeper-port"), ZooKeeper: c.String("zookeeper"),
	}
	if spec.ZooKeeper != "" {
		spec.ZooKeepers = 0
	} else if spec.ZooKeepers < 1 {
		return usagef("--zookeepers %d: at least one is needed, or name an ensemble with --zookeeper", spec.ZooKeepers)
	}
	if spec.Brokers < 1 {
		return usagef("--brokers %d: at least one is needed", spec.Brokers)
	}
	began := time.Now()
	out := c.App.Writer
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
	defer cancel()
	cluster, err := localcluster.Create(c.String("dir"), spec)
	if err != nil {
		return err
	}
	if spec.ZooKeepers > 0 {
		in, err := findZooKeeper(ctx, c.App.ErrWriter)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "starting %s … ", oneOrMore(spec.ZooKeepers, "ZooKeeper server"))
		if err := cluster.StartZooKeepers(ctx, in); err != nil {
			return err
		}
		fmt.Fprintln(out, "serving at", cluster.Connect())
	}
	program, err := executable()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "starting %s … ", oneOrMore(spec.Brokers, "broker"))
	if err := cluster.StartBrokers(program); err != nil {
		return err
	}
	m, err := awaitCluster(ctx, cluster)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "serving at %s, controller is broker %d (%.1f s)\n\n", cluster.Bootstrap(), m.ControllerID, time.Since(began).Seconds())
	if names := topicNames(m); len(names) > 0 {
		fmt.Fprintf(out, "Found again: %s\n\n", strings.Join(names, ", "))
	}
	hints(out, cluster, c.String("dir"))
	if c.Bool("follow") {
		return follow(c, cluster)
	}
	return nil
}

// findZooKeeper finds ZooKeeper, and installs Debian's package where that is possible.
func findZooKeeper(ctx context.Context, out io.Writer) (zkserver.Installation, error) {
	in, err := zkserver.Find()
	if err == nil || !errors.Is(err, zkserver.ErrNotFound) {
		return in, err
	}
	if _, apt := exec.LookPath("apt-get"); apt != nil || os.Getuid() != 0 {
		return in, err
	}
	fmt.Fprintln(out, "ZooKeeper is not installed; installing Debian's packages (apt-get install zookeeper default-jre-headless) …")
	install := exec.CommandContext(ctx, "sh", "-c", "apt-get update -q && apt-get install -y -q --no-install-recommends zookeeper default-jre-headless")
	install.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if text, err := install.CombinedOutput(); err != nil {
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		return in, fmt.Errorf("apt-get could not install ZooKeeper: %s", lines[len(lines)-1])
	}
	return zkserver.Find()
}

// awaitCluster waits until every broker answers, and knows all of them and a controller.
func awaitCluster(ctx context.Context, cluster *localcluster.Cluster) (*kmsg.MetadataResponse, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(cluster.Bootstrap(), ",")...), kgo.RequestRetries(0), kgo.DialTimeout(time.Second))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	began := time.Now()
	for {
		ready, last := 0, &kmsg.MetadataResponse{}
		for _, broker := range cl.SeedBrokers() {
			req := kmsg.NewPtrMetadataRequest()    // of all topics
			m, err := req.RequestWith(ctx, broker) // asked of each by itself: the client library's own metadata is cached
			if err == nil && len(m.Brokers) >= cluster.Spec.Brokers && m.ControllerID >= 0 {
				ready, last = ready+1, m
			}
		}
		if ready == cluster.Spec.Brokers {
			return last, nil
		}
		for _, p := range cluster.Brokers() {
			if _, ok := p.PID(); !ok && time.Since(began) > startGrace {
				return nil, fmt.Errorf("%s has ended: %s (its output is in %s)", p.Name, lastLine(p.Log()), p.Log())
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("the cluster is not ready: %d of %d brokers know all the others; see %s", ready, cluster.Spec.Brokers, filepath.Join(cluster.Dir, "broker-*", "log"))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// topicNames are the topics that were there before, at most so many that a line can hold.
func topicNames(m *kmsg.MetadataResponse) []string {
	const most = 10
	var names []string
	for _, t := range m.Topics {
		if t.Topic != nil && !t.IsInternal {
			names = append(names, *t.Topic)
		}
	}
	slices.Sort(names)
	if len(names) > most {
		return append(names[:most], fmt.Sprintf("and %d more topics", len(names)-most))
	}
	return names
}

// startGrace is how long a broker's parent may take to note the broker's pid.
const startGrace = 2 * time.Second

func lastLine(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}

// hints prints what to try next; every line works as it stands.
func hints(out io.Writer, cluster *localcluster.Cluster, dir string) {
	flag := ""
	if dir != defaultDir {
		flag = " --dir " + dir
	}
	zk := strings.Split(cluster.Connect(), ",")[0]
	fmt.Fprintf(out, "Try:\n")
	lines := []string{
		"bin/ottla status" + flag,
		"bin/ottla topics list" + flag,
		"kcat -b " + cluster.Bootstrap() + " -L",
		zkCli() + " -server " + zk + " get /controller",
		"bin/ottla down" + flag,
	}
	if admin := cluster.Brokers()[0].Admin(); admin != "" {
		lines = slices.Insert(lines, 2, "curl -s "+admin+"/metrics")
	}
	for _, line := range lines {
		fmt.Fprintln(out, "  "+line)
	}
}

// zkCli is how ZooKeeper's own shell is called here: Debian does not put it on the PATH.
func zkCli() string {
	for _, name := range []string{"zkCli.sh", "zkCli"} {
		if _, err := exec.LookPath(name); err == nil {
			return name
		}
	}
	if _, err := os.Stat("/usr/share/zookeeper/bin/zkCli.sh"); err == nil {
		return "/usr/share/zookeeper/bin/zkCli.sh"
	}
	return "zkCli.sh"
}

// follow shows the brokers' logs until the person has seen enough, and then ends the cluster.
func follow(c *cli.Context, cluster *localcluster.Cluster) error {
	args := []string{"-n", "0", "-F"}
	for _, p := range cluster.Brokers() {
		args = append(args, p.Log())
	}
	tail := exec.CommandContext(c.Context, "tail", args...)
	tail.Stdout = c.App.Writer
	_ = tail.Run() // ends with the interrupt
	_, err := cluster.Stop(context.Background(), stopPatience)
	return err
}

const stopPatience = 30 * time.Second

func downCommand() *cli.Command {
	return command(&cli.Command{
		Name:  "down",
		Usage: "stop the local cluster; its data stays",
		Description: `  ottla down
  ottla down --dir /tmp/small`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dir", EnvVars: []string{"OTTLA_DIR"}, Value: defaultDir, Usage: "`FOLDER` of the cluster"},
		},
		Action: func(c *cli.Context) error {
			cluster, err := localcluster.Open(c.String("dir"))
			if errors.Is(err, localcluster.ErrNone) {
				fmt.Fprintln(c.App.Writer, "nothing runs here")
				return nil
			}
			if err != nil {
				return err
			}
			ended, err := cluster.Stop(c.Context, stopPatience)
			if err != nil {
				return err
			}
			if len(ended) == 0 {
				fmt.Fprintln(c.App.Writer, "nothing runs here")
				return nil
			}
			fmt.Fprintf(c.App.Writer, "stopped %s; the data stays in %s\n", strings.Join(ended, ", "), cluster.Dir)
			return nil
		},
	})
}

func statusCommand() *cli.Command {
	return command(&cli.Command{
		Name:  "status",
		Usage: "show brokers, controller, topics and processes",
		Description: `  ottla status
  ottla status --bootstrap kafka1:9092 --json`,
		Flags:  clientFlags(jsonFlag()),
		Action: status,
	})
}

type statusReport struct {
	Cluster    string          `json:"cluster"`
	Controller int32           `json:"controller"`
	Brokers    []statusBroker  `json:"brokers"`
	Topics     []statusTopic   `json:"topics"`
	Processes  []statusProcess `json:"processes,omitempty"`
}

type statusBroker struct {
	ID      int32  `json:"id"`
	Address string `json:"address"`
	Rack    string `json:"rack,omitempty"`
	Leads   int    `json:"leads"`
}

type statusTopic struct {
	Name            string `json:"name"`
	Partitions      int    `json:"partitions"`
	Replicas        int    `json:"replicas"`
	UnderReplicated int    `json:"underReplicated"`
	Offline         int    `json:"offline"`
}

type statusProcess struct {
	Name string `json:"name"`
	PID  int    `json:"pid,omitempty"`
	Log  string `json:"log"`
}

func status(c *cli.Context) error {
	var report statusReport
	if local, err := localcluster.Open(c.String("dir")); err == nil && c.String("bootstrap") == "" {
		for _, p := range append(local.ZooKeepers(), local.Brokers()...) {
			pid, _ := p.PID()
			report.Processes = append(report.Processes, statusProcess{p.Name, pid, p.Log()})
		}
	}
	adm, err := admin(c)
	if err != nil {
		return err
	}
	defer adm.Close()
	m, err := adm.Metadata(c.Context)
	if err != nil {
		return fmt.Errorf("the brokers do not describe the cluster: %s", cause(err))
	}
	report.fill(m)
	if c.Bool("json") {
		return printJSON(c.App.Writer, report)
	}
	report.print(c.App.Writer)
	return nil
}

func (r *statusReport) fill(m kadm.Metadata) {
	r.Cluster, r.Controller = m.Cluster, m.Controller
	leads := map[int32]int{}
	for _, t := range m.Topics.Sorted() {
		st := statusTopic{Name: t.Topic, Partitions: len(t.Partitions), Replicas: t.Partitions.NumReplicas()}
		for _, p := range t.Partitions {
			leads[p.Leader]++
			if p.Leader < 0 {
				st.Offline++
			}
			if len(p.ISR) < len(p.Replicas) {
				st.UnderReplicated++
			}
		}
		r.Topics = append(r.Topics, st)
	}
	for _, b := range m.Brokers {
		sb := statusBroker{ID: b.NodeID, Address: b.Host + ":" + strconv.Itoa(int(b.Port)), Leads: leads[b.NodeID]}
		if b.Rack != nil {
			sb.Rack = *b.Rack
		}
		r.Brokers = append(r.Brokers, sb)
	}
}

func (r *statusReport) print(out io.Writer) {
	fmt.Fprintf(out, "cluster %s\n\n", r.Cluster)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "BROKER\tADDRESS\tLEADS\tROLE")
	for _, b := range r.Brokers {
		role := ""
		if b.ID == r.Controller {
			role = "controller"
		}
		fmt.Fprintf(w, "%d\t%s\t%d\t%s\n", b.ID, b.Address, b.Leads, role)
	}
	fmt.Fprintln(w, "\nTOPIC\tPARTITIONS\tREPLICAS\tHEALTH")
	for _, t := range r.Topics {
		health := "ok"
		switch {
		case t.Offline > 0:
			health = fmt.Sprintf("%d without leader", t.Offline)
		case t.UnderReplicated > 0:
			health = fmt.Sprintf("%d under-replicated", t.UnderReplicated)
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\n", t.Name, t.Partitions, t.Replicas, health)
	}
	if len(r.Topics) == 0 {
		fmt.Fprintln(w, "(none)\t\t\t")
	}
	if len(r.Processes) > 0 {
		fmt.Fprintln(w, "\nPROCESS\tPID\tLOG\t")
	}
	for _, p := range r.Processes {
		pid := "not running"
		if p.PID > 0 {
			pid = strconv.Itoa(p.PID)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t\n", p.Name, pid, p.Log)
	}
	_ = w.Flush()
}
