package replication

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ottla/internal/cluster"
)

// modelLog is a log of epochs only: a record is the epoch that wrote it and a number nobody else has.
type modelLog struct {
	records []modelRecord
	epochs  [][2]int64
}

type modelRecord struct {
	epoch int64
	id    int
}

func (l *modelLog) end() int64 { return int64(len(l.records)) }

func (l *modelLog) table() epochTable { return epochTable{entries: l.epochs, end: l.end()} }

func (l *modelLog) last() cluster.LeaderEpoch {
	if len(l.epochs) == 0 {
		return cluster.NoLeaderEpoch
	}
	return cluster.LeaderEpoch(l.epochs[len(l.epochs)-1][0])
}

func (l *modelLog) begin(epoch int64) {
	for n := len(l.epochs); n > 0 && (l.epochs[n-1][0] >= epoch || l.epochs[n-1][1] >= l.end()); n = len(l.epochs) {
		l.epochs = l.epochs[:n-1]
	}
	l.epochs = append(slices.Clone(l.epochs), [2]int64{epoch, l.end()})
}

func (l *modelLog) append(r modelRecord) {
	if int64(l.last()) != r.epoch {
		l.begin(r.epoch)
	}
	l.records = append(slices.Clone(l.records), r)
}

func (l *modelLog) cut(to int64) {
	l.epochs = l.table().truncated(to).entries
	l.records = slices.Clone(l.records[:to])
}

// TestTruncationFindsTheCommonPrefix: whatever tails leaders have left behind, a follower that truncates by what the leader
// says ends with the leader's log, cuts nothing that it shares with the leader and that everybody has, and needs no more
// rounds than it has epochs.
func TestTruncationFindsTheCommonPrefix(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		logs := make([]modelLog, 3)
		committed := []modelRecord{}
		id := 0
		epoch := int64(0)
		for range rapid.IntRange(1, 12).Draw(t, "elections") {
			leader := rapid.IntRange(0, 2).Draw(t, "leader")
			if !hasPrefix(logs[leader].records, committed) {
				continue // it could not be elected
			}
			epoch++
			logs[leader].begin(epoch)
			for range rapid.IntRange(0, 6).Draw(t, "steps") {
				if rapid.Bool().Draw(t, "append") {
					id++
					logs[leader].append(modelRecord{epoch: epoch, id: id})
					continue
				}
				follower := (leader + rapid.IntRange(1, 2).Draw(t, "follower")) % 3
				replicate(t, &logs[leader], &logs[follower], committed, rapid.IntRange(0, 4).Draw(t, "records"))
			}
			if other := (leader + 1) % 3; isPrefix(logs[other].records, logs[leader].records) && len(logs[other].records) > len(committed) {
				committed = slices.Clone(logs[other].records) // a majority has it
			}
		}
		leader := slices.IndexFunc(logs, func(l modelLog) bool { return hasPrefix(l.records, committed) })
		logs[leader].begin(epoch + 1)
		for i := range logs {
			if i != leader {
				replicate(t, &logs[leader], &logs[i], committed, len(logs[leader].records))
				if !slices.Equal(logs[i].records, logs[leader].records) {
					t.Fatalf("log %d is %v, the leader's %v", i, logs[i].records, logs[leader].records)
				}
			}
		}
	})
}

func hasPrefix(log, prefix []modelRecord) bool {
	return len(log) >= len(prefix) && slices.Equal(log[:len(prefix)], prefix)
}

func isPrefix(prefix, log []modelRecord) bool { return hasPrefix(log, prefix) }

// replicate truncates the follower as often as the leader finds a divergence, and then copies up to n records.
func replicate(t *rapid.T, leader, follower *modelLog, committed []modelRecord, n int) {
	for rounds := len(follower.epochs) + 1; ; rounds-- {
		d, err := Divergence(leader.table(), follower.end(), follower.last())
		if err != nil {
			t.Fatalf("leader %v cannot tell about epoch %d: %v", leader.epochs, follower.last(), err)
		}
		if d == nil {
			break
		}
		if rounds == 0 {
			t.Fatalf("no agreement of %v with %v", follower.epochs, leader.epochs)
		}
		cut := TruncateOnDivergence(follower.table(), follower.end(), 0, *d)
		for i := cut.Offset; i < min(follower.end(), int64(len(committed))); i++ {
			if follower.records[i] == committed[i] {
				t.Fatalf("cut to %d takes committed offset %d", cut.Offset, i)
			}
		}
		follower.cut(cut.Offset)
	}
	if !isPrefix(follower.records, leader.records) {
		t.Fatalf("no divergence found, but %v is no prefix of %v", follower.records, leader.records)
	}
	for range n {
		if follower.end() == leader.end() {
			return
		}
		follower.append(leader.records[follower.end()])
	}
}

// TestLeaderStateKeepsItsInvariants: any sequence of events keeps what Verify checks, never lets the high watermark fall or
// pass a member that is in the maximal ISR, and never holds two changes open.
func TestLeaderStateKeepsItsInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const replicas = 4
		all := []cluster.BrokerID{0, 1, 2, 3}
		s := NewState(0, 0, 0, 0)
		env := Env{LagMax: 10 * time.Second, MinISR: rapid.IntRange(1, 3).Draw(t, "minISR")}
		epoch, version := cluster.LeaderEpoch(0), cluster.PartitionEpoch(0)
		positions := map[cluster.BrokerID]int64{}
		var open *Proposal
		s.BecomeLeader(Change{Leader: 0, ISR: all, Replicas: all}, 0, 0, env)
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				end := s.LogEnd() + int64(rapid.IntRange(1, 5).Draw(t, "n"))
				follow(t, s, &open, s.SetEnds(end, end, env))
			},
			"fetch": func(t *rapid.T) {
				id := cluster.BrokerID(rapid.IntRange(1, replicas-1).Draw(t, "from"))
				at := min(s.LogEnd(), positions[id]+int64(rapid.IntRange(0, 6).Draw(t, "n")))
				m, err := s.RecordFetch(Fetch{Replica: id, Incarnation: cluster.NoBrokerEpoch, Epoch: epoch, Offset: at}, env)
				if err != nil {
					t.Fatal(err)
				}
				positions[id] = at
				follow(t, s, &open, m)
			},
			"stale fetch": func(t *rapid.T) {
				if _, err := s.RecordFetch(Fetch{Replica: 1, Epoch: epoch - 1, Offset: s.LogEnd()}, env); err == nil {
					t.Fatal("a position of an earlier epoch is taken")
				}
			},
			"time": func(t *rapid.T) {
				env.Now = env.Now.Add(time.Duration(rapid.IntRange(1, 8).Draw(t, "seconds")) * time.Second)
			},
			"check": func(t *rapid.T) {
				m, _ := s.Check(env)
				follow(t, s, &open, m)
			},
			"yes": func(t *rapid.T) {
				if open == nil {
					t.Skip()
				}
				p := *open
				open = nil
				version++
				var isr []cluster.BrokerID
				for _, m := range p.ISR {
					isr = append(isr, m.Broker)
				}
				_, m := s.Answered(p, Answer{LeaderEpoch: epoch, ISR: isr, PartitionEpoch: version}, env)
				follow(t, s, &open, m)
			},
			"new epoch": func(t *rapid.T) {
				epoch++
				version++
				isr := s.MaximalISR()
				open = nil
				follow(t, s, &open, s.BecomeLeader(Change{
					Leader: 0, LeaderEpoch: epoch, PartitionEpoch: version, ISR: isr, Replicas: all,
				}, s.LogEnd(), s.LogEnd(), env))
				for i := range s.followers {
					if s.followers[i].logEnd != unknownOffset {
						t.Fatal("a position survived the epoch")
					}
				}
			},
			"": func(t *rapid.T) {
				if err := s.Verify(); err != nil {
					t.Fatal(err)
				}
			},
		})
	})
}

// follow checks one event's outcome. Only a movement is compared with the members: a member may later ask for less.
func follow(t *rapid.T, s *State, open **Proposal, m Moved) {
	if m.HighWatermark {
		for i := range s.followers {
			f := &s.followers[i]
			if slices.Contains(s.MaximalISR(), f.id) && f.logEnd < s.HighWatermark() {
				t.Fatalf("high watermark %d passed member %d at %d", s.HighWatermark(), f.id, f.logEnd)
			}
		}
	}
	if m.Propose != nil {
		if *open != nil {
			t.Fatal("two changes are open")
		}
		*open = m.Propose
	}
}
