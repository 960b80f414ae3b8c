package replication

import (
	"slices"

	"ottla/internal/invariant"
)

// Verify checks what must hold between any two events. Owners call it in checked builds and park the partition when it
// fails in production.
func (s *State) Verify() error {
	if err := invariant.Check(s.highWatermark <= s.logEnd, "I6: high watermark %d beyond log end %d", s.highWatermark, s.logEnd); err != nil {
		return err
	}
	if s.role != Leader {
		return invariant.Check(s.isr == nil && s.pending == nil && s.followers == nil, "a %v keeps a leader's state", s.role)
	}
	if err := invariant.Check(slices.Contains(s.isr, s.self), "leader %d is not in its ISR %v", s.self, s.isr); err != nil {
		return err
	}
	if err := invariant.Check(s.leader == s.self, "leader %d names %d", s.self, s.leader); err != nil {
		return err
	}
	maximal := s.MaximalISR()
	for _, id := range s.isr {
		if err := invariant.Check(slices.Contains(maximal, id), "I4: member %d is not in the maximal ISR %v", id, maximal); err != nil {
			return err
		}
	}
	return nil
}
