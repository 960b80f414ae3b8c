package scrape

import (
	"io"
	"math"
	"strconv"
	"strings"
)

// Text is the Prometheus text format 0.0.4 under construction.
type Text struct {
	out  io.Writer
	b    []byte
	name string // of the family that is being written
	err  error
}

// ContentType of the text format.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// NewText starts a text.
func NewText(out io.Writer) *Text { return &Text{out: out, b: make([]byte, 0, textBytes+4096)} }

const textBytes = 64 << 10 // written at a time

// Family begins a metric.
func (t *Text) Family(name, kind, help string) {
	t.name = name
	t.b = append(t.b, "# HELP "...)
	t.b = append(t.b, name...)
	t.b = append(t.b, ' ')
	t.b = append(t.b, help...)
	t.b = append(t.b, "\n# TYPE "...)
	t.b = append(t.b, name...)
	t.b = append(t.b, ' ')
	t.b = append(t.b, kind...)
	t.b = append(t.b, '\n')
}

// Sample writes a series of the family. labels come from Labels, or are empty.
func (t *Text) Sample(labels string, value float64) {
	t.b = append(t.b, t.name...)
	if labels != "" {
		t.b = append(t.b, '{')
		t.b = append(t.b, labels...)
		t.b = append(t.b, '}')
	}
	t.b = append(t.b, ' ')
	if whole := int64(value); float64(whole) == value && whole > -1<<53 && whole < 1<<53 {
		t.b = strconv.AppendInt(t.b, whole, 10)
	} else {
		t.b = appendFloat(t.b, value)
	}
	t.b = append(t.b, '\n')
	if len(t.b) >= textBytes {
		t.Flush()
	}
}

func appendFloat(b []byte, v float64) []byte {
	switch {
	case math.IsNaN(v):
		return append(b, "NaN"...)
	case math.IsInf(v, 1):
		return append(b, "+Inf"...)
	case math.IsInf(v, -1):
		return append(b, "-Inf"...)
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}

// Flush writes what has gathered and returns the first error of the writer.
func (t *Text) Flush() error {
	if t.err == nil && len(t.b) > 0 {
		_, t.err = t.out.Write(t.b)
	}
	t.b = t.b[:0]
	return t.err
}

// Labels makes the text of labels out of names and values, in turn.
func Labels(pairs ...string) string {
	var b strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(pairs[i])
		b.WriteString(`="`)
		b.WriteString(escape.Replace(strings.ToValidUTF8(pairs[i+1], "\ufffd")))
		b.WriteByte('"')
	}
	return b.String()
}

var escape = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
