package config

import (
	"time"
)

// Listeners, connections, requests.
var (
	AdvertisedListenersKey               = textKey("advertised.listeners", unset, anything[string](), PerBroker, "What brokers and clients are told to connect to; listeners when unset.")
	ConnectionsMaxIdleMs                 = timeKey("connections.max.idle.ms", Long, "600000", time.Millisecond, anything[int64](), ReadOnly, "Close connections that have been silent for so long.")
	ControlPlaneListenerName             = textKey("control.plane.listener.name", unset, anything[string](), ReadOnly, "Listener on which the controller and the brokers talk about the cluster (KIP-291); the inter-broker listener when unset.")
	_                                    = inert(intKey("delete.records.purgatory.purge.interval.requests", "1", anything[int](), ReadOnly, "Accepted without effect: waiting requests leave nothing behind to purge."))
	FetchMaxBytes                        = intKey("fetch.max.bytes", "57671680", atLeast(1024), ReadOnly, "The most records that one fetch is answered with.")
	_                                    = inert(intKey("fetch.purgatory.purge.interval.requests", "1000", anything[int](), ReadOnly, "Accepted without effect: waiting requests leave nothing behind to purge."))
	InterBrokerListenerName              = textKey("inter.broker.listener.name", unset, anything[string](), ReadOnly, "Listener on which brokers talk to each other.")
	ListenerSecurityProtocolMap          = textKey("listener.security.protocol.map", "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT", anything[string](), PerBroker, "Security protocol of each listener's name.")
	ListenersKey                         = textKey("listeners", "PLAINTEXT://:9092", anything[string](), PerBroker, "Where this broker listens, as NAME://host:port with commas between; port 0 takes a free one.")
	MaxConnectionCreationRate            = later(intKey("max.connection.creation.rate", "2147483647", atLeast(0), ClusterWide, "New connections a second that are let in."))
	MaxConnections                       = intKey("max.connections", "2147483647", atLeast(0), ClusterWide, "The most connections.")
	MaxConnectionsPerIP                  = intKey("max.connections.per.ip", "2147483647", atLeast(0), ClusterWide, "The most connections from one address.")
	MaxConnectionsPerIPOverrides         = textKey("max.connections.per.ip.overrides", "", anything[string](), ClusterWide, "The same bound for single addresses or host names, as address:number with commas between.")
	MaxIncrementalFetchSessionCacheSlots = intKey("max.incremental.fetch.session.cache.slots", "1000", atLeast(0), ReadOnly, "The most fetch sessions kept.")
	_                                    = inert(intKey("max.request.partition.size.limit", "2000", atLeast(1), ReadOnly, "Accepted without effect: it bounds answers of KRaft brokers only."))
	_                                    = inert(intKey("num.io.threads", "8", atLeast(1), ClusterWide, "Accepted without effect: each connection does its own work."))
	_                                    = inert(intKey("num.network.threads", "3", atLeast(1), ClusterWide, "Accepted without effect: each connection does its own work."))
	_                                    = inert(intKey("producer.purgatory.purge.interval.requests", "1000", anything[int](), ReadOnly, "Accepted without effect: waiting requests leave nothing behind to purge."))
	QueuedMaxRequestBytes                = longKey("queued.max.request.bytes", "-1", anything[int64](), ReadOnly, "Bytes of requests in work at which reading pauses; -1 unlimited.")
	_                                    = inert(intKey("queued.max.requests", "500", atLeast(1), ReadOnly, "Accepted without effect: the queue is bounded by queued.max.request.bytes and for each connection."))
	RequestTimeoutMs                     = timeKey("request.timeout.ms", Int, "30000", time.Millisecond, anything[int64](), ReadOnly, "How long brokers wait for each other's answers.")
	_                                    = inert(timeKey("socket.connection.setup.timeout.max.ms", Long, "30000", time.Millisecond, anything[int64](), ReadOnly, "Accepted without effect: it is request.timeout.ms that bounds connecting."))
	_                                    = inert(timeKey("socket.connection.setup.timeout.ms", Long, "10000", time.Millisecond, anything[int64](), ReadOnly, "Accepted without effect: it is request.timeout.ms that bounds connecting."))
	_                                    = inert(intKey("socket.listen.backlog.size", "50", atLeast(1), ReadOnly, "Accepted without effect: the system's net.core.somaxconn counts."))
	SocketReceiveBufferBytes             = intKey("socket.receive.buffer.bytes", "102400", anything[int](), ReadOnly, "Receive buffer of connections; -1 leaves it to the system.")
	SocketRequestMaxBytes                = intKey("socket.request.max.bytes", "104857600", atLeast(1), ReadOnly, "The largest request.")
	SocketSendBufferBytes                = intKey("socket.send.buffer.bytes", "102400", anything[int](), ReadOnly, "Send buffer of connections; -1 leaves it to the system.")
)
