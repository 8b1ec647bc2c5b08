"""Writes the lines of its standard input to partition 0 with confluent-kafka, idempotent: lines.py BOOTSTRAP TOPIC

Goes on through whatever happens to the brokers. Exit status 1 where a line was given up.
"""

import sys

from confluent_kafka import Producer

bootstrap, topic = sys.argv[1], sys.argv[2]
failed = []


def on_delivery(error, _message):
    if error:
        failed.append(str(error))


client = Producer(
    {
        "bootstrap.servers": bootstrap,
        "enable.idempotence": True,
        "linger.ms": 2,
        "message.timeout.ms": 90_000,
        "reconnect.backoff.max.ms": 500,
        # A process that stands still keeps its sockets.
        "request.timeout.ms": 6_000,
        "socket.timeout.ms": 8_000,
        "error_cb": lambda error: failed.append(str(error)) if error.fatal() else None,
        "log_level": 3,
    }
)
for line in sys.stdin.buffer:
    while True:
        try:
            client.produce(topic, value=line.rstrip(b"\n"), partition=0, on_delivery=on_delivery)
            break
        except BufferError:
            client.poll(0.1)
    client.poll(0)
left = client.flush(100)
if failed or left:
    sys.exit(f"{len(failed)} failed, {left} left: {failed[:3]}")
