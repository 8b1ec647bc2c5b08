"""Records of real shape, each unique, and the hash by which ledgers and readers name them.

The hash is repeated in tests/src/ledger.rs and clients/kafkajs.js.
"""

import hashlib
import random
import struct


def digest(key, value, headers):
    """The first eight bytes of SHA-256 over the fields, each behind its length, null as -1."""
    state = hashlib.sha256()
    fields = [key, value]
    for name, text in headers or []:
        fields += [name.encode(), text]
    for field in fields:
        state.update(struct.pack(">i", -1 if field is None else len(field)))
        state.update(field or b"")
    return state.hexdigest()[:16]


def size_of(chance):
    """Mostly small, some of a few KiB, few large."""
    draw = chance.random()
    if draw < 0.70:
        return chance.randint(0, 400)
    if draw < 0.95:
        return chance.randint(400, 2048)
    if draw < 0.998:
        return chance.randint(4 << 10, 16 << 10)
    return chance.randint(64 << 10, 256 << 10)


class Shapes:
    """The records of one writer: the same for the same name. With `size`, all values have that many incompressible bytes."""

    def __init__(self, writer, size=0):
        self.writer = writer
        self.size = size
        self.chance = random.Random(writer)
        self.noise = self.chance.randbytes(512 << 10)

    def record(self, sequence):
        """Key, value and headers of one record. Its content names the writer and the sequence, so it is unique."""
        chance = self.chance
        name = f"{self.writer}:{sequence}:".encode()
        if self.size:
            begin = chance.randrange(len(self.noise) - self.size)
            return None, name + self.noise[begin : begin + self.size], []
        length = size_of(chance)
        if chance.random() < 0.5:  # half of it compresses well, half does not
            body = (b'{"user":"%d","action":"click","page":"/index"},' % (sequence % 1000)) * (length // 40)
        else:
            begin = chance.randrange(len(self.noise) - length)
            body = self.noise[begin : begin + length]
        draw = chance.random()
        key = None if draw < 0.3 else name + b"key" if draw < 0.9 else name + b"\x00\n\xff" * 50
        value = None if key is not None and chance.random() < 0.02 else name + body
        headers = [(f"h{i}", b"v%d" % chance.randrange(1000)) for i in range(chance.choice([0, 0, 0, 1, 3]))]
        return key, value, headers


class Ledger:
    """What was sent and how it was answered, a line each; the format is that of tests/src/ledger.rs."""

    def __init__(self, path):
        self.file = open(path, "w", buffering=1 << 16)
        self.sent = self.acknowledged = self.failed = 0

    def send(self, sequence, key, value, headers):
        self.sent += 1
        self.file.write(f"s {sequence} {digest(key, value, headers)}\n")

    def acknowledge(self, sequence, topic, partition, offset):
        self.acknowledged += 1
        self.file.write(f"a {sequence} {topic} {partition} {offset}\n")

    def fail(self, sequence, error):
        self.failed += 1
        self.file.write(f"f {sequence} {str(error).split()[0] if str(error) else 'unknown'}\n")

    def close(self):
        self.file.close()
        return {"sent": self.sent, "acknowledged": self.acknowledged, "failed": self.failed}
