"""Writes with confluent-kafka and keeps a ledger.

writer.py BOOTSTRAP LEDGER WRITER TOPIC RECORDS [--codec C|mix] [--idempotence true|false] [--rate N] [--acks A] [--size BYTES] [--until FILE]

Goes on through restarts of the broker; `mix` changes the codec a few times. It ends sooner when FILE is there. Prints one JSON line.
"""

import argparse
import json
import os
import sys
import time

from confluent_kafka import KafkaException, Producer

from shapes import Ledger, Shapes

MIX = ["none", "gzip", "snappy", "lz4", "zstd"]


def arguments():
    parser = argparse.ArgumentParser()
    for name in ["bootstrap", "ledger", "writer", "topic"]:
        parser.add_argument(name)
    parser.add_argument("records", type=int)
    parser.add_argument("--codec", default="mix")
    parser.add_argument("--idempotence", default="true")
    parser.add_argument("--acks", default="all")
    parser.add_argument("--rate", type=int, default=0)
    parser.add_argument("--size", type=int, default=0)
    parser.add_argument("--until", default="")
    parser.add_argument("--timeout-ms", type=int, default=180_000)
    return parser.parse_args()


def producer(options, codec, fatal):
    def on_error(error):
        if error.fatal():
            fatal.append(str(error))

    return Producer(
        {
            "bootstrap.servers": options.bootstrap,
            "enable.idempotence": options.idempotence == "true",
            "acks": options.acks,
            "compression.type": codec,
            "linger.ms": 5,
            "message.timeout.ms": options.timeout_ms,
            "reconnect.backoff.max.ms": 500,
            "queue.buffering.max.messages": 20_000,
            "queue.buffering.max.kbytes": 256 << 10,
            "error_cb": on_error,
            "log_level": 3,
        }
    )


def main():
    options = arguments()
    shapes, ledger, fatal = Shapes(options.writer, options.size), Ledger(options.ledger), []
    codecs = MIX if options.codec == "mix" else [options.codec]
    share = -(-options.records // len(codecs))
    begin, sequence = time.monotonic(), 0

    def ended():
        if os.getppid() == 1:
            os._exit(1)  # the test is gone, and nobody else would end this
        return options.until and os.path.exists(options.until)

    for codec in codecs:
        client = producer(options, codec, fatal)
        for _ in range(min(share, options.records - sequence)):
            if ended():
                break
            send(client, options.topic, shapes, ledger, sequence)
            sequence += 1
            ahead = sequence / options.rate - (time.monotonic() - begin) if options.rate else 0
            client.poll(max(0, ahead))
            while ahead > 0.001:  # the poll returns early when there is something to serve
                ahead = sequence / options.rate - (time.monotonic() - begin)
                client.poll(max(0, ahead))
        client.flush(options.timeout_ms / 1000 + 10)
    print(json.dumps(ledger.close() | {"fatal": fatal, "seconds": time.monotonic() - begin}))
    sys.exit(1 if fatal else 0)


def send(client, topic, shapes, ledger, sequence):
    key, value, headers = shapes.record(sequence)
    ledger.send(sequence, key, value, headers)

    def on_delivery(error, message):
        if error:
            ledger.fail(sequence, error.name())
        else:
            ledger.acknowledge(sequence, message.topic(), message.partition(), message.offset())

    while True:
        try:
            return client.produce(topic, value=value, key=key, headers=headers, on_delivery=on_delivery)
        except BufferError:
            client.poll(0.1)
        except KafkaException as error:
            return ledger.fail(sequence, error.args[0].name())


main()
