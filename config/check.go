package config

import (
	"maps"
	"slices"
	"strings"
)

// Report says what files of settings mean here.
type Report struct {
	Changed  []Finding `json:"changed"`          // differ from their defaults
	Planned  []Finding `json:"planned"`          // known, but what they steer is not built yet
	Inert    []Finding `json:"inert"`            // accepted without effect
	Warnings []Finding `json:"warnings"`         // unknown, obsolete, set twice, doubtful
	Errors   []Finding `json:"errors,omitempty"` // all values that are not allowed
	Error    string    `json:"error,omitempty"`  // the first of them: why a broker would not start
}

// Finding is one setting in a Report.
type Finding struct {
	Key   string `json:"key"`
	Value string `json:"value,omitempty"`
	Note  string `json:"note,omitempty"`
}

// Check judges settings without starting anything. The error is about reading the files.
func Check(files, environ []string) (Report, error) {
	static, warnings, err := gather(files, environ, nil)
	if err != nil {
		return Report{}, err
	}
	var r Report
	_, more, errs := build(static)
	for _, err := range errs {
		r.addError(err)
	}
	for _, w := range append(warnings, more...) {
		r.Warnings = append(r.Warnings, Finding{Key: w.Key, Note: w.Message})
	}
	for _, name := range slices.Sorted(maps.Keys(static)) {
		r.judge(name, trim(static[name]))
	}
	return r, nil
}

func (r *Report) addError(err error) {
	if r.Error == "" {
		r.Error = err.Error()
	}
	f := Finding{Note: err.Error()}
	if e, ok := err.(*ValueError); ok {
		f = Finding{e.Key, e.Value, "want " + e.Want}
	}
	r.Errors = append(r.Errors, f)
}

// judge files one known setting under what it does. A value that is the default is worth no line.
func (r *Report) judge(name, text string) {
	i := infoOf(name)
	if i == nil || i.Dynamic {
		return
	}
	f := Finding{Key: name, Value: masked(i, text)}
	switch {
	case i.Effect == None:
		f.Note = strings.TrimPrefix(strings.TrimPrefix(i.Doc, "Accepted without effect"), ": ")
		r.Inert = append(r.Inert, f)
	case i.Name == name && !i.Unset && text == i.Default:
	case i.Effect == Planned:
		f.Note = "not built yet: has no effect"
		r.Planned = append(r.Planned, f)
	default:
		f.Note = "default " + defaultText(i)
		r.Changed = append(r.Changed, f)
	}
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
