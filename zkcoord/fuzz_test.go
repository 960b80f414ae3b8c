package zkcoord

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzPayloads: no payload makes a decoder panic, and what one accepts survives being written and read again.
func FuzzPayloads(f *testing.F) {
	text, err := os.ReadFile("testdata/kafka39.txt")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if _, payload, found := strings.Cut(strings.TrimSuffix(line, "\n"), " "); found && line[0] == '/' {
			f.Add([]byte(payload))
		}
	}
	f.Add([]byte(`{"version":1,"partitions":[{"topic":"orders","partition":0,"replicas":[4,5,6]}]}`))
	f.Add([]byte(`{"version":1,"broker":2,"event":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, r := range recoders {
			once, err := r.again(data)
			if err != nil {
				continue
			}
			twice, err := r.again(once)
			if err != nil {
				t.Errorf("%s: %q became %q, which is unreadable: %v", r.name, data, once, err)
			} else if string(once) != string(twice) {
				t.Errorf("%s: %q became %q, then %q", r.name, data, once, twice)
			}
		}
		_ = controllerEpochOf(data)
		if usual, ok := decodeUsualState(data); ok {
			general, err := decodeAnyState(data)
			if err != nil || !cmp.Equal(usual, general) {
				t.Errorf("%q: the short way reads %+v, the general way %+v, %v", data, usual, general, err)
			}
		}
	})
}

func controllerEpochOf(data []byte) error {
	_, _ = Sequence(string(data))
	_, err := DesanitizeEntity(string(data))
	return err
}

// FuzzMultiRead: an answer of any bytes is an error or results, never a panic.
func FuzzMultiRead(f *testing.F) {
	f.Add([]byte{}, 1)
	good := appendMultiHeader(nil, opcodeGetData, false)
	good = appendString(good, "data")
	good = append(good, make([]byte, statBytes)...)
	f.Add(appendMultiHeader(good, opcodeError, true), 1)
	missing := appendMultiHeader(nil, opcodeError, false)
	f.Add(append(missing, 0xff, 0xff, 0xff, 0x9b), 1)
	f.Fuzz(func(t *testing.T, body []byte, n int) {
		results := make([]GetResult, min(max(n, 0), 100))
		if err := decodeMultiRead(body, results); err != nil {
			return
		}
		for _, r := range results {
			if errors.Is(r.Err, ErrNoNode) && r.Data != nil {
				t.Error("data of a znode that is not there")
			}
		}
		_, _, _ = childrenStat(body)
		_, _, _ = statAndPzxid(body)
	})
}
