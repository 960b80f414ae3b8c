package zkcoord

import (
	"errors"
	"slices"

	"ottla/internal/parallel"
)

// A multiRead carries many getData in one request (ZooKeeper 3.6 and later). Each path has its own outcome. Ten times faster than
// pipelined single reads; several are kept in flight.
const (
	multiReadPaths    = 500
	multiReadBytes    = 256 << 10 // of one request
	multiReadInFlight = 4
)

// GetMany implements Session.
func (s *session) GetMany(paths []string) []GetResult {
	results := make([]GetResult, len(paths))
	full := make([]string, len(paths))
	total := 0
	for i, path := range paths {
		full[i], results[i].Err = s.full(path)
		total += len(full[i])
	}
	chunks := chunkPaths(full)
	parallel.For(len(chunks), multiReadInFlight, func(i int) {
		from, to := chunks[i][0], chunks[i][1]
		s.getChunk(full[from:to], results[from:to])
	})
	for i := range results {
		results[i].Err = opError("get", paths[i], results[i].Err)
	}
	return results
}

// chunkPaths splits the paths into half-open ranges, each small enough for one request.
func chunkPaths(paths []string) [][2]int {
	var chunks [][2]int
	from, size := 0, 0
	for i, path := range paths {
		if i > from && (i-from == multiReadPaths || size+len(path) > multiReadBytes) {
			chunks = append(chunks, [2]int{from, i})
			from, size = i, 0
		}
		size += len(path) + 14
	}
	if from < len(paths) {
		chunks = append(chunks, [2]int{from, len(paths)})
	}
	return chunks
}

// getChunk reads a chunk by one multiRead; if the server has none, or the answer would be too large, by single reads.
func (s *session) getChunk(paths []string, results []GetResult) {
	if len(paths) > 1 && !s.client.noMultiRead.Load() && !slices.Contains(paths, "") {
		err := s.multiRead(paths, results)
		if err == nil {
			return
		}
		if errors.Is(err, errUnimplemented) && !s.client.noMultiRead.Swap(true) {
			s.log.Info().Msg("the ensemble has no multiRead (ZooKeeper before 3.6): bulk reads are slower")
		}
		if errors.Is(err, ErrSessionLost) {
			for i := range results {
				results[i].Err = err
			}
			return
		}
	}
	parallel.For(len(paths), s.client.maxInFlight, func(i int) {
		if results[i].Err == nil {
			results[i].Data, results[i].Stat, results[i].Err = s.getFull(paths[i])
		}
	})
}

var errUnimplemented = errors.New("the server does not know this request")

func (s *session) multiRead(paths []string, results []GetResult) error {
	var request []byte
	for _, path := range paths {
		request = appendMultiHeader(request, opcodeGetData, false)
		request = appendPathRequest(request, path, false)
	}
	request = appendMultiHeader(request, opcodeError, true)
	a, err := s.call(opcodeMultiRead, request)
	if err != nil {
		return err
	}
	if a.code == codeUnimplemented {
		return errUnimplemented
	}
	if err := codeError(a.code); err != nil {
		return err
	}
	return decodeMultiRead(a.body, results)
}

// decodeMultiRead reads the results of one multiRead. Data are parts of body.
func decodeMultiRead(body []byte, results []GetResult) error {
	r := juteReader{b: body}
	for i := range results {
		kind, done := r.int32(), r.bool()
		r.int32() // error, repeated in the record
		if r.err != nil || done {
			return errAnswerShape
		}
		var result GetResult
		switch kind {
		case opcodeGetData:
			result.Data = r.bytes()
			result.Stat = r.stat()
		case opcodeError:
			result.Err = codeError(r.int32())
		default:
			return errAnswerShape
		}
		if r.err != nil {
			return r.err
		}
		results[i] = result
	}
	return nil
}

var errAnswerShape = errors.New("the server's answer has another shape than the request")
