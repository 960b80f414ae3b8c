package broker

import (
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/logstore"
	"ottla/zkcoord"
)

// explained is a protocol verdict with a sentence for the client.
type explained struct {
	verdict *kerr.Error
	message string
}

func (e *explained) Error() string { return e.message }
func (e *explained) Unwrap() error { return e.verdict }

// withMessage gives a verdict its own sentence, for the answers that have room for one.
func withMessage(verdict *kerr.Error, message string) error { return &explained{verdict, message} }

// ownMessage is the sentence that a verdict was given, "" for none.
func ownMessage(err error) string {
	var e *explained
	if errors.As(err, &e) {
		return e.message
	}
	return ""
}

// errorMessage is the sentence that goes into an answer's error message.
func errorMessage(err error) string {
	var e *explained
	if errors.As(err, &e) {
		return e.message
	}
	var verdict *kerr.Error
	if errors.As(err, &verdict) {
		return verdict.Description
	}
	return kerr.UnknownServerError.Description
}

// errorCode is the only place that turns an error into a code of the wire: verdicts are returned as they are, faults of the
// machine are looked up, and what nobody foresaw is UNKNOWN_SERVER_ERROR, an error line and a counter.
func (b *Broker) errorCode(err error) int16 { return b.verdict(err).Code }

func (b *Broker) verdict(err error) *kerr.Error {
	if err == nil {
		return noError
	}
	var verdict *kerr.Error
	if errors.As(err, &verdict) {
		return verdict
	}
	var storage *logstore.StorageError
	if errors.As(err, &storage) {
		return kerr.KafkaStorageError
	}
	for _, f := range faults {
		if errors.Is(err, f.fault) {
			return f.verdict
		}
	}
	b.metrics.unknownErrors.Inc()
	b.log.Error().Err(err).Msg("unexpected error answered as UNKNOWN_SERVER_ERROR")
	return kerr.UnknownServerError
}

// noError has code 0 (NONE).
var noError = &kerr.Error{Message: "NONE", Code: 0}

// faults maps what can go wrong with the machine to what the client should do about it.
var faults = []struct {
	fault   error
	verdict *kerr.Error
}{
	{logstore.ErrClosed, kerr.KafkaStorageError},
	{logstore.ErrCorrupt, kerr.CorruptMessage},
	{zkcoord.ErrSessionLost, kerr.NotController},
	{zkcoord.ErrConnectionLost, kerr.RequestTimedOut},
}
