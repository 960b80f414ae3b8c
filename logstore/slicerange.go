package logstore

// Range is where the slice's bytes are in File.
func (s *Slice) Range() (pos, length int64) { return s.Pos, s.Len }
