package quota

import (
	"maps"
	"strconv"

	"ottla/internal/cluster"
)

// Kind is one of the limits that users, clients or addresses can have.
type Kind int

const (
	Produce     Kind = iota // bytes a second that are sent
	Fetch                   // bytes a second that are fetched
	Request                 // percent of one processor's time
	Mutation                // partitions created or deleted a second
	Connections             // connections opened a second from an address
	kinds
)

// Keys are the kinds' names in ZooKeeper and on the wire.
var Keys = [kinds]string{"producer_byte_rate", "consumer_byte_rate", "request_percentage", "controller_mutation_rate", "connection_creation_rate"}

// limit is what an entity may do of each kind; negative: nothing is said.
type limit [kinds]float64

// Limits are those of all entities. A value is immutable; the zero value limits nobody.
type Limits struct {
	of  map[cluster.ClientEntity]limit
	any [kinds]bool // somebody has one
}

// With is the limits with an entity's settings as they stand now. What is no quota, or no number, is passed over.
func (l *Limits) With(e cluster.ClientEntity, settings map[string]string) *Limits {
	next := &Limits{of: maps.Clone(l.of)}
	if next.of == nil {
		next.of = map[cluster.ClientEntity]limit{}
	}
	delete(next.of, e)
	if own, some := limitOf(settings); some {
		next.of[e] = own
	}
	for _, own := range next.of {
		for k, v := range own {
			next.any[k] = next.any[k] || v >= 0
		}
	}
	return next
}

func limitOf(settings map[string]string) (own limit, some bool) {
	for k, key := range Keys {
		own[k] = -1
		if v, err := strconv.ParseFloat(settings[key], 64); err == nil && v >= 0 {
			own[k], some = v, true
		}
	}
	return own, some
}

// Find gives the limit that counts for a client: the nearest one, as KIP-55 orders them. whose says with whom it is shared: a user's
// limit among all his clients, a client's among all its connections, a default not at all.
func (l *Limits) Find(k Kind, user, client string) (whose cluster.ClientEntity, most float64, ok bool) {
	if !l.any[k] {
		return whose, 0, false
	}
	const everybody = cluster.DefaultEntity
	both, onlyUser, onlyClient := cluster.ClientEntity{User: user, Client: client}, cluster.ClientEntity{User: user}, cluster.ClientEntity{Client: client}
	for _, step := range [...]struct{ look, share cluster.ClientEntity }{
		{both, both},
		{cluster.ClientEntity{User: user, Client: everybody}, both},
		{onlyUser, onlyUser},
		{cluster.ClientEntity{User: everybody, Client: client}, both},
		{cluster.ClientEntity{User: everybody, Client: everybody}, both},
		{cluster.ClientEntity{User: everybody}, onlyUser},
		{onlyClient, onlyClient},
		{cluster.ClientEntity{Client: everybody}, onlyClient},
	} {
		if own, found := l.of[step.look]; found && own[k] >= 0 {
			return step.share, own[k], true
		}
	}
	return whose, 0, false
}

// FindIP gives the limit on connections of an address.
func (l *Limits) FindIP(ip string) (most float64, ok bool) {
	for _, e := range []cluster.ClientEntity{{IP: ip}, {IP: cluster.DefaultEntity}} {
		if own, found := l.of[e]; found && own[Connections] >= 0 {
			return own[Connections], true
		}
	}
	return 0, false
}
