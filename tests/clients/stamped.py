"""One record by confluent-kafka: where it came to stand, or the error's name.

stamped.py BOOTSTRAP TOPIC BYTES CODEC [TIMESTAMP]     milliseconds, or +n and -n from now
"""

import json
import sys
import time

from confluent_kafka import Producer

bootstrap, topic, size, codec = sys.argv[1:5]
when = sys.argv[5] if len(sys.argv) > 5 else "+0"
stamp = int(time.time() * 1000) + int(when) if when[0] in "+-" else int(when)
settings = {"bootstrap.servers": bootstrap, "compression.type": codec, "message.timeout.ms": 30000, "linger.ms": 0}


def tell(error, message):
    print(json.dumps({"error": error.name()} if error else {"offset": message.offset()}))


producer = Producer(settings)
producer.produce(topic, value=b"x" * int(size), key=b"k", partition=0, timestamp=stamp, callback=tell)
sys.exit(producer.flush(60))
