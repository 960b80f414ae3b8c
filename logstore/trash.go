package logstore

import (
	"slices"
	"sync"
	"time"
)

// trash is what waits for its removal. It guards itself.
type trash struct {
	mu    sync.Mutex
	items []trashItem
}

type trashItem struct {
	due   time.Time
	names []string
	dir   bool
}

func (t *trash) add(due time.Time, names ...string) {
	if len(names) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.items = append(t.items, trashItem{due: due, names: names})
}

func (t *trash) addDir(due time.Time, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.items = append(t.items, trashItem{due: due, names: []string{name}, dir: true})
}

// take returns what is due.
func (t *trash) take(now time.Time) []trashItem {
	t.mu.Lock()
	defer t.mu.Unlock()
	var due []trashItem
	t.items = slices.DeleteFunc(t.items, func(i trashItem) bool {
		if i.due.After(now) {
			return false
		}
		due = append(due, i)
		return true
	})
	return due
}

// empty removes what is due. What cannot be removed is reported and left to the next start.
func (d *logDir) emptyTrash(now time.Time) {
	for _, item := range d.trash.take(now) {
		for _, name := range item.names {
			remove := removeIfThere
			if item.dir {
				remove = removeAll
			}
			if err := remove(d.fs, name); err != nil {
				d.logger.Warn().Str("file", name).Err(err).Msg("could not remove; the next start will")
			}
		}
	}
}
