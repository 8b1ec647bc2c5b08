"""Reads whole topics by assignment with confluent-kafka: reader.py BOOTSTRAP OUT TOPIC...

One line `TOPIC PARTITION OFFSET HASH` per record into OUT, up to the watermarks of the start; prints one JSON line.
"""

import json
import sys
import time

from confluent_kafka import Consumer, TopicPartition

from shapes import digest

bootstrap, out, topics = sys.argv[1], sys.argv[2], sys.argv[3:]
client = Consumer(
    {
        "bootstrap.servers": bootstrap,
        "group.id": "reader",
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "check.crcs": True,
        "enable.partition.eof": False,
    }
)

ends, starts = {}, []
for topic in topics:
    for partition in client.list_topics(topic, timeout=30).topics[topic].partitions:
        low, high = client.get_watermark_offsets(TopicPartition(topic, partition), timeout=30, cached=False)
        if high > low:
            ends[topic, partition] = high
            starts.append(TopicPartition(topic, partition, low))
client.assign(starts)

records, size, begin = 0, 0, time.monotonic()
quiet = time.monotonic()
with open(out, "w", buffering=1 << 16) as file:
    while ends:
        batch = client.consume(10_000, timeout=1)
        if batch:
            quiet = time.monotonic()
        elif time.monotonic() - quiet > 60:
            sys.exit(f"nothing came for 60 s; unread: {ends}")
        for message in batch:
            if message.error():
                sys.exit(f"{message.topic()} {message.partition()}: {message.error()}")
            place = message.topic(), message.partition()
            if place not in ends:
                continue
            headers = message.headers() or []
            records += 1
            size += len(message.value() or b"")
            file.write(f"{place[0]} {place[1]} {message.offset()} {digest(message.key(), message.value(), headers)}\n")
            if message.offset() + 1 >= ends[place]:
                del ends[place]
client.close()
print(json.dumps({"records": records, "bytes": size, "seconds": time.monotonic() - begin}))
