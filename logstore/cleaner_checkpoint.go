package logstore

// cleanPoint is the log's entry in cleaner-offset-checkpoint.
func (l *Log) cleanPoint() (offset int64, listed bool) {
	offset = l.cleanedTo()
	return offset, offset > 0 && l.Config().Compact
}

// cleanedTo is the first offset that was not yet cleaned, as the checkpoint or a cleaning said; 0 when nobody said.
func (l *Log) cleanedTo() int64 {
	if l.cleaned.Load() == 0 { // not yet asked for; the field holds one more than the offset
		offset, _ := l.owner.cleanPoints.get(l.tp)
		l.cleaned.CompareAndSwap(0, max(offset, 0)+1)
	}
	return l.cleaned.Load() - 1
}

func (l *Log) setCleanedTo(offset int64) { l.cleaned.Store(offset + 1) }

// lowerCleaned is told of a truncation: what is appended at and above offset is dirty. It returns once the file agrees: else
// tombstones there could go before what they delete.
func (l *Log) lowerCleaned(offset int64) error {
	if l.cleanedTo() <= offset {
		return nil
	}
	l.setCleanedTo(offset)
	return l.owner.cleanPoints.lower(l, offset)
}
