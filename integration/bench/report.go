package bench

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"
)

// result is all that one run has found out.
type result struct {
	Machine map[string]string `json:"machine"`
	Command string            `json:"command"`
	Rows    []row             `json:"rows"`
}

// row is a workload's outcome: per figure what each round yielded.
type row struct {
	Name   string                          `json:"name"`
	Title  string                          `json:"title"`
	Rounds map[string]map[string][]float64 `json:"rounds"` // side, figure; the n-th of kafka and ottla are a pair
	Lines  []line                          `json:"lines"`
	Notes  []string                        `json:"notes,omitempty"`
}

// line is one figure of a row, as the table shows it.
type line struct {
	Figure    string  `json:"figure"`
	Kafka     float64 `json:"kafka"`
	Ottla     float64 `json:"ottla"`
	Floor     float64 `json:"floor,omitempty"`
	Null      float64 `json:"null,omitempty"`
	Ratio     float64 `json:"ratio"` // median over the pairs
	RatioLow  float64 `json:"ratio_low"`
	RatioHigh float64 `json:"ratio_high"`
	Goal      string  `json:"goal,omitempty"`
	Verdict   string  `json:"verdict,omitempty"`
}

func sorted(values []float64) []float64 {
	out := slices.Clone(values)
	slices.Sort(out)
	return out
}

func median(values []float64) float64 {
	s := sorted(values)
	switch n := len(s); {
	case n == 0:
		return 0
	case n%2 == 1:
		return s[n/2]
	default:
		return (s[n/2-1] + s[n/2]) / 2
	}
}

func (r *row) add(side string, f figures) {
	if r.Rounds == nil {
		r.Rounds = map[string]map[string][]float64{}
	}
	if r.Rounds[side] == nil {
		r.Rounds[side] = map[string][]float64{}
	}
	for name, v := range f {
		r.Rounds[side][name] = append(r.Rounds[side][name], v)
	}
}

// conclude makes the lines from the rounds.
func (r *row) conclude(w *workload) {
	names := map[string]bool{}
	for _, side := range r.Rounds {
		for name := range side {
			names[name] = true
		}
	}
	r.Lines = nil
	for name := range names {
		r.Lines = append(r.Lines, r.lineOf(name, w))
	}
	slices.SortFunc(r.Lines, func(a, b line) int { return cmp.Compare(rank(a.Figure), rank(b.Figure)) })
	r.noteClientLimit()
}

var figureOrder = []string{
	throughput, recordsPerSec, cpuPerGB, clientCPU, p50, p99, p999, endToEndP50, endToEndP99, endToEndP999,
	idleMB, idleAnonymous, afterMB, afterNow, afterAnon, ofACore, seconds,
}

func rank(figure string) int { return slices.Index(figureOrder, figure) }

func (r *row) lineOf(figure string, w *workload) line {
	kafka, ottla := r.Rounds["kafka"][figure], r.Rounds["ottla"][figure]
	l := line{
		Figure: figure, Kafka: median(kafka), Ottla: median(ottla),
		Floor: median(r.Rounds["floor"][figure]), Null: median(r.Rounds["null"][figure]),
	}
	var ratios []float64
	for i := range min(len(kafka), len(ottla)) {
		ratios = append(ratios, ottla[i]/kafka[i])
	}
	if len(ratios) > 0 {
		l.Ratio, l.RatioLow, l.RatioHigh = median(ratios), slices.Min(ratios), slices.Max(ratios)
	}
	l.judge(w)
	return l
}

// judge holds the line against its goals.
func (l *line) judge(w *workload) {
	var goals, verdicts []string
	for _, g := range w.goals {
		if g.figure != l.Figure {
			continue
		}
		v, of := l.Ottla, ""
		switch g.of {
		case "kafka":
			v, of = l.Ratio, "× Kafka"
		case "floor":
			v, of = l.Floor/l.Ottla, " of the floor's bytes per CPU second"
		}
		sign := "≤"
		if g.of == "floor" || moreIsBetter(g.figure) {
			sign = "≥"
		}
		goals = append(goals, fmt.Sprintf("%s %s%s", sign, number(g.value), of))
		switch {
		case v == 0 || math.IsNaN(v) || math.IsInf(v, 0):
			verdicts = append(verdicts, "not measured")
		case g.met(v):
			verdicts = append(verdicts, "met")
		default:
			verdicts = append(verdicts, "missed: "+number(v))
		}
	}
	l.Goal, l.Verdict = strings.Join(goals, "; "), strings.Join(verdicts, "; ")
}

// noteClientLimit says where the client, not the broker, was the limit.
func (r *row) noteClientLimit() {
	ottla, null := median(r.Rounds["ottla"][throughput]), median(r.Rounds["null"][throughput])
	if ottla > 0 && null > 0 && ottla > 0.9*null {
		r.Notes = append(r.Notes, fmt.Sprintf("the client is the limit of Ottla's MB/s: servers that do nothing reach %s", number(null)))
	}
	client, broker := median(r.Rounds["ottla"][clientCPU]), median(r.Rounds["ottla"][cpuPerGB])
	if client > broker && client > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("beside Ottla the client takes %s of the CPU seconds", percent(client/(client+broker))))
	}
}

func percent(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }

// number prints three digits that matter.
func number(v float64) string {
	switch {
	case v == 0:
		return "–"
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 0.1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// table is the result as Markdown.
func (r *result) table() string {
	var b strings.Builder
	b.WriteString("| workload | figure | Kafka 3.9 | Ottla | ratio, median [min–max] | floor | null | goal | |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, row := range r.Rows {
		title := row.Title
		for _, l := range row.Lines {
			if l.Figure == clientCPU {
				continue
			}
			ratio := "–"
			if l.Ratio > 0 {
				ratio = fmt.Sprintf("**%s** [%s–%s]", number(l.Ratio), number(l.RatioLow), number(l.RatioHigh))
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", title, l.Figure, number(l.Kafka), number(l.Ottla), ratio,
				number(l.Floor), number(l.Null), l.Goal, l.Verdict)
			title = ""
		}
		for _, note := range row.Notes {
			fmt.Fprintf(&b, "| | %s | | | | | | | |\n", note)
		}
	}
	return b.String()
}

// merge takes over the rows of an earlier result that this one lacks, in the order of the workloads.
func (r *result) merge(old *result) {
	for _, theirs := range old.Rows {
		if !slices.ContainsFunc(r.Rows, func(mine row) bool { return mine.Name == theirs.Name }) {
			r.Rows = append(r.Rows, theirs)
		}
	}
	place := func(name string) int {
		return slices.IndexFunc(workloads, func(w workload) bool { return w.name == name })
	}
	slices.SortStableFunc(r.Rows, func(a, b row) int { return cmp.Compare(place(a.Name), place(b.Name)) })
}

// save writes the result as JSON, with the rows of an earlier one that it does not replace.
func (r *result) save(file string) error {
	old := &result{}
	text, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		if err := json.Unmarshal(text, old); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	r.merge(old)
	text, err = json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}
