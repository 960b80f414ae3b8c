package config

import (
	"maps"
	"slices"
	"strings"
)

// unknown warns about keys that nobody knows.
func (s *Snapshot) unknown() []Warning {
	var out []Warning
	for _, name := range slices.Sorted(maps.Keys(s.values)) {
		if byName[name] != nil || knownPrefix(name) {
			continue
		}
		w := Warning{name, "is not a known setting and has no effect"}
		if near := nearest(name); near != "" {
			w.Message += "; did you mean " + near + "?"
		}
		out = append(out, w)
	}
	return out
}

// plugins are the heads of settings that belong to a plug-in or a provider: nobody lists their names.
var plugins = []string{"authorizer.", "kafka.metrics.", "metric.", "config.providers", "confluent.", "rlmm.config.", "rsm.config."}

// knownPrefix recognises settings that name a listener, or belong to a plug-in.
func knownPrefix(name string) bool {
	if base, ok := listenerBase(name); ok {
		_, mechanism, _ := strings.Cut(base, ".")
		return byName[base] != nil || byName[mechanism] != nil
	}
	return slices.ContainsFunc(plugins, func(p string) bool { return strings.HasPrefix(name, p) })
}

// listenerBase takes listener.name.NAME. off.
func listenerBase(name string) (base string, ok bool) {
	rest, ok := strings.CutPrefix(name, "listener.name.")
	if !ok {
		return name, false
	}
	_, base, ok = strings.Cut(rest, ".")
	if !ok {
		return name, false
	}
	return base, true
}

// infoOf is the line of the table behind a name, with or without a listener and a mechanism before it; nil for an unknown key.
func infoOf(name string) *Info {
	if i := byName[name]; i != nil {
		return i
	}
	base, ok := listenerBase(name)
	if !ok {
		return nil
	}
	if i := byName[base]; i != nil {
		return i
	}
	_, mechanism, _ := strings.Cut(base, ".")
	return byName[mechanism]
}

// IsSensitive reports whether a setting is a secret, by its name with or without a listener and a mechanism before it.
func IsSensitive(name string) bool {
	i := infoOf(name)
	return i != nil && i.Sensitive()
}

// nearest is the known name that a misspelt one most likely means, or "".
func nearest(name string) string {
	best, bestDistance := "", 1+len(name)/5
	for _, i := range table {
		if i.Internal || i.Dynamic {
			continue
		}
		if d := distance(name, i.Name, bestDistance); d <= bestDistance && (best == "" || d < bestDistance) {
			best, bestDistance = i.Name, d
		}
	}
	return best
}

// distance is the edit distance of two names, or limit+1 when their lengths alone differ by more than limit.
func distance(a, b string, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d = min(diagonal, row[j], row[j+1]) + 1
			}
			diagonal, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}
