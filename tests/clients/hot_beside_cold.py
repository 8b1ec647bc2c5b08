"""One consumer of a hot and a cold partition: hot_beside_cold.py BOOTSTRAP HOT COLD SECONDS

A record goes into HOT every 100 ms; prints one JSON line: the longest time from acknowledged to consumed in milliseconds, how many
hot records were consumed, and how many cold ones.
"""

import json
import sys
import time

from confluent_kafka import Consumer, Producer, TopicPartition

bootstrap, hot, cold, seconds = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])
client = Consumer(
    {
        "bootstrap.servers": bootstrap,
        "group.id": "beside",
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "check.crcs": True,
        "fetch.wait.max.ms": 200,
    }
)
_, end = client.get_watermark_offsets(TopicPartition(hot, 0), timeout=30, cached=False)
client.assign([TopicPartition(hot, 0, end), TopicPartition(cold, 0, 0)])

sent = {}
producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 0})


def acknowledged(error, message):
    if error:
        sys.exit(str(error))
    sent[message.offset()] = time.monotonic()


latencies, seen = [], 0
stop, due = time.monotonic() + seconds, time.monotonic()


def is_watched():
    """For so long, and until cold records come: on a busy machine several slow requests may take longer."""
    return time.monotonic() < stop or (seen <= 100 and time.monotonic() < stop + 30)


while is_watched() or sent:
    if is_watched() and due <= time.monotonic():
        producer.produce(hot, b"x", partition=0, on_delivery=acknowledged)
        due += 0.1
    producer.poll(0)
    for message in client.consume(1000, timeout=0.005):
        if message.error():
            sys.exit(str(message.error()))
        if message.topic() == cold:
            seen += 1
        else:
            now = time.monotonic()
            # The record may overtake its own acknowledgement.
            producer.poll(0.05)
            latencies.append(now - sent.pop(message.offset(), now))
    if time.monotonic() > stop + 60:
        sys.exit(f"{len(sent)} hot records did not come")
print(json.dumps({"longest_ms": max(latencies) * 1000, "hot": len(latencies), "cold": seen}))
