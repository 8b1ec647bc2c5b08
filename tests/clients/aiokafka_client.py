"""aiokafka: aiokafka_client.py BOOTSTRAP produce LEDGER WRITER TOPIC RECORDS CODEC IDEMPOTENCE | consume OUT TOPIC"""

import asyncio
import json
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from shapes import Ledger, Shapes, digest


async def produce(bootstrap, path, writer, topic, records, codec, idempotence):
    codec = None if codec == "none" else codec
    client = AIOKafkaProducer(
        bootstrap_servers=bootstrap, compression_type=codec, enable_idempotence=idempotence == "true", acks="all", linger_ms=5
    )
    await client.start()
    shapes, ledger, pending = Shapes(writer), Ledger(path), []
    for sequence in range(int(records)):
        key, value, headers = shapes.record(sequence)
        ledger.send(sequence, key, value, headers)
        pending.append((sequence, await client.send(topic, value=value, key=key, headers=headers)))
    for sequence, future in pending:
        answer = await future
        ledger.acknowledge(sequence, answer.topic, answer.partition, answer.offset)
    await client.stop()
    print(json.dumps(ledger.close()))


async def consume(bootstrap, out, topic):
    client = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, group_id=None)
    await client.start()
    await client._client.force_metadata_update() if not client.partitions_for_topic(topic) else None
    places = [TopicPartition(topic, partition) for partition in client.partitions_for_topic(topic)]
    ends = {place: end for place, end in (await client.end_offsets(places)).items() if end > 0}
    client.assign(list(ends))
    await client.seek_to_beginning()
    records = 0
    with open(out, "w") as file:
        while ends:
            for place, batch in (await client.getmany(timeout_ms=1000)).items():
                for message in batch:
                    records += 1
                    hashed = digest(message.key, message.value, message.headers)
                    file.write(f"{topic} {place.partition} {message.offset} {hashed}\n")
                if place in ends and batch[-1].offset + 1 >= ends[place]:
                    del ends[place]
    await client.stop()
    print(json.dumps({"records": records}))


asyncio.run({"produce": produce, "consume": consume}[sys.argv[2]](sys.argv[1], *sys.argv[3:]))
