"""A member of a consumer group, made of kafka-python; see the Go package members."""
import signal
import sys

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

bootstrap, group, topic, session, assignor, instance = sys.argv[1:]
running = True


def stop(*_):
    global running
    running = False


def say(*words):
    print(*words, flush=True)


class Listener(ConsumerRebalanceListener):
    def on_partitions_assigned(self, assigned):
        say("assigned", *sorted(p.partition for p in assigned))

    def on_partitions_revoked(self, revoked):
        say("revoked", *sorted(p.partition for p in revoked))


signal.signal(signal.SIGTERM, stop)
more = {} if instance == "-" else {"group_instance_id": instance}
consumer = KafkaConsumer(
    bootstrap_servers=bootstrap.split(","), group_id=group, session_timeout_ms=int(session), heartbeat_interval_ms=int(session) // 10,
    partition_assignment_strategy=[{"range": RangePartitionAssignor, "round-robin": RoundRobinPartitionAssignor}[assignor]],
    enable_auto_commit=False, auto_offset_reset="earliest", fetch_max_wait_ms=200, metadata_max_age_ms=5000,
    request_timeout_ms=30000, **more)
consumer.subscribe([topic], listener=Listener())
while running:
    following = {}
    try:
        for partition, records in consumer.poll(200, max_records=100).items():
            for record in records:
                say("handled", record.partition, record.offset, record.value.decode())
            following[partition] = OffsetAndMetadata(records[-1].offset + 1, "", -1)
        if following:
            consumer.commit(following)
            for partition, offset in following.items():
                say("committed", partition.partition, offset.offset)
    except KafkaError as e:
        say("error", repr(e))
consumer.close(autocommit=False)
