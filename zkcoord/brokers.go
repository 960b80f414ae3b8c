package zkcoord

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"ottla/internal/cluster"
)

// FeatureRange is a range of versions of a named feature.
type FeatureRange struct{ Min, Max int16 }

// Registration is the payload of /brokers/ids/N, version 5.
type Registration struct {
	Endpoints []cluster.Endpoint
	Rack      string // empty = unset
	JMXPort   int32  // -1 = none
	Timestamp time.Time
	Features  map[string]FeatureRange // supported; {} for a broker of 3.9 in ZooKeeper mode
}

// EncodeRegistration writes version 5. Host and port are those of the first PLAINTEXT endpoint, for clients of old.
func EncodeRegistration(r Registration) []byte {
	b := appendObject([]byte(`{"features":`), r.Features, func(b []byte, f FeatureRange) []byte {
		return fmt.Appendf(b, `{"min_version":%d,"max_version":%d}`, f.Min, f.Max)
	})
	b = append(b, `,"listener_security_protocol_map":{`...)
	for i, e := range r.Endpoints {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendQuoted(append(appendQuoted(b, e.Listener), ':'), e.Protocol)
	}
	b = appendList(append(b, `},"endpoints":`...), r.Endpoints, func(b []byte, e cluster.Endpoint) []byte {
		return appendQuoted(b, e.Listener+"://"+net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port))))
	})
	if r.Rack != "" {
		b = appendQuoted(append(b, `,"rack":`...), r.Rack)
	}
	b = appendInt(append(b, `,"jmx_port":`...), r.JMXPort)
	i := slices.IndexFunc(r.Endpoints, func(e cluster.Endpoint) bool { return e.Protocol == "PLAINTEXT" })
	if i < 0 {
		b = append(b, `,"port":-1,"host":null`...)
	} else {
		b = appendInt(append(b, `,"port":`...), r.Endpoints[i].Port)
		b = appendQuoted(append(b, `,"host":`...), r.Endpoints[i].Host)
	}
	b = append(b, `,"version":5,"timestamp":`...)
	return append(appendTimestamp(b, r.Timestamp), '}')
}

// appendTimestamp appends ms since 1970 as a string.
func appendTimestamp(b []byte, t time.Time) []byte {
	return append(strconv.AppendInt(append(b, '"'), t.UnixMilli(), 10), '"')
}

// DecodeRegistration reads versions 1 to 5, and later ones as 5.
func DecodeRegistration(data []byte) (Registration, error) {
	o, err := parseObject(data)
	if err != nil {
		return Registration{}, err
	}
	version, err := required[int32](o, "version")
	if err != nil {
		return Registration{}, err
	}
	var r Registration
	if r.JMXPort, err = required[int32](o, "jmx_port"); err != nil {
		return r, err
	}
	if r.Rack, err = optional(o, "rack", ""); err != nil {
		return r, err
	}
	if r.Features, err = decodeFeatureRanges(o); err != nil {
		return r, err
	}
	r.Timestamp = decodeTimestamp(o)
	if version < 1 {
		return r, fmt.Errorf("%w: version %d", ErrInvalid, version)
	}
	if version == 1 {
		r.Endpoints, err = decodeHostPort(o)
	} else {
		r.Endpoints, err = decodeEndpoints(o)
	}
	return r, err
}

// decodeTimestamp is lenient: nobody depends on it.
func decodeTimestamp(o object) time.Time {
	text, _ := optional(o, "timestamp", "")
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

func decodeFeatureRanges(o object) (map[string]FeatureRange, error) {
	raw, err := optional[map[string]object](o, "features", nil)
	if err != nil {
		return nil, err
	}
	features := make(map[string]FeatureRange, len(raw))
	for name, versions := range raw {
		lowest, err := required[int16](versions, "min_version")
		if err != nil {
			return nil, fmt.Errorf("feature %q: %w", name, err)
		}
		highest, err := required[int16](versions, "max_version")
		if err != nil {
			return nil, fmt.Errorf("feature %q: %w", name, err)
		}
		features[name] = FeatureRange{Min: lowest, Max: highest}
	}
	return features, nil
}

func decodeHostPort(o object) ([]cluster.Endpoint, error) {
	host, err := required[string](o, "host")
	if err != nil {
		return nil, err
	}
	port, err := required[int32](o, "port")
	return []cluster.Endpoint{{Listener: "PLAINTEXT", Protocol: "PLAINTEXT", Host: host, Port: port}}, err
}

func decodeEndpoints(o object) ([]cluster.Endpoint, error) {
	protocols := map[string]string{}
	if o.has("listener_security_protocol_map") {
		raw, err := o.strings("listener_security_protocol_map")
		if err != nil {
			return nil, err
		}
		for listener, protocol := range raw {
			protocols[strings.ToUpper(listener)] = protocol
		}
	}
	texts, err := required[[]string](o, "endpoints")
	if err != nil {
		return nil, err
	}
	endpoints := make([]cluster.Endpoint, len(texts))
	for i, text := range texts {
		if endpoints[i], err = parseEndpoint(text); err != nil {
			return nil, err
		}
		protocol, found := protocols[endpoints[i].Listener]
		if !found {
			protocol = endpoints[i].Listener
		}
		endpoints[i].Protocol = protocol
	}
	return endpoints, nil
}

// parseEndpoint reads NAME://host:port; an IPv6 address may stand in brackets.
func parseEndpoint(text string) (cluster.Endpoint, error) {
	listener, address, found := strings.Cut(text, "://")
	colon := strings.LastIndexByte(address, ':')
	if !found || listener == "" || colon < 0 {
		return cluster.Endpoint{}, fmt.Errorf("%w: endpoint %q is not NAME://host:port", ErrInvalid, text)
	}
	port, err := strconv.ParseInt(address[colon+1:], 10, 32)
	if err != nil {
		return cluster.Endpoint{}, fmt.Errorf("%w: endpoint %q: %w", ErrInvalid, text, err)
	}
	host := strings.TrimSuffix(strings.TrimPrefix(address[:colon], "["), "]")
	return cluster.Endpoint{Listener: strings.ToUpper(listener), Host: host, Port: int32(port)}, nil
}

// ErrBrokerIDTaken: somebody else's session holds the registration. It may be the session of a former life of this very broker,
// which then expires; the facts let the caller tell, and say what is going on.
type ErrBrokerIDTaken struct {
	ID           cluster.BrokerID
	Owner        int64 // session id
	Created      time.Time
	Registration Registration // zero if unreadable
}

func (e *ErrBrokerIDTaken) Error() string {
	return fmt.Sprintf("broker id %d is registered by session %s since %s, at %v: another broker has this id, or the session of this "+
		"broker's former process has not expired yet", e.ID, hexID(e.Owner), e.Created.UTC().Format(time.RFC3339), e.Registration.Endpoints)
}

// RegisterBroker registers the broker in this session and returns its epoch, the czxid of the registration. previous is the session
// id under which this process was registered before, or 0: a registration that is left of it is replaced. A registration of any
// other session is an *ErrBrokerIDTaken. It may be called again in the same session: the epoch stays, the payload is brought up to
// date. Source: KAFKA-1387, KAFKA-7165, KIP-380.
func RegisterBroker(s Session, id cluster.BrokerID, r Registration, previous int64) (cluster.BrokerEpoch, error) {
	path, payload := BrokerPath(id), EncodeRegistration(r)
	for {
		// Created empty, then set: the answer to a set carries the czxid, the answer to a create does not.
		results, err := s.Multi(CreateOp(path, nil, Ephemeral), SetOp(path, payload, 0))
		switch {
		case err == nil:
			return cluster.BrokerEpoch(results[1].Stat.Czxid), nil
		case errors.Is(err, ErrNoNode):
			if err := EnsurePaths(s); err != nil {
				return cluster.NoBrokerEpoch, err
			}
			continue
		case !errors.Is(err, ErrNodeExists) && !errors.Is(err, ErrConnectionLost):
			return cluster.NoBrokerEpoch, err
		}
		data, stat, err := s.Get(path)
		if errors.Is(err, ErrNoNode) {
			continue
		}
		if err != nil {
			return cluster.NoBrokerEpoch, err
		}
		switch {
		case stat.EphemeralOwner == s.ID(): // the reply was lost, or it is a repetition
			if string(data) != string(payload) {
				err = UpdateRegistration(s, id, r)
			}
			if errors.Is(err, ErrNoNode) {
				continue
			}
			return cluster.BrokerEpoch(stat.Czxid), err
		case previous != 0 && stat.EphemeralOwner == previous: // ZOOKEEPER-2985: it may outlive its session for a moment
			if err := s.Delete(path, stat.Version); err != nil && !retryable(err) {
				return cluster.NoBrokerEpoch, err
			}
		default:
			taken := &ErrBrokerIDTaken{ID: id, Owner: stat.EphemeralOwner, Created: time.UnixMilli(stat.Ctime)}
			taken.Registration, _ = DecodeRegistration(data)
			return cluster.NoBrokerEpoch, taken
		}
	}
}

// retryable errors of a conditional write mean: read again, decide again.
func retryable(err error) bool {
	return errors.Is(err, ErrNoNode) || errors.Is(err, ErrNodeExists) || errors.Is(err, ErrBadVersion) || errors.Is(err, ErrConnectionLost)
}

// UpdateRegistration replaces the payload; the broker epoch stays. ErrNoNode if the broker is not registered.
func UpdateRegistration(s Session, id cluster.BrokerID, r Registration) error {
	return retryLost(func() error {
		_, err := s.Set(BrokerPath(id), EncodeRegistration(r), AnyVersion)
		return err
	})
}

// BrokerIDs lists the registered brokers, sorted. Children that are no numbers are named by a *BadNodesError beside the result.
func BrokerIDs(s Session) ([]cluster.BrokerID, error) {
	names, _, err := s.Children(BrokerIDsPath)
	if err != nil {
		return nil, err
	}
	var bad badNodes
	ids := make([]cluster.BrokerID, 0, len(names))
	for _, name := range names {
		id, err := strconv.ParseInt(name, 10, 32)
		if err != nil {
			bad.add(BrokerIDsPath+"/"+name, err)
			continue
		}
		ids = append(ids, cluster.BrokerID(id))
	}
	slices.Sort(ids)
	return ids, bad.err()
}

// ReadBroker reads one registration.
func ReadBroker(s Session, id cluster.BrokerID) (broker cluster.Broker, found bool, err error) {
	data, stat, err := s.Get(BrokerPath(id))
	if errors.Is(err, ErrNoNode) {
		return broker, false, nil
	}
	if err != nil {
		return broker, false, err
	}
	broker, err = decodeBroker(id, data, stat)
	return broker, err == nil, opError("decode", BrokerPath(id), err)
}

func decodeBroker(id cluster.BrokerID, data []byte, stat Stat) (cluster.Broker, error) {
	r, err := DecodeRegistration(data)
	return cluster.Broker{ID: id, Epoch: cluster.BrokerEpoch(stat.Czxid), Endpoints: r.Endpoints, Rack: r.Rack}, err
}

// Brokers reads all registrations, sorted by id. Unreadable ones are named by a *BadNodesError beside the result.
func Brokers(s Session) ([]cluster.Broker, error) {
	ids, err := BrokerIDs(s)
	var bad badNodes
	var badIDs *BadNodesError
	if errors.As(err, &badIDs) {
		bad = badIDs.Nodes
	} else if err != nil {
		return nil, err
	}
	paths := make([]string, len(ids))
	for i, id := range ids {
		paths[i] = BrokerPath(id)
	}
	brokers := make([]cluster.Broker, 0, len(ids))
	for i, r := range s.GetMany(paths) {
		switch {
		case errors.Is(r.Err, ErrNoNode): // gone since it was listed
		case r.Err != nil:
			return nil, r.Err
		default:
			broker, err := decodeBroker(ids[i], r.Data, r.Stat)
			if err != nil {
				bad.add(paths[i], err)
				continue
			}
			brokers = append(brokers, broker)
		}
	}
	return brokers, bad.err()
}
