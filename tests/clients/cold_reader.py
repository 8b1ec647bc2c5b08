"""Reads one record: cold_reader.py BOOTSTRAP TOPIC PARTITION OFFSET

Exits with zero when the record came within 15 s. Otherwise says on standard error whether what came instead was retriable: nothing, or
errors after which clients try again; a reset of the offset or a fatal error is not.
"""

import sys
import time

from confluent_kafka import Consumer, TopicPartition

bootstrap, topic, partition, offset = sys.argv[1:]
fatal = []
client = Consumer(
    {
        "bootstrap.servers": bootstrap,
        "group.id": "cold",
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "error_cb": lambda error: fatal.append(str(error)) if error.fatal() else None,
        "log_level": 0,
    }
)
client.assign([TopicPartition(topic, int(partition), int(offset))])
end = time.monotonic() + 15
while time.monotonic() < end:
    message = client.poll(1)
    if message is None:
        continue
    if message.error():
        fatal.append(str(message.error()))
        break
    sys.exit(0 if message.offset() == int(offset) else f"offset {message.offset()} came where {offset} was asked for")
sys.exit(f"fatal: {fatal}" if fatal else "retriable: nothing came")
