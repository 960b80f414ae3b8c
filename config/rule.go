package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// rule narrows the values of a type. judge returns nil for a value that is allowed, else Kafka's verdict: the sentences are those
// that Kafka 3.9 sends with INVALID_CONFIG.
type rule[T any] struct {
	words string
	judge func(T) *refusal
}

func anything[T any]() rule[T] { return rule[T]{"", func(T) *refusal { return nil }} }

type number interface{ ~int | ~int64 | ~float64 }

func atLeast[T number](low T) rule[T] {
	return rule[T]{fmt.Sprintf("at least %v", low), func(v T) *refusal {
		if v < low {
			return &refusal{show(v), fmt.Sprintf("Value must be at least %v", low)}
		}
		return nil
	}}
}

func between[T number](low, high T) rule[T] {
	return rule[T]{fmt.Sprintf("%v to %v", low, high), func(v T) *refusal {
		switch {
		case v < low:
			return &refusal{show(v), fmt.Sprintf("Value must be at least %v", low)}
		case v > high:
			return &refusal{show(v), fmt.Sprintf("Value must be no more than %v", high)}
		}
		return nil
	}}
}

func betweenOr[T number](low, high, other T) rule[T] {
	return rule[T]{fmt.Sprintf("%v to %v, or %v", low, high, other), func(v T) *refusal {
		if v == other || v >= low && v <= high {
			return nil
		}
		return &refusal{show(v), fmt.Sprintf("Value must be between %v and %v or equal to %v", low, high, other)}
	}}
}

func oneOf(names ...string) rule[string] {
	list := strings.Join(names, ", ")
	return rule[string]{"one of " + list, func(v string) *refusal {
		if slices.Contains(names, v) {
			return nil
		}
		return &refusal{v, "String must be one of: " + list}
	}}
}

// eachOf wants every element to be one of some names.
func eachOf(names ...string) rule[[]string] {
	one := oneOf(names...)
	return rule[[]string]{"of " + strings.Join(names, ", "), func(list []string) *refusal {
		for _, v := range list {
			if refused := one.judge(v); refused != nil {
				return refused
			}
		}
		return nil
	}}
}

func notEmpty() rule[string] {
	return rule[string]{"a text that is not empty", func(v string) *refusal {
		if v == "" {
			return &refusal{v, "String must be non-empty"}
		}
		return nil
	}}
}

// release wants one of the names that inter.broker.protocol.version had until 3.9. As in Kafka, 2.8 and 2.8.1 stand for the last
// step of 2.8.
func release() rule[string] {
	known := map[string]bool{}
	for name := range strings.FieldsSeq(releases) {
		short, _, _ := strings.Cut(name, "-")
		known[name], known[short] = true, true
	}
	return rule[string]{"a release of Kafka until 3.9", func(v string) *refusal {
		parts := strings.Split(v, ".")
		significant := 2
		if parts[0] == "0" {
			significant = 3
		}
		if known[strings.Join(parts[:min(significant, len(parts))], ".")] {
			return nil
		}
		return &refusal{v, "Version " + v + " is not a valid version"}
	}}
}

const releases = `0.8.0 0.8.1 0.8.2 0.9.0 0.10.0-IV0 0.10.0-IV1 0.10.1-IV0 0.10.1-IV1 0.10.1-IV2 0.10.2-IV0 0.11.0-IV0 0.11.0-IV1 0.11.0-IV2
	1.0-IV0 1.1-IV0 2.0-IV0 2.0-IV1 2.1-IV0 2.1-IV1 2.1-IV2 2.2-IV0 2.2-IV1 2.3-IV0 2.3-IV1 2.4-IV0 2.4-IV1 2.5-IV0 2.6-IV0 2.7-IV0 2.7-IV1
	2.7-IV2 2.8-IV0 2.8-IV1 3.0-IV0 3.0-IV1 3.1-IV0 3.2-IV0 3.3-IV0 3.3-IV1 3.3-IV2 3.3-IV3 3.4-IV0 3.5-IV0 3.5-IV1 3.5-IV2 3.6-IV0 3.6-IV1
	3.6-IV2 3.7-IV0 3.7-IV1 3.7-IV2 3.7-IV3 3.7-IV4 3.8-IV0 3.9-IV0`

// throttled is the form of the two throttle lists of topics.
var throttled = rule[[]string]{"of partition:broker pairs, or *", func(list []string) *refusal {
	if len(list) == 1 && list[0] == "*" {
		return nil
	}
	for _, e := range list {
		p, b, ok := strings.Cut(e, ":")
		if !ok || !digits(p) || !digits(b) {
			return &refusal{"[" + strings.Join(list, ", ") + "]", " must be the literal '*' or a list of replicas in the following format: " +
				"[partitionId]:[brokerId],[partitionId]:[brokerId],..."}
		}
	}
	return nil
}}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// show writes a number as Java does.
func show[T number](v T) string {
	if f, ok := any(v).(float64); ok {
		return javaDouble(f)
	}
	return fmt.Sprint(v)
}

// javaDouble is Double.toString.
func javaDouble(f float64) string {
	if abs := max(f, -f); abs != 0 && (abs < 1e-3 || abs >= 1e7) {
		mantissa, exponent, _ := strings.Cut(strconv.FormatFloat(f, 'e', -1, 64), "e")
		if !strings.Contains(mantissa, ".") {
			mantissa += ".0"
		}
		n, _ := strconv.Atoi(exponent)
		return mantissa + "E" + strconv.Itoa(n)
	}
	text := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return text
}

// trim takes away what Java's String.trim does.
func trim(s string) string { return strings.TrimFunc(s, func(r rune) bool { return r <= ' ' }) }

func lower(s string) string { return strings.ToLower(s) }
