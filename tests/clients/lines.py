"""Writes the lines of its standard input to partition 0 with confluent-kafka, idempotent: lines.py BOOTSTRAP TOPIC

Goes on through whatever happens to the brokers. Exit status 1 where a line was given up. What fails is told at once, and every ten seconds how
things stand: whoever waits for it in vain, and ends it, sees why.
"""

import json
import sys
import time

from confluent_kafka import Producer

bootstrap, topic = sys.argv[1], sys.argv[2]
failed = []


def fail(what):
    failed.append(what)
    say(what)


def say(what):
    print(time.strftime("%H:%M:%S", time.gmtime()), what, file=sys.stderr, flush=True)


def on_delivery(error, _message):
    if error:
        fail(str(error))


def on_statistics(text):
    told = json.loads(text)
    brokers = {broker["nodeid"]: broker["state"] for broker in told["brokers"].values()}
    partition = told["topics"].get(topic, {}).get("partitions", {}).get("0", {})
    names = ("leader", "msgq_cnt", "xmit_msgq_cnt", "msgs_inflight", "next_ack_seq", "next_err_seq")
    waits = {name: partition.get(name) for name in names}
    say(f"{told['msg_cnt']} lines wait; brokers {brokers}; partition {waits}; {told.get('eos', {})}")


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
        "error_cb": lambda error: fail(str(error)) if error.fatal() else say(str(error)),
        "stats_cb": on_statistics,
        "statistics.interval.ms": 10_000,
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
