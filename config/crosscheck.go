package config

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// crossCheck judges settings that must fit each other. All of it is also refused by Kafka 3.9 at its start.
func (s *Snapshot) crossCheck() []error {
	var errs []error
	for _, check := range []func(*Snapshot) error{checkCoordination, checkIdentity, checkLog, checkCleaner, checkReplication,
		checkConnections, checkOffsets, checkListeners, checkSASL} {
		if err := check(s); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// unfit says that a value does not fit another key's.
func unfit(key string, value any, format string, args ...any) error {
	return &ValueError{Key: key, Value: fmt.Sprint(value), Want: fmt.Sprintf(format, args...)}
}

func checkCoordination(s *Snapshot) error {
	if roles, _, _ := s.Value(ProcessRoles.Name); roles != "" {
		return unfit(ProcessRoles.Name, roles, "it unset: Ottla is coordinated by ZooKeeper, not by KRaft")
	}
	if ZookeeperConnect.Of(s) == "" {
		return errors.New("zookeeper.connect is not set: name the ensemble, for example zookeeper.connect=localhost:2181")
	}
	return nil
}

func checkIdentity(s *Snapshot) error {
	id, node, reserved := BrokerID.Of(s), NodeID.Of(s), ReservedBrokerMaxID.Of(s)
	switch {
	case id != node:
		return unfit(NodeID.Name, node, "the same as broker.id (%d), or one of them unset", id)
	case !BrokerIDGenerationEnable.Of(s) && id < 0:
		return unfit(BrokerID.Name, id, "0 or more when broker.id.generation.enable=false")
	case BrokerIDGenerationEnable.Of(s) && (id < -1 || id > reserved):
		return unfit(BrokerID.Name, id, "-1 to reserved.broker.max.id (%d) while broker.id.generation.enable=true", reserved)
	}
	return nil
}

func checkLog(s *Snapshot) error {
	switch {
	case len(LogDirs.Of(s)) == 0:
		return errors.New("log.dirs names no directory")
	case LogRetentionMs.Of(s) == 0:
		return unfit(setOne(s, LogRetentionMs.Info), 0, "-1 (unlimited) or at least 1")
	case LogRollMs.Of(s) < time.Millisecond:
		return unfit(LogRollMs.Name, LogRollMs.Of(s).Milliseconds(), "at least 1")
	case LogRollJitterMs.Of(s) < 0:
		return unfit(LogRollJitterMs.Name, LogRollJitterMs.Of(s).Milliseconds(), "at least 0")
	}
	return nil
}

// setOne is the key that gives another its value: itself or the first synonym that is set.
func setOne(s *Snapshot, i *Info) string {
	for _, name := range append([]string{i.Name}, i.Synonyms...) {
		if _, set := s.values[name]; set {
			return name
		}
	}
	return i.Name
}

func checkCleaner(s *Snapshot) error {
	threads, buffer := LogCleanerThreads.Of(s), LogCleanerDedupeBufferSize.Of(s)
	switch {
	case !LogCleanerEnable.Of(s):
		return nil
	case threads < 1:
		return unfit(LogCleanerThreads.Name, threads, "at least 1 while log.cleaner.enable=true")
	case buffer/int64(threads) <= 1<<20:
		return unfit(LogCleanerDedupeBufferSize.Name, buffer, "more than 1048576 for each of log.cleaner.threads (%d)", threads)
	}
	return nil
}

func checkReplication(s *Snapshot) error {
	wait, lag, socket := ReplicaFetchWaitMaxMs.Of(s), ReplicaLagTimeMaxMs.Of(s), ReplicaSocketTimeoutMs.Of(s)
	switch {
	case wait > socket:
		return unfit(ReplicaFetchWaitMaxMs.Name, wait.Milliseconds(), "at most replica.socket.timeout.ms (%d)", socket.Milliseconds())
	case wait > lag:
		return unfit(ReplicaFetchWaitMaxMs.Name, wait.Milliseconds(), "at most replica.lag.time.max.ms (%d)", lag.Milliseconds())
	case NumReplicaFetchers.Of(s) < 1:
		return unfit(NumReplicaFetchers.Name, NumReplicaFetchers.Of(s), "at least 1")
	}
	return nil
}

func checkConnections(s *Snapshot) error {
	queued, request := QueuedMaxRequestBytes.Of(s), int64(SocketRequestMaxBytes.Of(s))
	if queued > 0 && queued < request {
		return unfit(QueuedMaxRequestBytes.Name, queued, "at least socket.request.max.bytes (%d), or -1 for unlimited", request)
	}
	delay, idle := ConnectionFailedAuthenticationDelayMs.Of(s), ConnectionsMaxIdleMs.Of(s)
	if idle > 0 && delay >= idle {
		return unfit(ConnectionFailedAuthenticationDelayMs.Name, delay.Milliseconds(), "less than connections.max.idle.ms (%d)", idle.Milliseconds())
	}
	overrides, err := ConnectionOverrides(s)
	if err != nil {
		return err
	}
	if MaxConnectionsPerIP.Of(s) == 0 && len(overrides) == 0 {
		return unfit(MaxConnectionsPerIP.Name, 0, "at least 1, unless max.connections.per.ip.overrides lets somebody in")
	}
	return nil
}

// ConnectionOverrides is max.connections.per.ip.overrides: the bound for single addresses or host names.
func ConnectionOverrides(s *Snapshot) (map[string]int, error) {
	text := MaxConnectionsPerIPOverrides.Of(s)
	out := map[string]int{}
	for entry := range strings.SplitSeq(text, ",") {
		if entry = trim(entry); entry == "" {
			continue
		}
		colon := strings.LastIndexByte(entry, ':')
		limit, why := 0, "no colon"
		if colon > 0 {
			limit, why = readInt(trim(entry[colon+1:]))
		}
		if why != "" || limit < 0 {
			return nil, unfit(MaxConnectionsPerIPOverrides.Name, text, "address:number with commas between")
		}
		host := strings.Trim(trim(entry[:colon]), "[]")
		if ip := net.ParseIP(host); ip != nil {
			host = ip.String()
		}
		out[host] = limit
	}
	return out, nil
}

func checkOffsets(s *Snapshot) error {
	acks, replicas := OffsetsCommitRequiredAcks.Of(s), OffsetsTopicReplicationFactor.Of(s)
	if acks < -1 || acks > replicas {
		return unfit(OffsetsCommitRequiredAcks.Name, acks, "-1 to offsets.topic.replication.factor (%d)", replicas)
	}
	if codec := OffsetsTopicCompressionCodec.Of(s); codec < 0 || codec > 4 {
		return unfit(OffsetsTopicCompressionCodec.Name, codec, "0 (none), 1 (gzip), 2 (snappy), 3 (lz4) or 4 (zstd)")
	}
	return nil
}

func checkListeners(s *Snapshot) error {
	advertised, err := AdvertisedListeners(s)
	if err != nil {
		return err
	}
	name, err := InterBrokerListener(s)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(advertised, func(l Listener) bool { return l.Name == name }) {
		text, _, _ := s.Value(AdvertisedListenersKey.Name)
		return unfit(AdvertisedListenersKey.Name, text, "the listener %s among them, on which brokers talk to each other", name)
	}
	control := strings.ToUpper(ControlPlaneListenerName.Of(s))
	switch {
	case control == "":
		return nil
	case control == name:
		return unfit(ControlPlaneListenerName.Name, control, "another listener than the one between brokers")
	}
	listeners, err := Listeners(s)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(listeners, func(l Listener) bool { return l.Name == control }) {
		return unfit(ControlPlaneListenerName.Name, control, "the name of one of listeners")
	}
	return nil
}

func checkSASL(s *Snapshot) error {
	name, err := InterBrokerListener(s)
	if err != nil {
		return nil // told by checkListeners
	}
	listeners, err := Listeners(s)
	if err != nil {
		return nil
	}
	at := slices.IndexFunc(listeners, func(l Listener) bool { return l.Name == name })
	if at < 0 || !strings.HasPrefix(listeners[at].Protocol, "SASL_") {
		return nil
	}
	mechanism, enabled := SASLMechanismInterBrokerProtocol.Of(s), SASLEnabledMechanisms.For(s, name)
	if !slices.Contains(enabled, mechanism) {
		return unfit(SASLMechanismInterBrokerProtocol.Name, mechanism, "one of sasl.enabled.mechanisms (%s)", strings.Join(enabled, ", "))
	}
	return nil
}

// doubts warns about settings that are allowed and hardly meant.
func (s *Snapshot) doubts() []Warning {
	var out []Warning
	warn := func(key, format string, args ...any) { out = append(out, Warning{key, fmt.Sprintf(format, args...)}) }
	if v := InterBrokerProtocolVersion.Of(s); InterBrokerProtocolVersion.IsSet(s) && !strings.HasPrefix(v, "3.9") {
		warn(InterBrokerProtocolVersion.Name, "has no effect: brokers speak the protocol of 3.9 among themselves; brokers older than 3.0 do not understand it")
	}
	if advertised, err := AdvertisedListeners(s); err == nil {
		for _, l := range advertised {
			if l.Host == "::" {
				warn(AdvertisedListenersKey.Name, "tells others to connect to [::], which is an address of their own; name this machine")
			}
		}
	}
	return out
}
