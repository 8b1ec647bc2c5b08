"""A group's member that reads so many records and leaves: group_reader.py BOOTSTRAP LIBRARY GROUP TOPIC RECORDS

It commits what it has read, and prints every record as {"at": "partition:offset", "value": text}.
"""

import asyncio
import json
import sys
import time

LIMIT = 90


def tell(partition, offset, value):
    print(json.dumps({"at": f"{partition}:{offset}", "value": value.decode()}))


def confluent(bootstrap, group, topic, records):
    from confluent_kafka import Consumer

    client = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest"})
    client.subscribe([topic])
    read, end = 0, time.monotonic() + LIMIT
    while read < records and time.monotonic() < end:
        message = client.poll(1)
        if message is None:
            continue
        assert not message.error(), message.error()
        tell(message.partition(), message.offset(), message.value())
        read += 1
    client.commit(asynchronous=False)
    client.close()


def kafka_python(bootstrap, group, topic, records):
    from kafka import KafkaConsumer

    client = KafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest")
    read, end = 0, time.monotonic() + LIMIT
    while read < records and time.monotonic() < end:
        for batch in client.poll(timeout_ms=1000, max_records=records - read).values():
            for message in batch:
                tell(message.partition, message.offset, message.value)
                read += 1
    client.commit()
    client.close()


async def read_aiokafka(bootstrap, group, topic, records):
    from aiokafka import AIOKafkaConsumer

    client = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest")
    await client.start()
    read, end = 0, time.monotonic() + LIMIT
    while read < records and time.monotonic() < end:
        for batch in (await client.getmany(timeout_ms=1000, max_records=records - read)).values():
            for message in batch:
                tell(message.partition, message.offset, message.value)
                read += 1
    await client.commit()
    await client.stop()


def aiokafka(*arguments):
    asyncio.run(read_aiokafka(*arguments))


libraries = {"confluent": confluent, "kafka-python": kafka_python, "aiokafka": aiokafka}
libraries[sys.argv[2]](sys.argv[1], sys.argv[3], sys.argv[4], int(sys.argv[5]))
