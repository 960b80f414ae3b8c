//go:build !race && !invariants

package invariant

// Checked reports whether this is a checked build: broken invariants panic, rare paths are taken often.
const Checked = false
