package zkcoord

import (
	"errors"
	"fmt"
)

// Features is /feature: the finalized features of the cluster. A cluster of 3.9 in ZooKeeper mode has none.
type Features struct {
	Enabled   bool
	Finalized map[string]FeatureRange // Min is 0 where the payload has none (version 2)
	Version   int32                   // data version, the finalized features' epoch; not part of the payload
}

// EncodeFeatures writes version 2. Source: KIP-584.
func EncodeFeatures(f Features) []byte {
	b := appendObject([]byte(`{"features":`), f.Finalized, func(b []byte, r FeatureRange) []byte {
		return fmt.Appendf(b, `{"max_version_level":%d}`, r.Max)
	})
	status := 0
	if f.Enabled {
		status = 1
	}
	return fmt.Appendf(b, `,"version":2,"status":%d}`, status)
}

// DecodeFeatures reads versions 1 and 2.
func DecodeFeatures(data []byte) (f Features, err error) {
	o, err := parseObject(data)
	if err != nil {
		return f, err
	}
	status, err := required[int32](o, "status")
	if err != nil {
		return f, err
	}
	if status != 0 && status != 1 {
		return f, fmt.Errorf("%w: status %d", ErrInvalid, status)
	}
	f.Enabled = status == 1
	raw, err := optional[map[string]object](o, "features", nil)
	if err != nil {
		return f, err
	}
	f.Finalized = make(map[string]FeatureRange, len(raw))
	for name, levels := range raw {
		var r FeatureRange
		if r.Max, err = required[int16](levels, "max_version_level"); err != nil {
			return f, fmt.Errorf("feature %q: %w", name, err)
		}
		if r.Min, err = optional(levels, "min_version_level", int16(0)); err != nil {
			return f, fmt.Errorf("feature %q: %w", name, err)
		}
		f.Finalized[name] = r
	}
	return f, nil
}

// ReadFeatures reads /feature.
func ReadFeatures(s Session) (f Features, found bool, err error) {
	data, stat, err := s.Get(FeaturePath)
	if errors.Is(err, ErrNoNode) {
		return f, false, nil
	}
	if err != nil {
		return f, false, err
	}
	f, err = DecodeFeatures(data)
	f.Version = stat.Version
	return f, true, opError("decode", FeaturePath, err)
}

// EnsureFeatures is the controller's duty at failover: /feature exists and is enabled; without it Kafka's brokers stop.
func EnsureFeatures(s Session) error {
	f, found, err := ReadFeatures(s)
	if err != nil || found && f.Enabled {
		return err
	}
	return retryLost(func() error {
		payload := EncodeFeatures(Features{Enabled: true})
		if !found {
			err := s.CreateAll(FeaturePath, payload)
			if errors.Is(err, ErrNodeExists) {
				return nil
			}
			return err
		}
		_, err := s.Set(FeaturePath, payload, f.Version)
		if errors.Is(err, ErrBadVersion) {
			return nil
		}
		return err
	})
}
