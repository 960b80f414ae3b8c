package controller

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/internal/cluster"
)

// Refusal is a verdict of the protocol with the words for the client.
type Refusal struct {
	Code    *kerr.Error
	Message string // "" when there is nothing to say beyond the code
}

func (e *Refusal) Error() string {
	if e.Message == "" {
		return e.Code.Error()
	}
	return e.Code.Message + ": " + e.Message
}

func (e *Refusal) Unwrap() error { return e.Code }

func refuse(code *kerr.Error, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Placement says where an assignment starts. The zero value of neither field is special: use RandomPlacement for new topics.
type Placement struct {
	First int // index of the broker that gets the first replica of partition 0
	Shift int // distance from the first to the second replica of partition 0, less one
}

// RandomPlacement is the placement of a new topic over n brokers.
func RandomPlacement(rng *rand.Rand, n int) Placement {
	if n <= 0 {
		return Placement{}
	}
	return Placement{First: rng.IntN(n), Shift: rng.IntN(n)}
}

// AssignReplicas spreads the replicas of count partitions, numbered from firstPartition, over brokers:
//
//   - First replicas go round the brokers, so that leaders are spread evenly.
//   - The other replicas follow at a distance that grows each time the partitions have gone round, so that the partitions of a
//     broker that dies fall to all others.
//   - With racks, brokers are first arranged so that neighbours are in different racks, and no rack gets a second replica of a
//     partition before every rack has one. Either all brokers name a rack or none.
//
// The result is that of Kafka 3.9 for the same placement. Brokers may come in any order. Errors are a *Refusal:
// INVALID_PARTITIONS, INVALID_REPLICATION_FACTOR, or UNKNOWN_SERVER_ERROR when only some brokers name a rack. Source: KIP-36.
func AssignReplicas(brokers []cluster.Broker, count, replicationFactor int, firstPartition int32, at Placement) (map[int32][]cluster.BrokerID, error) {
	switch {
	case count <= 0:
		return nil, refuse(kerr.InvalidPartitions, "Number of partitions must be larger than 0.")
	case replicationFactor <= 0:
		return nil, refuse(kerr.InvalidReplicationFactor, "Replication factor must be larger than 0.")
	case replicationFactor > len(brokers):
		return nil, refuse(kerr.InvalidReplicationFactor, "Replication factor: %d larger than available brokers: %d.", replicationFactor, len(brokers))
	}
	ring, err := newRing(brokers)
	if err != nil {
		return nil, err
	}
	n := len(ring.brokers)
	shift := at.Shift
	assigned := make(map[int32][]cluster.BrokerID, count)
	for i := range count {
		number := int(firstPartition) + i
		if number > 0 && number%n == 0 {
			shift++
		}
		assigned[int32(number)] = ring.place((number+at.First)%n, shift, replicationFactor)
	}
	return assigned, nil
}

// ring is the brokers in the order in which replicas go round.
type ring struct {
	brokers []cluster.BrokerID
	racks   map[cluster.BrokerID]string // nil without racks
	count   int                         // distinct racks
}

func newRing(brokers []cluster.Broker) (ring, error) {
	sorted := slices.Clone(brokers)
	slices.SortFunc(sorted, func(a, b cluster.Broker) int { return int(a.ID) - int(b.ID) })
	byRack := map[string][]cluster.BrokerID{}
	r := ring{racks: map[cluster.BrokerID]string{}}
	for _, b := range sorted {
		r.brokers = append(r.brokers, b.ID)
		r.racks[b.ID] = b.Rack
		byRack[b.Rack] = append(byRack[b.Rack], b.ID)
	}
	unnamed := len(byRack[""])
	switch {
	case unnamed == len(brokers):
		r.racks = nil
		return r, nil
	case unnamed > 0:
		return r, refuse(kerr.UnknownServerError, "Not all brokers have rack information for replica rack aware assignment.")
	}
	r.count = len(byRack)
	r.brokers = alternate(byRack)
	return r, nil
}

// alternate takes one broker of each rack in turn.
func alternate(byRack map[string][]cluster.BrokerID) []cluster.BrokerID {
	var out []cluster.BrokerID
	names := slices.Sorted(maps.Keys(byRack))
	for round := 0; ; round++ {
		more := false
		for _, name := range names {
			if round < len(byRack[name]) {
				out = append(out, byRack[name][round])
				more = true
			}
		}
		if !more {
			return out
		}
	}
}

// place puts the replicas of one partition: the first at an index, the others after it.
func (r ring) place(first, shift, replicationFactor int) []cluster.BrokerID {
	replicas := []cluster.BrokerID{r.brokers[first]}
	usedRacks := map[string]bool{r.racks[r.brokers[first]]: true}
	if r.racks != nil {
		shift *= r.count
	}
	for step := 0; len(replicas) < replicationFactor; step++ {
		id := r.after(first, shift+step)
		if r.racks != nil && (usedRacks[r.racks[id]] && len(usedRacks) < r.count || slices.Contains(replicas, id)) {
			continue
		}
		replicas = append(replicas, id)
		usedRacks[r.racks[id]] = true
	}
	return replicas
}

// after is the broker at a distance from the first one; never the first one itself.
func (r ring) after(first, distance int) cluster.BrokerID {
	n := len(r.brokers)
	return r.brokers[(first+1+distance%(n-1))%n]
}

// checkManualAssignment judges the assignment that a client gives for a new topic. Brokers need not exist, as in Kafka.
func checkManualAssignment(replicas map[int32][]cluster.BrokerID) error {
	size := -1
	for _, ids := range replicas {
		if size >= 0 && len(ids) != size {
			return refuse(kerr.InvalidReplicaAssignment, "All partitions should have the same number of replicas")
		}
		size = len(ids)
	}
	for _, ids := range replicas {
		if hasDuplicates(ids) {
			return refuse(kerr.InvalidReplicaAssignment, "Duplicate replica assignment found: %s", scalaMap(replicas))
		}
	}
	for number := range replicas {
		if number < 0 || int(number) >= len(replicas) {
			return refuse(kerr.InvalidReplicaAssignment, "partitions should be a consecutive 0-based integer sequence")
		}
	}
	return nil
}

// checkAddedAssignment judges the assignment that a client gives for partitions that are added to a topic.
func checkAddedAssignment(replicas map[int32][]cluster.BrokerID, replicationFactor int, brokers []cluster.BrokerID) error {
	var bad, factors []string
	for _, number := range slices.Sorted(maps.Keys(replicas)) {
		ids := replicas[number]
		switch {
		case len(ids) == 0:
			return refuse(kerr.InvalidReplicaAssignment, "Cannot have replication factor of 0 for partition id %d.", number)
		case hasDuplicates(ids):
			return refuse(kerr.InvalidReplicaAssignment, "Duplicate brokers not allowed in replica assignment: %s for partition id %d.",
				joinIDs(ids), number)
		case !subset(ids, brokers):
			return refuse(kerr.BrokerNotAvailable,
				"Some brokers specified for partition id %d are not available. Specified brokers: %s, available brokers: %s.",
				number, joinIDs(ids), joinIDs(brokers))
		case len(ids) != replicationFactor:
			bad, factors = append(bad, strconv.Itoa(int(number))), append(factors, strconv.Itoa(len(ids)))
		}
	}
	if len(bad) > 0 {
		return refuse(kerr.InvalidReplicaAssignment, "Inconsistent replication factor between partitions, partition 0 has %d while "+
			"partitions [%s] have replication factors [%s], respectively.", replicationFactor, strings.Join(bad, ", "), strings.Join(factors, ", "))
	}
	return nil
}

// Lists in messages look as Kafka prints them.

func joinIDs(ids []cluster.BrokerID) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = strconv.Itoa(int(id))
	}
	return strings.Join(texts, ", ")
}

func scalaSeq(ids []cluster.BrokerID) string { return "ArrayBuffer(" + joinIDs(ids) + ")" }

func scalaSet(ids []cluster.BrokerID) string { return "Set(" + joinIDs(ids) + ")" }

func scalaMap(replicas map[int32][]cluster.BrokerID) string {
	var entries []string
	for _, number := range slices.Sorted(maps.Keys(replicas)) {
		entries = append(entries, fmt.Sprintf("%d -> %s", number, scalaSeq(replicas[number])))
	}
	return "HashMap(" + strings.Join(entries, ", ") + ")"
}
