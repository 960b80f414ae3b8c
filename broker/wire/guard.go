package wire

import (
	"encoding/binary"
	"errors"
	"sync/atomic"
)

//go:generate sh -c "go run ./internal/guardgen > guard_table.new && mv guard_table.new guard_table.go"

// The guard walks a foreign body before kmsg decodes it, along the same layout, without allocating. It refuses bodies that end early,
// arrays that claim more elements than the remaining bytes can hold, and bodies that would decode to far more memory than they
// have bytes: an array of the shortest elements costs up to 80 times its bytes, an unknown tagged field makes a map.
//
// layouts (generated) has the fields of each request as kmsg decodes them; for each key and version a program is compiled from it
// on first use. What honest clients send stays far below the bound: 64 KiB and 16 times the length. The worst that real names
// reach is about 10 times (Metadata for topics with names of four letters).

const (
	guardBase   = 64 << 10
	guardFactor = 16
)

// What decoding allocates besides array elements, in bytes, generously.
const (
	costNullableText = 16  // the *string
	costText         = 8   // rounding up of a copied string
	costFirstTag     = 400 // a map with its first group
	costTag          = 100
)

var errTooCostly = errors.New("request would take far more memory than it has bytes")

// fieldKind is how a field is laid out.
type fieldKind uint8

const (
	fixed        fieldKind = iota
	text                   // string, length int16 or compact
	nullableText           //
	shortText              // string, length int16 in flexible versions too
	blob                   // bytes, length int32 or compact
	nullableBlob           //
	array                  // length int32 or compact
	longArray              // length int32 in flexible versions too
	inline                 // a struct in place; in the body of tags: a known tagged field
	tags                   // a section of tagged fields
)

// last stands for "no last version", flexible for the first flexible version of the request.
const (
	last     = 1<<15 - 1
	flexible = -1
)

// field is one field of a request, in versions min to max.
type field struct {
	kind     fieldKind
	min, max int16
	size     uint32 // bytes on the wire (fixed), of an element in memory (array)
	tag      uint32
	body     []field
}

// opcode is what one step of a program does.
type opcode uint8

const (
	opSkip opcode = iota // n bytes
	opText16
	opTextCompact
	opBlob32
	opBlobCompact
	opArray32 // then body steps per element
	opArrayCompact
	opTags
)

// op is one step.
type op struct {
	code     opcode
	nullable bool
	n        uint32 // opSkip: bytes; arrays: an element's cost in memory
	min      uint32 // arrays: an element's fewest bytes
	body     []op
	known    []taggedOps
}

// taggedOps is the program of a known tagged field.
type taggedOps struct {
	tag uint32
	ops []op
}

// programVersions bounds the versions for which programs are kept; no request of Kafka 3.9 has more.
const programVersions = 20

var programs [maxKey + 1][programVersions]atomic.Pointer[[]op]

// Check walks the body of a request before it is decoded. A nil error promises that decoding costs memory and time of at most
// a constant times the body's length.
func Check(key, version int16, body []byte) error {
	if !knownKey(key) || layouts[key] == nil {
		return errUnknownKey
	}
	if version < 0 || version >= programVersions {
		return errUnsupportedVersion
	}
	program := programs[key][version].Load()
	if program == nil {
		program = compileProgram(key, version)
	}
	w := walk{b: body, budget: guardBase + guardFactor*int64(len(body))}
	if w.run(*program) {
		return nil
	}
	if w.budget < 0 {
		return errTooCostly
	}
	return errTruncated
}

func compileProgram(key, version int16) *[]op {
	c := compiler{version: version, flexibleFrom: flexibleFrom[key]}
	ops, _ := c.compile(layouts[key])
	programs[key][version].Store(&ops)
	return &ops
}

type compiler struct{ version, flexibleFrom int16 }

// compile returns the steps of a struct and the fewest bytes that it can have.
func (c compiler) compile(fields []field) (ops []op, fewest uint32) {
	compact := c.version >= c.flexibleFrom
	for i := range fields {
		f := &fields[i]
		low := f.min
		if low == flexible {
			low = c.flexibleFrom
		}
		if c.version < low || c.version > f.max {
			continue
		}
		o := op{}
		switch f.kind {
		case fixed:
			fewest += f.size
			if n := len(ops); n > 0 && ops[n-1].code == opSkip {
				ops[n-1].n += f.size
				continue
			}
			o = op{code: opSkip, n: f.size}
		case inline:
			inner, n := c.compile(f.body)
			ops, fewest = append(ops, inner...), fewest+n
			continue
		case text, nullableText, shortText:
			o = op{code: opText16, nullable: f.kind == nullableText}
			if compact && f.kind != shortText {
				o.code = opTextCompact
			}
		case blob, nullableBlob:
			o = op{code: opBlob32}
			if compact {
				o.code = opBlobCompact
			}
		case array, longArray:
			o = op{code: opArray32, n: f.size}
			if compact && f.kind != longArray {
				o.code = opArrayCompact
			}
			o.body, o.min = c.compile(f.body)
		case tags:
			o = op{code: opTags, known: c.compileTags(f.body)}
		}
		if o.code != opSkip {
			fewest += fewestBytes[o.code]
		}
		ops = append(ops, o)
	}
	return ops, fewest
}

var fewestBytes = [...]uint32{opText16: 2, opTextCompact: 1, opBlob32: 4, opBlobCompact: 1, opArray32: 4, opArrayCompact: 1, opTags: 1}

func (c compiler) compileTags(fields []field) (known []taggedOps) {
	for i := range fields {
		ops, _ := c.compile(fields[i].body)
		known = append(known, taggedOps{fields[i].tag, ops})
	}
	return known
}

// walk is how far a body was walked and what decoding it may still cost.
type walk struct {
	b      []byte
	budget int64
}

// run walks one struct; false when the body ends early or becomes too costly (budget below zero).
func (w *walk) run(ops []op) bool {
	for i := range ops {
		o := &ops[i]
		switch o.code {
		case opSkip:
			if uint64(o.n) > uint64(len(w.b)) {
				return false
			}
			w.b = w.b[o.n:]
		case opTags:
			if len(w.b) > 0 && w.b[0] == 0 {
				w.b = w.b[1:]
			} else if !w.tags(o.known) {
				return false
			}
		case opArray32, opArrayCompact:
			if !w.array(o) {
				return false
			}
		default:
			if !w.bytes(o) {
				return false
			}
		}
	}
	return true
}

// length reads the length of a string, of bytes or of an array: -1 is null.
func (w *walk) length(code opcode) (n int64, ok bool) {
	switch code {
	case opText16:
		if len(w.b) < 2 {
			return 0, false
		}
		n = int64(int16(binary.BigEndian.Uint16(w.b)))
		w.b = w.b[2:]
	case opBlob32, opArray32:
		if len(w.b) < 4 {
			return 0, false
		}
		n = int64(int32(binary.BigEndian.Uint32(w.b)))
		w.b = w.b[4:]
	default:
		v, rest, ok := uvarint(w.b)
		if !ok {
			return 0, false
		}
		n, w.b = int64(v)-1, rest
	}
	return n, n >= -1
}

func (w *walk) bytes(o *op) bool {
	n, ok := w.length(o.code)
	if !ok || n > int64(len(w.b)) {
		return false
	}
	if n > 0 {
		w.b = w.b[n:]
	}
	if o.code == opText16 || o.code == opTextCompact {
		w.budget -= max(n, 0) + costText
	}
	if o.nullable {
		w.budget -= costNullableText
	}
	return w.budget >= 0
}

func (w *walk) array(o *op) bool {
	n, ok := w.length(o.code)
	if !ok || n*int64(o.min) > int64(len(w.b)) {
		return false
	}
	if n <= 0 {
		return true
	}
	w.budget -= n * int64(o.n)
	if w.budget < 0 {
		return false
	}
	if len(o.body) == 1 && o.body[0].code == opSkip {
		w.b = w.b[n*int64(o.body[0].n):] // within the bytes: min is the element's size
		return true
	}
	for ; n > 0; n-- {
		if !w.run(o.body) {
			return false
		}
	}
	return true
}

func (w *walk) tags(known []taggedOps) bool {
	count, rest, ok := uvarint(w.b)
	if !ok || uint64(count)*2 > uint64(len(rest)) {
		return false
	}
	w.b = rest
	cost := int64(costFirstTag)
	for ; count > 0; count-- {
		tag, rest, ok := uvarint(w.b)
		if !ok {
			return false
		}
		size, rest, ok := uvarint(rest)
		if !ok || uint64(size) > uint64(len(rest)) {
			return false
		}
		w.b = rest[size:]
		if ops, ok := lookupTag(known, tag); ok {
			if !w.inside(rest[:size], ops) {
				return false
			}
			continue
		}
		w.budget -= cost
		cost = costTag
		if w.budget < 0 {
			return false
		}
	}
	return true
}

func lookupTag(known []taggedOps, tag uint32) ([]op, bool) {
	for i := range known {
		if known[i].tag == tag {
			return known[i].ops, true
		}
	}
	return nil, false
}

// inside walks the value of a known tagged field. Bytes behind its fields are ignored, as the decoder does.
func (w *walk) inside(b []byte, ops []op) bool {
	inner := walk{b: b, budget: w.budget}
	ok := inner.run(ops)
	w.budget = inner.budget
	return ok
}
