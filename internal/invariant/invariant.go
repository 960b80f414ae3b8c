// Package invariant checks what must hold. In checked builds (the race detector on, or the build tag invariants) a broken
// invariant panics; in production it is reported to the caller, who parks the owner of the broken state.
package invariant

import "fmt"

// Violation says which invariant broke, with the facts.
type Violation struct{ msg string }

func (v *Violation) Error() string { return "invariant broken: " + v.msg }

// Check returns nil when ok holds. Otherwise it panics in checked builds, and returns a *Violation in production.
// The format and its arguments are only evaluated for a broken invariant, but the arguments' boxing is not free: keep
// Check off per-record paths.
func Check(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	v := &Violation{msg: fmt.Sprintf(format, args...)}
	if Checked {
		panic(v)
	}
	return v
}
