package wire

import (
	"fmt"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// API is one line of the table: a request key with the versions that are served.
type API struct {
	Key, Min, Max int16
	Handle        func(*Request)
	// Pipelined APIs do not hold up the requests behind them while their answer is pending. For all others the connection's
	// next request is handled only once this one is answered, as Kafka does for every request: so the effects of one
	// connection's requests have their order. A handler that answers before it returns holds up nothing either way.
	Pipelined bool
	// Borrow lets the strings of the decoded request point into the frame. Byte slices always do.
	Borrow bool
	// MaxBytes bounds the frame. 0 stands for Options.MaxRequestBytes where record data or the whole cluster's state is sent
	// (Produce, LeaderAndIsr, StopReplica, UpdateMetadata), and for at most 16 MiB elsewhere.
	MaxBytes int
}

// Table is the set of APIs that a server speaks: dispatch, version checks and the answer to ApiVersions derive from it.
// It is constant once built.
type Table struct {
	apis [maxKey + 1]*api
	keys []kmsg.ApiVersionsResponseApiKey // ascending
}

// maxKey is the highest request key that Kafka 3.9 serves in ZooKeeper mode.
const maxKey = 69

// defaultMaxBytes bounds the frames of ordinary requests: what they decode to may be a multiple of their length.
const defaultMaxBytes = 16 << 20

// api is an API with what the server adds.
type api struct {
	API
	name string
	// answerBytes is the size of a recent answer: how much room the next one is likely to need.
	answerBytes atomic.Int32
}

// NewTable builds a table. It panics on a key that is unknown, doubled or has an empty version range: the table is code.
// ApiVersions (key 18) is added unless it is given.
func NewTable(apis ...API) *Table {
	t := new(Table)
	for _, a := range apis {
		t.add(a)
	}
	if t.apis[keyAPIVersions] == nil {
		t.add(API{Key: keyAPIVersions, Min: 0, Max: 4, Handle: handleAPIVersions})
	}
	for key, a := range t.apis {
		if a == nil {
			continue
		}
		k := kmsg.NewApiVersionsResponseApiKey()
		k.ApiKey, k.MinVersion, k.MaxVersion = int16(key), a.Min, a.Max
		t.keys = append(t.keys, k)
	}
	return t
}

func (t *Table) add(a API) {
	switch {
	case !knownKey(a.Key) || kmsg.RequestForKey(a.Key) == nil:
		panic(fmt.Sprintf("wire: unknown request key %d", a.Key))
	case t.apis[a.Key] != nil:
		panic(fmt.Sprintf("wire: request key %d twice", a.Key))
	case a.Min < 0 || a.Max < a.Min || a.Max > kmsg.RequestForKey(a.Key).MaxVersion():
		panic(fmt.Sprintf("wire: request key %d: versions %d–%d", a.Key, a.Min, a.Max))
	case a.Handle == nil:
		panic(fmt.Sprintf("wire: request key %d has no handler", a.Key))
	}
	t.apis[a.Key] = &api{API: a, name: requestName(a.Key)}
}

// Versions returns the served version range of a key.
func (t *Table) Versions(key int16) (min, max int16, ok bool) {
	if a := t.lookup(key); a != nil {
		return a.Min, a.Max, true
	}
	return 0, 0, false
}

func (t *Table) lookup(key int16) *api {
	if !knownKey(key) {
		return nil
	}
	return t.apis[key]
}

// maxBytes is the largest frame of a request key, limit the server's own bound.
func (t *Table) maxBytes(key int16, limit int) int {
	a := t.lookup(key)
	switch {
	case a == nil:
		return limit // refused by its key once its header has been read
	case a.MaxBytes > 0:
		return min(a.MaxBytes, limit)
	}
	switch key {
	case keyProduce, keyLeaderAndISR, keyStopReplica, keyUpdateMetadata:
		return limit
	}
	return min(defaultMaxBytes, limit)
}

// Features is what ApiVersions v3 and later tell besides the version ranges.
type Features struct {
	Supported []SupportedFeature
	// FinalizedEpoch is the version of the feature znode, or -1.
	FinalizedEpoch int64
}

// SupportedFeature is a feature with the levels that this broker understands.
type SupportedFeature struct {
	Name     string
	Min, Max int16
}

// ApiVersions builds the answer to an ApiVersions request of a supported version. Features with minimum 0 are told from
// version 4 on: older Java clients fail to parse them. Nothing is finalised in a ZooKeeper-mode cluster.
func (t *Table) ApiVersions(version int16, f Features) *kmsg.ApiVersionsResponse {
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.Version = version
	resp.ApiKeys = t.keys
	resp.FinalizedFeaturesEpoch = f.FinalizedEpoch
	for _, s := range f.Supported {
		if s.Min == 0 && version < 4 {
			continue
		}
		feature := kmsg.NewApiVersionsResponseSupportedFeature()
		feature.Name, feature.MinVersion, feature.MaxVersion = s.Name, s.Min, s.Max
		resp.SupportedFeatures = append(resp.SupportedFeatures, feature)
	}
	return resp
}

// apiVersionsFallback is the answer to an ApiVersions request of a version that is not served: the v0 layout, the error, and the
// served range of ApiVersions itself.
func (t *Table) apiVersionsFallback() *kmsg.ApiVersionsResponse {
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.ErrorCode = kerr.UnsupportedVersion.Code
	for _, k := range t.keys {
		if k.ApiKey == keyAPIVersions {
			resp.ApiKeys = []kmsg.ApiVersionsResponseApiKey{k}
		}
	}
	return resp
}

// handleAPIVersions serves ApiVersions v0–4. From version 3 on the client names its software, which must look like a name.
func handleAPIVersions(r *Request) {
	req := r.Body.(*kmsg.ApiVersionsRequest)
	if r.Version >= 3 {
		if !softwareToken(req.ClientSoftwareName) || !softwareToken(req.ClientSoftwareVersion) {
			resp := req.ResponseKind().(*kmsg.ApiVersionsResponse)
			resp.ErrorCode = kerr.InvalidRequest.Code
			r.Respond(resp)
			return
		}
		r.Conn.setSoftware(req.ClientSoftwareName, req.ClientSoftwareVersion)
	}
	f := Features{FinalizedEpoch: -1}
	if ask := r.Conn.server.o.Features; ask != nil {
		f = ask()
	}
	r.Respond(r.Conn.server.o.Table.ApiVersions(r.Version, f))
}

// softwareToken reports whether s is made of letters and digits, with dots and dashes only inside. Source: KIP-511.
func softwareToken(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case (c == '.' || c == '-') && i > 0 && i < len(s)-1:
		default:
			return false
		}
	}
	return s != ""
}
