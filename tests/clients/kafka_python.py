"""kafka-python: kafka_python.py BOOTSTRAP produce LEDGER WRITER TOPIC RECORDS CODEC IDEMPOTENCE | consume OUT TOPIC"""

import json
import sys

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from shapes import Ledger, Shapes, digest


def produce(bootstrap, path, writer, topic, records, codec, idempotence):
    codec = None if codec == "none" else codec
    settings = {"enable_idempotence": True} if idempotence == "true" else {"enable_idempotence": False, "acks": "all"}
    client = KafkaProducer(bootstrap_servers=bootstrap, compression_type=codec, linger_ms=5, **settings)
    shapes, ledger = Shapes(writer), Ledger(path)
    pending = []
    for sequence in range(int(records)):
        key, value, headers = shapes.record(sequence)
        ledger.send(sequence, key, value, headers)
        pending.append((sequence, client.send(topic, value=value, key=key, headers=headers)))
    client.flush()
    for sequence, future in pending:
        answer = future.get(timeout=60)
        ledger.acknowledge(sequence, answer.topic, answer.partition, answer.offset)
    client.close()
    print(json.dumps(ledger.close()))


def consume(bootstrap, out, topic):
    client = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, group_id=None)
    partitions = [TopicPartition(topic, partition) for partition in client.partitions_for_topic(topic)]
    ends = {place: end for place, end in client.end_offsets(partitions).items() if end > 0}
    client.assign(list(ends))
    client.seek_to_beginning()
    records = 0
    with open(out, "w") as file:
        while any(client.position(place) < end for place, end in ends.items()):
            for place, batch in client.poll(timeout_ms=1000).items():
                for message in batch:
                    records += 1
                    hashed = digest(message.key, message.value, message.headers)
                    file.write(f"{topic} {place.partition} {message.offset} {hashed}\n")
    client.close()
    print(json.dumps({"records": records}))


{"produce": produce, "consume": consume}[sys.argv[2]](sys.argv[1], *sys.argv[3:])
