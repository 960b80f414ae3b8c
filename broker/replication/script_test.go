package replication

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/internal/cluster"
)

var update = flag.Bool("update", false, "rewrite the expected output of the scenarios")

// TestScenarios runs the stories in testdata: commands, a line of four dashes, what happened, an empty line. Lines that begin
// with # are comments. See newScript for the commands.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			require.NoError(t, err)
			got := newScript().run(string(raw))
			if *update {
				require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
				return
			}
			require.Equal(t, string(raw), got)
		})
	}
}

type script struct {
	s        *State
	env      Env
	dead     map[cluster.BrokerID]bool
	proposed *Proposal
	waits    []Wait
	session  Session
	own      epochTable // of a follower
	out      strings.Builder
}

func newScript() *script {
	sc := &script{dead: map[cluster.BrokerID]bool{}}
	sc.env = Env{LagMax: 30 * time.Second, MinISR: 1, Alive: func(id cluster.BrokerID) bool { return !sc.dead[id] }}
	return sc
}

func (sc *script) run(text string) string {
	lines := bufio.NewScanner(strings.NewReader(text))
	inOutput := false
	for lines.Scan() {
		line := lines.Text()
		switch {
		case line == "----":
			inOutput = true
		case line == "":
			inOutput = false
			sc.out.WriteString("\n")
		case inOutput:
		case strings.HasPrefix(line, "#"):
			sc.out.WriteString(line + "\n")
		default:
			sc.out.WriteString(line + "\n----\n" + sc.command(line))
		}
	}
	return sc.out.String()
}

type args map[string]string

func (a args) has(k string) bool { _, ok := a[k]; return ok }

func (a args) num(k string, missing int64) int64 {
	if !a.has(k) {
		return missing
	}
	n, err := strconv.ParseInt(a[k], 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func (a args) brokers(k string) []cluster.BrokerID {
	var out []cluster.BrokerID
	for _, f := range strings.Split(a[k], ",") {
		n, err := strconv.Atoi(f)
		if err != nil {
			panic(err)
		}
		out = append(out, cluster.BrokerID(n))
	}
	return out
}

// command runs one line: a verb and key=value arguments.
func (sc *script) command(line string) string {
	fields := strings.Fields(line)
	a := args{}
	for _, f := range fields[1:] {
		k, v, _ := strings.Cut(f, "=")
		a[k] = v
	}
	switch fields[0] {
	case "new": // self= end= hw=: a replica that has just opened its log
		sc.s = NewState(cluster.BrokerID(a.num("self", 1)), 0, a.num("end", 0), a.num("hw", 0))
		return sc.status()
	case "env": // minisr= after= dead= alive=: what is known outside
		return sc.setEnv(a)
	case "decide": // leader= epoch= version= isr= replicas= unclean: a decision of the controller
		return sc.decide(a)
	case "append": // to=: the log now ends there
		return sc.moved(sc.s.SetEnds(a.num("to", 0), a.num("to", 0), sc.env), nil)
	case "fetch": // from= epoch= offset= registration= session
		return sc.fetch(a)
	case "touch": // the session fetched and named nothing
		sc.session.Touch(sc.env.Now)
		return sc.status()
	case "check": // the periodic look
		m, quiet := sc.s.Check(sc.env)
		if quiet {
			return "nothing more to check\n" + sc.moved(m, nil)
		}
		return sc.moved(m, nil)
	case "answer": // ok | error=: the controller's answer to the last proposal; isr= version= retried controller=
		return sc.answer(a)
	case "adopt": // leader= epoch= isr= version=: what the state znode holds
		o, m := sc.s.Adopt(cluster.BrokerID(a.num("leader", 0)), Answer{
			LeaderEpoch: cluster.LeaderEpoch(a.num("epoch", 0)), ISR: a.brokers("isr"), PartitionEpoch: cluster.PartitionEpoch(a.num("version", 0)),
		}, sc.env)
		return outcomes[o] + "\n" + sc.moved(m, nil)
	case "wait": // end=: an acks=all append waits
		sc.waits = append(sc.waits, Wait{End: a.num("end", 0), Epoch: sc.s.LeaderEpoch()})
		return sc.status()
	case "standdown":
		return fmt.Sprintf("led: %v\n", sc.s.StandDown()) + sc.status()
	case "history": // epoch:start,… end=: a follower's log
		sc.own = parseHistory(a["epochs"], a.num("end", 0))
		return ""
	case "diverging": // epoch= end= hw=: what the leader said
		cut := TruncateOnDivergence(sc.own, sc.own.end, a.num("hw", 0), EpochEnd{cluster.LeaderEpoch(a.num("epoch", 0)), a.num("end", 0)})
		sc.own = sc.own.truncated(cut.Offset)
		return fmt.Sprintf("cut to %d, ask again: %v, below the high watermark: %v; last epoch %d\n", cut.Offset, cut.Again, cut.Committed, sc.own.last())
	case "asked": // epochs= end= offset= last=: what a leader with this history answers
		d, err := Divergence(parseHistory(a["epochs"], a.num("end", 0)), a.num("offset", 0), cluster.LeaderEpoch(a.num("last", -1)))
		switch {
		case err != nil:
			return name(err) + "\n"
		case d == nil:
			return "no divergence\n"
		}
		return fmt.Sprintf("diverging: epoch %d ends at %d\n", d.Epoch, d.EndOffset)
	}
	panic("unknown command " + fields[0])
}

var outcomes = map[Outcome]string{
	Ignored: "ignored", Committed: "committed", RolledBack: "rolled back", Unsettled: "unsettled", Resend: "send again",
}

func (sc *script) setEnv(a args) string {
	if a.has("minisr") {
		sc.env.MinISR = int(a.num("minisr", 1))
	}
	if a.has("after") {
		d, err := time.ParseDuration(a["after"])
		if err != nil {
			panic(err)
		}
		sc.env.Now = sc.env.Now.Add(d)
	}
	if a.has("dead") {
		sc.dead[cluster.BrokerID(a.num("dead", 0))] = true
	}
	if a.has("alive") {
		delete(sc.dead, cluster.BrokerID(a.num("alive", 0)))
	}
	return ""
}

func (sc *script) decide(a args) string {
	c := Change{
		Leader: cluster.BrokerID(a.num("leader", -1)), LeaderEpoch: cluster.LeaderEpoch(a.num("epoch", 0)),
		PartitionEpoch: cluster.PartitionEpoch(a.num("version", 0)), ISR: a.brokers("isr"), Replicas: a.brokers("replicas"),
	}
	if a.has("unclean") {
		c.Recovery = cluster.Recovering
	}
	skip, err := sc.s.Admit(c)
	switch {
	case err != nil:
		return name(err) + "\n"
	case skip:
		return "skipped\n"
	case c.Leader != sc.s.self:
		sc.s.BecomeFollower(c)
		return sc.status()
	}
	return sc.moved(sc.s.BecomeLeader(c, sc.s.LogEnd(), sc.s.LogEnd(), sc.env), nil)
}

func (sc *script) fetch(a args) string {
	f := Fetch{
		Replica: cluster.BrokerID(a.num("from", 0)), Incarnation: cluster.BrokerEpoch(a.num("registration", -1)),
		Epoch: cluster.LeaderEpoch(a.num("epoch", 0)), Offset: a.num("offset", 0),
	}
	if a.has("session") {
		f.Session = &sc.session
		sc.session.Touch(sc.env.Now)
	}
	return sc.moved(sc.s.RecordFetch(f, sc.env))
}

func (sc *script) answer(a args) string {
	ans := Answer{LeaderEpoch: sc.s.LeaderEpoch(), PartitionEpoch: sc.s.PartitionEpoch() + 1,
		Controller: cluster.ControllerEpoch(a.num("controller", 0)), Retried: a.has("retried")}
	if a.has("error") {
		ans.Err = kerr.ErrorForCode(int16(a.num("error", 0)))
	} else {
		for _, m := range sc.proposed.ISR {
			ans.ISR = append(ans.ISR, m.Broker)
		}
	}
	o, m := sc.s.Answered(*sc.proposed, ans, sc.env)
	return outcomes[o] + "\n" + sc.moved(m, nil)
}

func (sc *script) moved(m Moved, err error) string {
	if err != nil {
		return name(err) + "\n"
	}
	out := ""
	if m.Propose != nil {
		sc.proposed = m.Propose
		out += fmt.Sprintf("propose %v at version %d", m.Propose.ISR, m.Propose.PartitionEpoch)
		if m.Propose.LastMember {
			out += ", flush first"
		}
		out += "\n"
	}
	kept := sc.waits[:0]
	for _, w := range sc.waits {
		over, err := sc.s.Acknowledged(w, sc.env)
		switch {
		case !over:
			kept = append(kept, w)
		default:
			out += fmt.Sprintf("append up to %d of epoch %d: %s\n", w.End, w.Epoch, name(err))
		}
	}
	sc.waits = kept
	return out + sc.status()
}

func name(err error) string {
	var k *kerr.Error
	switch {
	case err == nil:
		return "NONE"
	case errors.As(err, &k):
		return k.Message
	}
	return err.Error()
}

func (sc *script) status() string {
	s := sc.s
	out := fmt.Sprintf("%v epoch %d, end %d, high watermark %d", s.Role(), s.LeaderEpoch(), s.LogEnd(), s.HighWatermark())
	if s.Role() == Leader {
		out += fmt.Sprintf(", isr %v", s.ISR())
		if s.PendingISR() != nil {
			out += fmt.Sprintf(" pending %v", s.PendingISR())
		}
		if !s.EndKnown() {
			out += ", end not known yet"
		}
	}
	if err := s.Verify(); err != nil {
		out += " " + err.Error()
	}
	return out + "\n"
}

// epochTable is a log's history, for tests.
type epochTable struct {
	entries [][2]int64 // epoch, start
	end     int64
}

func parseHistory(text string, end int64) epochTable {
	t := epochTable{end: end}
	for _, f := range strings.Split(text, ",") {
		e, s, _ := strings.Cut(f, ":")
		epoch, err1 := strconv.ParseInt(e, 10, 64)
		start, err2 := strconv.ParseInt(s, 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			panic(err)
		}
		t.entries = append(t.entries, [2]int64{epoch, start})
	}
	return t
}

func (t epochTable) last() int64 {
	if len(t.entries) == 0 {
		return -1
	}
	return t.entries[len(t.entries)-1][0]
}

func (t epochTable) truncated(to int64) epochTable {
	out := epochTable{end: min(t.end, to)}
	for _, e := range t.entries {
		if e[1] < to {
			out.entries = append(out.entries, e)
		}
	}
	return out
}

func (t epochTable) EndOffsetForEpoch(e cluster.LeaderEpoch) (cluster.LeaderEpoch, int64) {
	n := len(t.entries)
	switch {
	case n == 0 || int64(e) > t.last():
		return -1, -1
	case int64(e) == t.last():
		return e, t.end
	case int64(e) < t.entries[0][0]:
		return e, t.entries[0][1]
	}
	for i := n - 2; i >= 0; i-- {
		if t.entries[i][0] <= int64(e) {
			return cluster.LeaderEpoch(t.entries[i][0]), t.entries[i+1][1]
		}
	}
	return -1, -1
}
