package wire

import "github.com/twmb/franz-go/pkg/kmsg"

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
	// MaxBytes bounds the frame, 0 means Options.MaxRequestBytes.
	MaxBytes int
}

// Table is the set of APIs that a server speaks: dispatch, version checks and the answer to ApiVersions derive from it.
// It is constant once built.
type Table struct {
	apis [maxKey + 1]*api
}

// maxKey is the highest request key that Kafka 3.9 serves in ZooKeeper mode.
const maxKey = 69

// api is an API with what the server adds.
type api struct {
	API
	name string
}

// NewTable builds a table. It panics on a key that is unknown, doubled or has an empty version range: the table is code.
// ApiVersions (key 18) is added unless it is given.
func NewTable(apis ...API) *Table { panic("todo") }

// Versions returns the served version range of a key.
func (t *Table) Versions(key int16) (min, max int16, ok bool) { panic("todo") }

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

// ApiVersions builds the answer to an ApiVersions request of a supported version.
func (t *Table) ApiVersions(version int16, f Features) *kmsg.ApiVersionsResponse { panic("todo") }
