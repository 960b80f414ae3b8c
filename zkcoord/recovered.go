package zkcoord

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"ottla/internal/cluster"
)

// RecoveredPath has an ephemeral child, named by its id, for each broker that came back after an unclean stop and found itself in
// in-sync sets beside others that were not there either: where its logs end now. From the ends of all of them the controller finds
// the log that lost least. Kafka's brokers and controllers do not know of it.
//
//	{"version":1,"topics":{"orders":{"0":{"state_epoch":7,"epoch":5,"end":1200}}}}
const RecoveredPath = "/ottla/recovered"

func recoveredPath(id cluster.BrokerID) string { return RecoveredPath + "/" + strconv.Itoa(int(id)) }

// LogEnd is where a log ended after recovery.
type LogEnd struct {
	StateEpoch cluster.LeaderEpoch `json:"state_epoch"` // leader epoch of the partition's state, when the broker came back
	Epoch      cluster.LeaderEpoch `json:"epoch"`       // of the last record
	End        int64               `json:"end"`         // exclusive
}

// Stands reports whether the word still concerns a partition in that state: no leader was elected since.
func (e LogEnd) Stands(st PartitionState) bool {
	return st.Leader == cluster.NoBroker || st.LeaderEpoch <= e.StateEpoch
}

type recoveredPayload struct {
	Version int                          `json:"version"`
	Topics  map[string]map[string]LogEnd `json:"topics"`
}

// TellRecovered says where a broker's logs end, until the end of the session. To be called before the broker registers.
func TellRecovered(s Session, id cluster.BrokerID, ends map[cluster.TopicPartition]LogEnd) error {
	payload := recoveredPayload{Version: 1, Topics: map[string]map[string]LogEnd{}}
	for tp, end := range ends {
		if payload.Topics[tp.Topic] == nil {
			payload.Topics[tp.Topic] = map[string]LogEnd{}
		}
		payload.Topics[tp.Topic][strconv.Itoa(int(tp.Partition))] = end
	}
	data, err := json.Marshal(payload)
	if err != nil {
		return err
	}
	if err := retryLost(func() error { return s.CreateAll(RecoveredPath, nil) }); err != nil && !errors.Is(err, ErrNodeExists) {
		return err
	}
	return retryLost(func() error {
		_, err := s.Create(recoveredPath(id), data, Ephemeral)
		if errors.Is(err, ErrNodeExists) { // of this session, before the answer was lost, or of an earlier one
			if err = s.Delete(recoveredPath(id), AnyVersion); err == nil || errors.Is(err, ErrNoNode) {
				_, err = s.Create(recoveredPath(id), data, Ephemeral)
			}
		}
		return err
	})
}

// ForgetRecovered takes the word back: every partition in question has a leader again.
func ForgetRecovered(s Session, id cluster.BrokerID) error {
	if err := s.Delete(recoveredPath(id), AnyVersion); err != nil && !errors.Is(err, ErrNoNode) {
		return err
	}
	return nil
}

// Recovered reads what brokers have said; those that have said nothing are missing.
func Recovered(s Session, ids []cluster.BrokerID) (map[cluster.BrokerID]map[cluster.TopicPartition]LogEnd, error) {
	paths := make([]string, len(ids))
	for i, id := range ids {
		paths[i] = recoveredPath(id)
	}
	all := map[cluster.BrokerID]map[cluster.TopicPartition]LogEnd{}
	err := readMany(s, paths, func(i int, r GetResult) error {
		ends, err := decodeRecovered(r.Data)
		all[ids[i]] = ends
		return err
	})
	return all, err
}

func decodeRecovered(data []byte) (map[cluster.TopicPartition]LogEnd, error) {
	var payload recoveredPayload
	if err := json.Unmarshal(data, &payload); err != nil {
		return nil, err
	}
	if payload.Version != 1 {
		return nil, fmt.Errorf("version %d, want 1", payload.Version)
	}
	ends := map[cluster.TopicPartition]LogEnd{}
	for topic, partitions := range payload.Topics {
		for number, end := range partitions {
			n, err := strconv.ParseInt(number, 10, 32)
			if err != nil {
				return nil, err
			}
			ends[cluster.TopicPartition{Topic: topic, Partition: int32(n)}] = end
		}
	}
	return ends, nil
}
