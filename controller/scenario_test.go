package controller

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/internal/cluster"
	"ottla/zkcoord"
)

var update = flag.Bool("update", false, "rewrite the expected parts of testdata/*.txt")

// TestScenarios runs the stories in testdata: a command, ----, what came of it. Lines that start with # are comments.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			script, err := os.ReadFile(file)
			require.NoError(t, err)
			var got []byte
			synctest.Test(t, func(t *testing.T) { got = runScript(t, script) })
			if *update {
				require.NoError(t, os.WriteFile(file, got, 0o644))
				return
			}
			require.Equal(t, string(script), string(got))
		})
	}
}

// runScript returns the script with what the commands gave.
func runScript(t *testing.T, script []byte) []byte {
	var out bytes.Buffer
	s := &story{w: newWorld(t, nil)}
	expected := false
	for sc := bufio.NewScanner(bytes.NewReader(script)); sc.Scan(); {
		line := sc.Text()
		switch {
		case strings.HasPrefix(line, "#"):
			expected = false
			out.WriteString(line + "\n")
		case line == "":
			if expected || out.Len() > 0 && !bytes.HasSuffix(out.Bytes(), []byte("\n\n")) {
				out.WriteByte('\n')
			}
			expected = false
		case line == "----":
			expected = true
		case expected:
		default:
			out.WriteString(line + "\n----\n" + s.run(strings.Fields(line)))
		}
	}
	s.w.close()
	return append(bytes.TrimRight(out.Bytes(), "\n"), '\n')
}

// story runs the commands of one script.
type story struct{ w *world }

func (s *story) run(f []string) string {
	result := s.do(f)
	synctest.Wait()
	return result
}

func (s *story) do(f []string) string {
	w := s.w
	switch f[0] {
	case "start": // start 1 2 3: broker processes
		for _, arg := range f[1:] {
			w.start(brokerArg(arg), "")
			synctest.Wait()
		}
		return ""
	case "members": // members 3: brokers that follow only, when they start
		w.members = map[cluster.BrokerID]bool{}
		for _, arg := range f[1:] {
			w.members[brokerArg(arg)] = true
		}
		return ""
	case "kill": // kill 1: the process and its session end
		w.kill(brokerArg(f[1]))
		return ""
	case "kill-both": // kill-both 1 2: seen as one change
		w.controller().ctrl.queue.put(event{name: "sleep", run: func() { time.Sleep(time.Second) }})
		w.kill(brokerArg(f[1]))
		w.kill(brokerArg(f[2]))
		time.Sleep(2 * time.Second)
		return ""
	case "stop": // stop 1: an orderly end
		text := s.request([]string{"shutdown", f[1]})
		synctest.Wait()
		w.kill(brokerArg(f[1]))
		return text
	case "bounce": // bounce 1: killed and started again before the controller looks
		if c := w.controller(); c != nil {
			c.ctrl.queue.put(event{name: "sleep", run: func() { time.Sleep(time.Second) }})
		}
		w.kill(brokerArg(f[1]))
		w.start(brokerArg(f[1]), "")
		time.Sleep(2 * time.Second)
		return ""
	case "unseen-bounce": // unseen-bounce 2 1 3: broker 2 is killed and started again between the death of controller 1 and 3's election
		w.brokers[brokerArg(f[3])].ctrl.queue.put(event{name: "sleep", run: func() { time.Sleep(time.Second) }})
		w.kill(brokerArg(f[2]))
		w.kill(brokerArg(f[1]))
		w.start(brokerArg(f[1]), "")
		time.Sleep(2 * time.Second)
		return ""
	case "unclean": // unclean 1 t-0 state=2 epoch=1 end=100: what the broker will say of its log when it starts
		b := w.brokers[brokerArg(f[1])]
		if b.recovered == nil {
			b.recovered = map[cluster.TopicPartition]zkcoord.LogEnd{}
		}
		var end zkcoord.LogEnd
		_, err := fmt.Sscanf(strings.Join(f[3:], " "), "state=%d epoch=%d end=%d", &end.StateEpoch, &end.Epoch, &end.End)
		require.NoError(w.t, err)
		b.recovered[tpArg(f[2])] = end
		return ""
	case "expire": // expire 1: its session ends, it registers again
		w.expire(brokerArg(f[1]))
		return ""
	case "wait": // wait 10s
		d, err := time.ParseDuration(f[1])
		require.NoError(w.t, err)
		time.Sleep(d)
		return ""
	case "state":
		synctest.Wait()
		return w.dump()
	case "controller":
		synctest.Wait()
		if b := w.controller(); b != nil {
			return fmt.Sprintf("broker %d\n", b.id)
		}
		return "none\n"
	case "requests": // requests 2: what the broker was told since the last look
		synctest.Wait()
		return w.requestsOf(brokerArg(f[1]))
	case "config": // config t key=value
		kv := strings.SplitN(f[2], "=", 2)
		require.NoError(w.t, zkcoord.WriteConfig(w.admin, zkcoord.EntityTopics, f[1], map[string]string{kv[0]: kv[1]}))
		w.controller().ctrl.UncleanElectionEnabled(f[1])
		return ""
	case "isr": // isr t-0 1,2: the leader proposes
		errorCode, ok := w.propose(tpArg(f[1]), idsArg(f[2]))
		if !ok {
			return "no leader\n"
		}
		return errorText(errorCode, nil)
	case "catch-up": // every leader takes every follower into its ISR
		w.catchUp()
		return ""
	case "znode": // znode /path data: an old tool writes
		err := w.admin.CreateAll(f[1], []byte(strings.Join(f[2:], " ")))
		require.NoError(w.t, err)
		return ""
	case "znode-set": // znode-set /path data: a znode is overwritten
		_, err := w.admin.Set(f[1], []byte(strings.Join(f[2:], " ")), zkcoord.AnyVersion)
		require.NoError(w.t, err)
		return ""
	case "disk": // disk 1 full, or disk 1 has-room
		b := w.brokers[brokerArg(f[1])]
		require.NoError(w.t, zkcoord.TellFullDisk(b.session, b.id, f[2] == "full"))
		return ""
	case "logdir": // logdir 1 t-0: the broker loses the directory of a replica
		b := w.brokers[brokerArg(f[1])]
		w.mu.Lock()
		for _, arg := range f[2:] {
			b.failedDir[tpArg(arg)] = true
		}
		w.mu.Unlock()
		require.NoError(w.t, zkcoord.NotifyLogDirFailure(w.admin, b.id))
		return ""
	default:
		return s.request(f)
	}
}

// request sends a client's or broker's request to the controller.
func (s *story) request(f []string) string {
	if f[0] == "shutdown" { // shutdown 1: asks to leave
		b := s.w.brokers[brokerArg(f[1])]
		req := kmsg.NewPtrControlledShutdownRequest()
		req.Version, req.BrokerID, req.BrokerEpoch = 3, int32(b.id), int64(b.epoch)
		resp, ok := call(s.w, (*Controller).ControlledShutdown, req)
		if !ok {
			return "no controller\n"
		}
		text := errorText(resp.ErrorCode, nil)
		for _, p := range resp.PartitionsRemaining {
			text += fmt.Sprintf("still leads %s-%d\n", p.Topic, p.Partition)
		}
		return text
	}
	var resp kmsg.Response
	ok := true
	switch req := buildRequest(f).(type) {
	case *kmsg.CreateTopicsRequest:
		resp, ok = call(s.w, (*Controller).CreateTopics, req)
	case *kmsg.DeleteTopicsRequest:
		resp, ok = call(s.w, (*Controller).DeleteTopics, req)
	case *kmsg.CreatePartitionsRequest:
		resp, ok = call(s.w, (*Controller).CreatePartitions, req)
	case *kmsg.ElectLeadersRequest:
		resp, ok = call(s.w, (*Controller).ElectLeaders, req)
	case *kmsg.AlterPartitionAssignmentsRequest:
		resp, ok = call(s.w, (*Controller).AlterPartitionAssignments, req)
	case *kmsg.ListPartitionReassignmentsRequest:
		resp, ok = call(s.w, (*Controller).ListPartitionReassignments, req)
	default:
		s.w.t.Fatalf("unknown command %q", f[0])
	}
	if !ok {
		return "no controller\n"
	}
	return answerText(resp)
}

// buildRequest makes the request of a command; nil for an unknown one.
func buildRequest(f []string) kmsg.Request {
	switch f[0] {
	case "create": // create t 0:1,2,3 1:2,3,1, or create t partitions=3 rf=2 retention.ms=5
		req := kmsg.NewPtrCreateTopicsRequest()
		req.Version, req.TimeoutMillis = 7, 10000
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic, t.NumPartitions, t.ReplicationFactor = f[1], -1, -1
		for _, arg := range f[2:] {
			if name, value, isSet := strings.Cut(arg, "="); isSet {
				switch name {
				case "partitions":
					t.NumPartitions = intArg(value)
				case "rf":
					t.ReplicationFactor = int16(intArg(value))
				default:
					c := kmsg.NewCreateTopicsRequestTopicConfig()
					c.Name, c.Value = name, &value
					if value == "null" {
						c.Value = nil
					}
					t.Configs = append(t.Configs, c)
				}
				continue
			}
			number, ids, _ := strings.Cut(arg, ":")
			a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
			a.Partition, a.Replicas = intArg(number), idsArg(ids)
			t.ReplicaAssignment = append(t.ReplicaAssignment, a)
		}
		req.Topics = append(req.Topics, t)
		return req
	case "delete": // delete t
		req := kmsg.NewPtrDeleteTopicsRequest()
		req.Version, req.TimeoutMillis = 6, 10000
		t := kmsg.NewDeleteTopicsRequestTopic()
		t.Topic = &f[1]
		req.Topics = append(req.Topics, t)
		req.TopicNames = []string{f[1]}
		return req
	case "partitions": // partitions t 4 [1,2 2,3]
		req := kmsg.NewPtrCreatePartitionsRequest()
		req.Version, req.TimeoutMillis = 3, 10000
		t := kmsg.NewCreatePartitionsRequestTopic()
		t.Topic, t.Count = f[1], intArg(f[2])
		for _, arg := range f[3:] {
			a := kmsg.NewCreatePartitionsRequestTopicAssignment()
			a.Replicas = idsArg(arg)
			t.Assignment = append(t.Assignment, a)
		}
		req.Topics = append(req.Topics, t)
		return req
	case "elect": // elect preferred t-0
		req := kmsg.NewPtrElectLeadersRequest()
		req.Version, req.TimeoutMillis = 2, 10000
		if f[1] == "unclean" {
			req.ElectionType = electionUnclean
		}
		for _, arg := range f[2:] {
			tp := tpArg(arg)
			t := kmsg.NewElectLeadersRequestTopic()
			t.Topic, t.Partitions = tp.Topic, []int32{tp.Partition}
			req.Topics = append(req.Topics, t)
		}
		return req
	case "reassign": // reassign t-0 3,4 or reassign t-0 cancel
		req := kmsg.NewPtrAlterPartitionAssignmentsRequest()
		req.TimeoutMillis = 10000
		tp := tpArg(f[1])
		t := kmsg.NewAlterPartitionAssignmentsRequestTopic()
		t.Topic = tp.Topic
		p := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
		p.Partition = tp.Partition
		switch f[2] {
		case "cancel":
		case "empty":
			p.Replicas = []int32{}
		default:
			p.Replicas = idsArg(f[2])
		}
		t.Partitions = append(t.Partitions, p)
		req.Topics = append(req.Topics, t)
		return req
	case "list-reassignments":
		req := kmsg.NewPtrListPartitionReassignmentsRequest()
		req.TimeoutMillis = 10000
		return req
	}
	return nil
}

func answerText(resp kmsg.Response) string {
	var text strings.Builder
	switch resp := resp.(type) {
	case *kmsg.CreateTopicsResponse:
		for _, t := range resp.Topics {
			text.WriteString(errorText(t.ErrorCode, t.ErrorMessage))
		}
	case *kmsg.DeleteTopicsResponse:
		for _, t := range resp.Topics {
			text.WriteString(errorText(t.ErrorCode, t.ErrorMessage))
		}
	case *kmsg.CreatePartitionsResponse:
		for _, t := range resp.Topics {
			text.WriteString(errorText(t.ErrorCode, t.ErrorMessage))
		}
	case *kmsg.ElectLeadersResponse:
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				text.WriteString(errorText(p.ErrorCode, p.ErrorMessage))
			}
		}
	case *kmsg.AlterPartitionAssignmentsResponse:
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				text.WriteString(errorText(p.ErrorCode, p.ErrorMessage))
			}
		}
	case *kmsg.ListPartitionReassignmentsResponse:
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				fmt.Fprintf(&text, "%s-%d replicas=%v adding=%v removing=%v\n", t.Topic, p.Partition, p.Replicas, p.AddingReplicas, p.RemovingReplicas)
			}
		}
	}
	return text.String()
}

func (w *world) requestsOf(id cluster.BrokerID) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.brokers[id]
	text := strings.Join(b.log, "\n")
	b.log = nil
	if text != "" {
		text += "\n"
	}
	return text
}

func errorText(code int16, message *string) string {
	text := "ok"
	if err := kerr.ErrorForCode(code); err != nil {
		text = err.(*kerr.Error).Message
	}
	if message != nil && *message != "" {
		text += ": " + *message
	}
	return text + "\n"
}

func intArg(s string) int32 {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return int32(n)
}

func brokerArg(s string) cluster.BrokerID { return cluster.BrokerID(intArg(s)) }

func idsArg(s string) []int32 {
	ids := []int32{}
	for _, f := range strings.Split(s, ",") {
		ids = append(ids, intArg(f))
	}
	return slices.Clip(ids)
}

func tpArg(s string) cluster.TopicPartition {
	i := strings.LastIndexByte(s, '-')
	return cluster.TopicPartition{Topic: s[:i], Partition: intArg(s[i+1:])}
}
