package zkcoord

import (
	"errors"
	"fmt"
)

// ErrFenced: the check of /controller_epoch failed: another controller was elected. Nothing of the multi was done.
var ErrFenced = errors.New("controller moved: /controller_epoch has another version")

// UnitResult is the outcome of one unit of WriteFenced; Results belong to its operations.
type UnitResult struct {
	Results []OpResult
	Err     error
}

// A multi holds up to fencedOps operations and fencedBytes of them, far below the ensemble's limit of a request (1 MiB).
const (
	fencedOps   = 200
	fencedBytes = 256 << 10
)

// WriteFenced does many units of operations for the controller. Each unit is done as a whole or not at all, and only while
// /controller_epoch has the given version. Units are independent: they have no order, and one that fails does not keep others
// from being done. Operations of one unit are done in order, so a znode may be created below one created just before.
//
// Many units travel in one multi; a multi that fails is done again unit by unit. The overall error is ErrFenced or ErrSessionLost:
// the results are then incomplete, and the caller is not the controller any more. A unit whose outcome is unknown has
// ErrConnectionLost: re-read, compare.
func WriteFenced(s Session, epochVersion int32, units [][]Op) ([]UnitResult, error) {
	results := make([]UnitResult, len(units))
	all := make([]int, len(units))
	for i := range all {
		all[i] = i
	}
	alone, err := writeBatches(s, epochVersion, units, packUnits(units, all), results)
	if err != nil {
		return results, err
	}
	singles := make([][]int, len(alone))
	for i, unit := range alone {
		singles[i] = []int{unit}
	}
	_, err = writeBatches(s, epochVersion, units, singles, results)
	return results, err
}

// packUnits groups units into batches that fit one multi.
func packUnits(units [][]Op, which []int) [][]int {
	var batches [][]int
	var batch []int
	ops, bytes := 0, 0
	for _, i := range which {
		size := 0
		for _, op := range units[i] {
			size += len(op.Path) + len(op.Data) + createOverhead
		}
		if len(batch) > 0 && (ops+len(units[i]) > fencedOps || bytes+size > fencedBytes) {
			batches = append(batches, batch)
			batch, ops, bytes = nil, 0, 0
		}
		batch = append(batch, i)
		ops, bytes = ops+len(units[i]), bytes+size
	}
	if len(batch) > 0 {
		batches = append(batches, batch)
	}
	return batches
}

// writeBatches writes each batch as one multi, and returns the units to be written alone because their batch failed.
func writeBatches(s Session, epochVersion int32, units [][]Op, batches [][]int, results []UnitResult) (alone []int, err error) {
	multis := make([][]Op, len(batches))
	for i, batch := range batches {
		multis[i] = []Op{CheckOp(ControllerEpochPath, epochVersion)}
		for _, unit := range batch {
			multis[i] = append(multis[i], units[unit]...)
		}
	}
	for i, r := range s.MultiMany(multis) {
		switch {
		case errors.Is(r.Err, ErrSessionLost):
			err = r.Err
		case fenced(r.Results):
			err = ErrFenced
		}
		if r.Err != nil && len(batches[i]) > 1 && !errors.Is(r.Err, ErrConnectionLost) {
			alone = append(alone, batches[i]...)
			continue
		}
		spread(batches[i], units, r, results)
	}
	return alone, err
}

// spread gives each unit of a batch its part of the results.
func spread(batch []int, units [][]Op, r MultiResult, results []UnitResult) {
	at := 1 // after the check
	for _, unit := range batch {
		results[unit].Err = r.Err
		if n := len(units[unit]); at+n <= len(r.Results) {
			results[unit].Results = r.Results[at : at+n]
			at += n
		}
	}
}

// fenced reports whether the first operation, the check of the epoch, is the one that failed.
func fenced(results []OpResult) bool {
	return len(results) > 0 && results[0].Err != nil && !errors.Is(results[0].Err, ErrSkipped)
}

// Fenced does one unit; see WriteFenced. Its error is ErrFenced where that is the cause.
func Fenced(s Session, epochVersion int32, ops ...Op) ([]OpResult, error) {
	results, err := s.Multi(append([]Op{CheckOp(ControllerEpochPath, epochVersion)}, ops...)...)
	if fenced(results) {
		return nil, fmt.Errorf("%w: %w", ErrFenced, results[0].Err)
	}
	if len(results) > 0 {
		results = results[1:]
	}
	return results, err
}
