package zkcoord

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"math"

	"ottla/internal/cluster"
)

// EnsurePaths creates the containers that every broker expects, where they are missing.
func EnsurePaths(s Session) error {
	for _, path := range topLevelPaths {
		found, _, err := s.Exists(path)
		if err == nil && !found {
			err = retryLost(func() error { return s.CreateAll(path, nil) })
		}
		if err != nil && !errors.Is(err, ErrNodeExists) {
			return err
		}
	}
	return nil
}

// retryLost repeats a write over lost connections; only for writes that may be done twice.
func retryLost(write func() error) error {
	for {
		if err := write(); !errors.Is(err, ErrConnectionLost) {
			return err
		}
	}
}

// ClusterID returns the cluster's id: 16 random bytes as URL-safe base64 without padding. The first broker ever makes it.
func ClusterID(s Session) (string, error) {
	for {
		data, _, err := s.Get(ClusterIDPath)
		if err == nil {
			return decodeClusterID(data)
		}
		if !errors.Is(err, ErrNoNode) {
			return "", err
		}
		err = retryLost(func() error { return s.CreateAll(ClusterIDPath, encodeClusterID(newClusterID())) })
		if err != nil && !errors.Is(err, ErrNodeExists) {
			return "", err
		}
	}
}

// newClusterID returns a random id that does not begin with '-', so that command lines can carry it.
func newClusterID() string {
	for {
		var raw [16]byte
		_, _ = rand.Read(raw[:]) // never fails
		if id := base64.RawURLEncoding.EncodeToString(raw[:]); id[0] != '-' {
			return id
		}
	}
}

func encodeClusterID(id string) []byte {
	return append(appendQuoted([]byte(`{"version":"1","id":`), id), '}')
}

func decodeClusterID(data []byte) (string, error) {
	o, err := parseObject(data)
	if err != nil {
		return "", opError("decode", ClusterIDPath, err)
	}
	id, err := required[string](o, "id")
	return id, opError("decode", ClusterIDPath, err)
}

// NextBrokerID returns a broker id that was never given out: reserved.broker.max.id plus the number of times /brokers/seqid was set.
func NextBrokerID(s Session, reserved int32) (cluster.BrokerID, error) {
	var stat Stat
	err := retryLost(func() (err error) {
		stat, err = s.Set(BrokerSeqIDPath, nil, AnyVersion)
		if errors.Is(err, ErrNoNode) {
			if err = s.CreateAll(BrokerSeqIDPath, nil); err == nil || errors.Is(err, ErrNodeExists) {
				err = ErrConnectionLost // once more
			}
		}
		return err
	})
	if err != nil {
		return cluster.NoBroker, err
	}
	if int64(reserved)+int64(stat.Version) > math.MaxInt32 {
		return cluster.NoBroker, fmt.Errorf("%w: no broker ids left above reserved.broker.max.id=%d", ErrInvalid, reserved)
	}
	return cluster.BrokerID(reserved + stat.Version), nil
}
