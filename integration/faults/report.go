package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"ottla/integration/harness"
)

// finish heals nothing more: it lets the cluster come to rest, reads everything, judges, stops the brokers and compares their files.
func (r *rig) finish() {
	r.stopLoad()
	r.load.Wait()
	stopped := r.ledger.now()
	total := verdict{}
	elections := 0
	diverged := -1 // not compared
	if err := r.waitInSync(r.patience()); err != nil {
		r.problem("not in sync %v after the last fault: %v", r.patience(), err)
	}
	var healed time.Duration
	for _, h := range r.done {
		healed = max(healed, h.to)
	}
	convergence := r.ledger.now() - healed
	for i := range r.done {
		if r.done[i].window == 0 {
			r.done[i].window = stopped
		}
	}
	for _, w := range r.writers {
		if err := w.finish(time.Minute); err != nil {
			r.problem("%v", err)
		}
	}
	for i, rec := range []*recorder{r.ledger, r.probes} {
		v, err := r.judge(rec, r.tails[i])
		if err != nil {
			r.problem("%v", err)
		}
		for _, e := range v.Examples {
			r.logf("VIOLATION: %s: %s", rec.topic, e)
		}
		total.add(v)
	}
	elections = r.elections()
	r.stopReaders()
	r.readers.Wait()
	r.lookForPanics()
	if total.bad() > 0 || len(r.problems) > 0 {
		r.keepEvidence()
	} else {
		diverged = r.stopAndCompare()
		if diverged > 0 {
			r.keepEvidence()
		}
	}
	line := r.line(total, elections, diverged, convergence)
	for _, reason := range r.leftOut {
		r.t.Logf("left out: %s", reason)
	}
	for _, rec := range []*recorder{r.ledger, r.probes} {
		_, errs := rec.tally()
		r.t.Logf("errors of %s: %v", rec.topic, errs)
	}
	r.t.Log(r.table())
	r.t.Log(line)
	if file := os.Getenv("OTTLA_FAULT_REPORT"); file != "" {
		if err := appendLine(file, line); err != nil {
			r.t.Error(err)
		}
	}
	if total.bad() > 0 || diverged > 0 || len(r.problems) > 0 {
		r.t.Errorf("the cluster broke its promises: %v; %d differing replicas; %s", &total, diverged, strings.Join(r.problems, "; "))
	}
}

// judge reads a topic back and holds it against its history.
func (r *rig) judge(rec *recorder, t *tail) (verdict, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	seeds := r.cluster.Bootstrap()
	ends, err := endOffsets(ctx, seeds, rec.topic)
	if err != nil {
		return verdict{}, fmt.Errorf("end offsets of %s: %w", rec.topic, err)
	}
	final, err := readAll(ctx, rec, seeds, ends)
	if err != nil {
		return verdict{}, err
	}
	deadline := time.Now().Add(30 * time.Second)
	for err = t.drained(ends); err != nil && time.Now().Before(deadline); err = t.drained(ends) {
		time.Sleep(50 * time.Millisecond)
	}
	return judge(rec.history(final)), err
}

// stopAndCompare stops every broker as an operator would and returns the number of replicas that differ from the first.
func (r *rig) stopAndCompare() int {
	for _, b := range r.cluster.Brokers {
		if code := b.Terminate(); code != 0 {
			r.problem("broker %d stopped with exit code %d", b.ID, code)
		}
	}
	count := 0
	for _, topic := range []string{ledgerTopic, probeTopic} {
		for _, d := range harness.CompareReplicas(r.cluster.Brokers, topic, partitions) {
			r.logf("VIOLATION: %s", d)
			count++
		}
	}
	return count
}

var panicLine = regexp.MustCompile(`(?m)^(panic: |fatal error: |.*invariant broken).*$`)

// lookForPanics reads the brokers' logs.
func (r *rig) lookForPanics() {
	for _, b := range r.cluster.Brokers {
		if found := panicLine.FindString(b.Log()); found != "" {
			r.problem("broker %d: %s", b.ID, found)
		}
	}
}

// keepEvidence freezes every broker and copies all that may explain what went wrong.
func (r *rig) keepEvidence() {
	for _, b := range r.cluster.Brokers {
		if b.Running() {
			b.Pause()
		}
	}
	dir := filepath.Join("..", "logs", "faults", fmt.Sprintf("seed-%d-%s", r.seed, time.Now().Format("150405")))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		r.t.Log(err)
		return
	}
	for _, b := range r.cluster.Brokers {
		if out, err := exec.Command("cp", "-a", b.Dir, filepath.Join(dir, fmt.Sprint("broker-", b.ID))).CombinedOutput(); err != nil {
			r.t.Logf("copy the folder of broker %d: %v: %s", b.ID, err, out)
		}
	}
	if tree, err := r.cluster.View().Tree("/"); err == nil {
		texts := map[string]string{}
		for p, data := range tree {
			texts[p] = string(data)
		}
		writeJSON(filepath.Join(dir, "znodes.json"), texts)
	}
	for _, rec := range []*recorder{r.ledger, r.probes} {
		h := rec.history(nil)
		writeJSON(filepath.Join(dir, rec.topic+".json"), h.Attempts)
	}
	writeJSON(filepath.Join(dir, "start.json"), map[string]any{"start": r.ledger.start, "seed": r.seed})
	r.dumpGoroutines(dir)
	r.t.Logf("evidence is in %s (brokers were frozen first)", dir)
}

// dumpGoroutines ends the brokers with SIGQUIT, at which a Go program prints what each goroutine is doing.
func (r *rig) dumpGoroutines(dir string) {
	for _, b := range r.cluster.Brokers {
		if b.Kind != harness.Ottla || !b.Running() {
			continue
		}
		_ = syscall.Kill(b.PID(), syscall.SIGQUIT)
		b.Resume()
		b.WaitEnd(20 * time.Second)
		_ = os.WriteFile(filepath.Join(dir, fmt.Sprintf("broker-%d", b.ID), "log"), []byte(b.Log()), 0o644)
	}
}

func writeJSON(path string, v any) {
	text, err := json.Marshal(v)
	if err == nil {
		_ = os.WriteFile(path, text, 0o644)
	}
}

func appendLine(path, line string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(line + "\n")
	return err
}

// truncations counts what the brokers say they cut from their logs.
func (r *rig) truncations() (n int) {
	for _, b := range r.cluster.Brokers {
		n += strings.Count(b.Log(), truncationMessage)
	}
	return n
}

const truncationMessage = "truncate to the leader's history"

// silencesBy are the write silences of faults that were alone, by kind and by whether the target led the partition.
func (r *rig) silencesBy() map[string]silences {
	acks := map[int32][]time.Duration{}
	for p := range int32(partitions) {
		acks[p] = r.probes.ackTimes(p)
	}
	out := map[string]silences{}
	for _, h := range r.done {
		if !h.alone || !h.effective {
			continue
		}
		for p := range int32(partitions) {
			name := h.Kind
			if h.Role != ensemble {
				name += map[bool]string{true: "/led", false: "/other"}[h.led[p]]
			}
			out[name] = append(out[name], max(0, silence(acks[p], h.from, h.window)-probeEvery))
		}
	}
	return out
}

// table is the write silence per kind, with the number of faults.
func (r *rig) table() string {
	var b strings.Builder
	b.WriteString("write silence [ms], faults that were alone: kind, partitions × faults, p50/p99/max\n")
	by := r.silencesBy()
	for _, name := range slices.Sorted(maps.Keys(by)) {
		fmt.Fprintf(&b, "  %-22s %4d  %v\n", name, len(by[name]), by[name])
	}
	return b.String()
}

// line is the run in one line.
func (r *rig) line(v verdict, elections, diverged int, convergence time.Duration) string {
	var tally [3]int
	for _, rec := range []*recorder{r.ledger, r.probes} {
		t, _ := rec.tally()
		for i := range tally {
			tally[i] += t[i]
		}
	}
	groups := map[string]int{}
	effective := 0
	for _, h := range r.done {
		if h.effective {
			groups[h.group]++
			effective++
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "seed=%d build=%s brokers=%d zk=%d minutes=%.1f acked=%d unknown=%d (written=%d) failed=%d faults=%d (",
		r.seed, buildName(r.cluster.Brokers[0].Kind), brokers, zookeepers, r.ledger.now().Minutes(), tally[acked], tally[unknown], v.UnknownWritten, tally[failed], effective)
	for i, g := range []string{"kill", "stop", "pause", "cut", "zk", "disk"} {
		if i > 0 {
			b.WriteString(" ")
		}
		fmt.Fprintf(&b, "%s=%d", g, groups[g])
	}
	fmt.Fprintf(&b, ") elections=%d truncated=%d revived=%d lost=%d moved=%d duplicated=%d reordered=%d phantom=%d skipped=%d diverged=%d converged=%dms silence[ms]",
		elections, r.truncations(), r.revived, v.Lost, v.Moved, v.Duplicated, v.Reordered, v.Phantom, v.Skipped, diverged, convergence.Milliseconds())
	by := r.silencesBy()
	for _, name := range slices.Sorted(maps.Keys(by)) {
		fmt.Fprintf(&b, " %s=%v", name, by[name])
	}
	return b.String()
}

func buildName(k harness.Kind) string {
	if k == harness.Kafka {
		return "kafka-3.9"
	}
	if name := os.Getenv("OTTLA_BUILD"); name != "" {
		return name
	}
	out, err := exec.Command("git", "describe", "--tags", "--always", "--dirty").Output()
	if err != nil {
		return string(k)
	}
	return strings.TrimSpace(string(out))
}
