package logstore

// FirstBase is the base of the first segment, and how many there are.
func (l *Log) FirstBase() (int64, int) {
	v := l.view.Load()
	return v.segments[0].base, len(v.segments)
}
