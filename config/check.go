package config

import (
	"maps"
	"slices"
)

// Report says what a file of settings means here.
type Report struct {
	Changed  []Finding `json:"changed"`         // differ from their defaults
	Inert    []Finding `json:"inert"`           // accepted without effect
	Warnings []Finding `json:"warnings"`        // unknown, obsolete
	Error    string    `json:"error,omitempty"` // why a broker would not start
}

// Finding is one setting in a Report.
type Finding struct {
	Key   string `json:"key"`
	Value string `json:"value,omitempty"`
	Note  string `json:"note,omitempty"`
}

// Check judges settings without starting anything. The error is about reading the files.
func Check(files, environ []string) (Report, error) {
	static := map[string]string{}
	for _, name := range files {
		read, err := ReadFile(name)
		if err != nil {
			return Report{}, err
		}
		maps.Copy(static, read)
	}
	maps.Copy(static, FromEnvironment(environ))
	var r Report
	_, warnings, err := build(static)
	if err != nil {
		r.Error = err.Error()
	}
	for _, w := range warnings {
		r.Warnings = append(r.Warnings, Finding{Key: w.Key, Note: w.Message})
	}
	for _, name := range slices.Sorted(maps.Keys(static)) {
		i := byName[name]
		switch {
		case i == nil:
		case i.Inert:
			r.Inert = append(r.Inert, Finding{Key: name, Value: display(i, static[name])})
		case i.Unset || static[name] != i.Default:
			r.Changed = append(r.Changed, Finding{Key: name, Value: display(i, static[name]), Note: "default " + defaultText(i)})
		}
	}
	return r, nil
}

func display(i *Info, text string) string {
	if i.Sensitive() {
		return "***"
	}
	return text
}

func defaultText(i *Info) string {
	switch {
	case i.Unset:
		return "(none)"
	case i.Default == "":
		return "(empty)"
	}
	return i.Default
}
