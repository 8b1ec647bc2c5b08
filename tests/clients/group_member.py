"""A group's member that goes on until it is told to stop: group_member.py BOOTSTRAP LIBRARY OUT GROUP TOPIC

What it has read it writes to OUT, a line `partition offset value`, before it commits that: whoever finds a committed
offset whose records no member wrote down has found a loss.
"""

import signal
import sys

stops = []
signal.signal(signal.SIGTERM, lambda *_: stops.append(True))


def confluent(bootstrap, out, group, topic):
    from confluent_kafka import Consumer, KafkaException

    client = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 500,
            "partition.assignment.strategy": "cooperative-sticky",
        }
    )
    client.subscribe([topic])
    with open(out, "a") as file:
        while not stops:
            messages = [message for message in client.consume(500, 0.2) if not message.error()]
            file.writelines(f"{m.partition()} {m.offset()} {m.value().decode()}\n" for m in messages)
            file.flush()
            try:
                if messages:
                    client.commit(asynchronous=False)
            except KafkaException as error:
                print(f"commit: {error}", file=sys.stderr)
    client.close()


def kafka_python(bootstrap, out, group, topic):
    from kafka import KafkaConsumer
    from kafka.errors import KafkaError

    client = KafkaConsumer(
        topic,
        bootstrap_servers=bootstrap.split(","),
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=6000,
        heartbeat_interval_ms=500,
    )
    with open(out, "a") as file:
        while not stops:
            batches = client.poll(timeout_ms=200)
            for batch in batches.values():
                file.writelines(f"{m.partition} {m.offset} {m.value.decode()}\n" for m in batch)
            file.flush()
            try:
                if batches:
                    client.commit()
            except KafkaError as error:
                print(f"commit: {error!r}", file=sys.stderr)
    client.close()


libraries = {"confluent": confluent, "kafka-python": kafka_python}
libraries[sys.argv[2]](sys.argv[1], *sys.argv[3:])
