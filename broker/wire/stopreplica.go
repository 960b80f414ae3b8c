package wire

// StopReplica v4 in Kafka is: controller id, is-KRaft-controller, controller epoch, broker epoch, topics. kmsg 1.15 has the flag
// after the controller epoch. Both need the same number of bytes, so nothing fails: Kafka's controller epoch would be read
// shifted by eight bits, and every later controller be refused. The flag (one byte) and the epoch (four) follow the controller id at
// the head of the body; turning those five bytes makes one layout of the other.

// stopReplicaFixed is the version with the difference.
const stopReplicaFixed = 4

// stopReplicaTurned is the part of the body that differs.
const (
	stopReplicaTurnedAt  = 4
	stopReplicaTurnedEnd = 9
)

// stopReplicaFromKafka turns a v4 body as Kafka sends it into the one that kmsg reads, in place. Shorter bodies are left for the
// decoder to refuse.
func stopReplicaFromKafka(body []byte) {
	if len(body) < stopReplicaTurnedEnd {
		return
	}
	b := body[stopReplicaTurnedAt:stopReplicaTurnedEnd]
	flag := b[0]
	copy(b, b[1:])
	b[4] = flag
}

// stopReplicaToKafka is the reverse of stopReplicaFromKafka.
func stopReplicaToKafka(body []byte) {
	if len(body) < stopReplicaTurnedEnd {
		return
	}
	b := body[stopReplicaTurnedAt:stopReplicaTurnedEnd]
	flag := b[4]
	copy(b[1:], b[:4])
	b[0] = flag
}
