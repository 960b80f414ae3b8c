package logstore

const (
	indexEntrySize = 8
	timeEntrySize  = 12
)
