"""A member of a consumer group, made of librdkafka (confluent-kafka); see the Go package members."""
import signal
import sys

from confluent_kafka import Consumer, KafkaException, TopicPartition

bootstrap, group, topic, session, assignor, instance = sys.argv[1:]
running = True


def stop(*_):
    global running
    running = False


def say(*words):
    print(*words, flush=True)


def tell(what):
    return lambda _, partitions: say(what, *[p.partition for p in partitions])


signal.signal(signal.SIGTERM, stop)
settings = {
    "bootstrap.servers": bootstrap, "group.id": group, "session.timeout.ms": int(session), "heartbeat.interval.ms": int(session) // 10,
    "partition.assignment.strategy": {"round-robin": "roundrobin"}.get(assignor, assignor),
    "enable.auto.commit": False, "enable.auto.offset.store": False, "auto.offset.reset": "earliest", "fetch.wait.max.ms": 200,
    "topic.metadata.refresh.interval.ms": 5000, "log_level": 3,
}
if instance != "-":
    settings["group.instance.id"] = instance
consumer = Consumer(settings)
consumer.subscribe([topic], on_assign=tell("assigned"), on_revoke=tell("revoked"), on_lost=tell("lost"))
while running:
    following = {}
    for message in consumer.consume(100, 0.2):
        if message.error():
            say("error", message.error())
            continue
        say("handled", message.partition(), message.offset(), message.value().decode())
        following[message.partition()] = message.offset() + 1
    if not following:
        continue
    try:
        done = consumer.commit(offsets=[TopicPartition(topic, p, o) for p, o in following.items()], asynchronous=False)
        for p in done:
            if p.error:
                say("error commit:", p.error)
            else:
                say("committed", p.partition, p.offset)
    except KafkaException as e:
        say("error commit:", e)
consumer.close()
