package bench

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// The plot: one bar a figure that both sides have, from 1 (as Kafka) to the right where Ottla is better, on a logarithmic scale,
// with a whisker from the worst to the best pair and a tick at the goal.
const (
	plotLeft   = 470
	plotWidth  = 520
	plotRow    = 22
	plotHead   = 58
	plotSpread = 1000.0 // the best that fits
	plotWorst  = 0.3
)

type bar struct {
	label          string
	low, mid, high float64 // how many times better than Kafka
	goal           float64 // 0: none
	kafka, ottla   string
	missed         bool
}

// plotted are the figures that the plot shows.
var plotted = []string{throughput, cpuPerGB, p50, p99, endToEndP99, recordsPerSec, idleMB, afterMB, ofACore, seconds}

func (r *result) bars() []bar {
	var out []bar
	for _, row := range r.Rows {
		for _, l := range row.Lines {
			if l.Ratio <= 0 || !slices.Contains(plotted, l.Figure) {
				continue
			}
			b := bar{
				label: row.Title + ": " + l.Figure, low: l.RatioLow, mid: l.Ratio, high: l.RatioHigh,
				kafka: number(l.Kafka), ottla: number(l.Ottla), missed: strings.Contains(l.Verdict, "missed"),
			}
			b.goal = goalOf(row.Name, l.Figure)
			if !moreIsBetter(l.Figure) {
				b.low, b.mid, b.high = 1/l.RatioHigh, 1/l.Ratio, 1/l.RatioLow
				if b.goal > 0 {
					b.goal = 1 / b.goal
				}
			}
			out = append(out, b)
		}
	}
	return out
}

func goalOf(name, figure string) float64 {
	for i := range workloads {
		if workloads[i].name != name {
			continue
		}
		for _, g := range workloads[i].goals {
			if g.figure == figure && g.of == "kafka" {
				return g.value
			}
		}
	}
	return 0
}

func plotX(better float64) float64 {
	v := min(max(better, plotWorst), plotSpread)
	return plotLeft + plotWidth*(math.Log(v)-math.Log(plotWorst))/(math.Log(plotSpread)-math.Log(plotWorst))
}

// plot draws the result.
func (r *result) plot() string {
	bars := r.bars()
	height := plotHead + plotRow*len(bars) + 40
	var s strings.Builder
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">`+"\n", plotLeft+plotWidth+150, height)
	s.WriteString(`<rect width="100%" height="100%" fill="white"/>` + "\n")
	s.WriteString(`<text x="12" y="20" font-size="15">Ottla beside Kafka 3.9: how many times better, median of interleaved pairs</text>` + "\n")
	fmt.Fprintf(&s, `<text x="12" y="38" fill="#555">whisker: worst and best pair; black tick: the goal; right: Kafka's figure and Ottla's; %s CPUs, Linux %s, %s</text>`+"\n",
		html.EscapeString(r.Machine["cpus"]), html.EscapeString(r.Machine["kernel"]), html.EscapeString(r.Machine["go"]))
	for _, v := range []float64{0.3, 1, 3, 10, 30, 100, 300, 1000} {
		x := plotX(v)
		colour := "#ddd"
		if v == 1 {
			colour = "#888"
		}
		fmt.Fprintf(&s, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="%s"/><text x="%.1f" y="%d" text-anchor="middle" fill="#555">%g×</text>`+"\n",
			x, plotHead-8, x, height-30, colour, x, height-14, v)
	}
	for i, b := range bars {
		b.draw(&s, plotHead+plotRow*i)
	}
	s.WriteString("</svg>\n")
	return s.String()
}

func (b *bar) draw(s *strings.Builder, y int) {
	from, to := plotX(1), plotX(b.mid)
	colour := "#3a7d44"
	if b.missed {
		colour = "#c98a2b"
	}
	if b.mid < 1 {
		colour = "#b5403a"
	}
	fmt.Fprintf(s, `<text x="%d" y="%d" text-anchor="end">%s</text>`, plotLeft-8, y+12, html.EscapeString(b.label))
	fmt.Fprintf(s, `<rect x="%.1f" y="%d" width="%.1f" height="12" fill="%s"/>`, min(from, to), y+2, math.Abs(to-from), colour)
	fmt.Fprintf(s, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#333"/>`, plotX(b.low), y+8, plotX(b.high), y+8)
	if b.goal > 0 {
		fmt.Fprintf(s, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="black" stroke-width="2"/>`, plotX(b.goal), y-1, plotX(b.goal), y+17)
	}
	fmt.Fprintf(s, `<text x="%d" y="%d" fill="#333">%s → %s (%s×)</text>`+"\n", plotLeft+plotWidth+8, y+12, b.kafka, b.ottla, number(b.mid))
}
