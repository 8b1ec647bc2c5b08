"""A second reader of Varve's stored formats, made from docs/formats.md alone.

second_reader.py bucket ROOT TOPIC [PREFIX]: reads a topic from a bucket whose objects are files below ROOT; prints a JSON line a record.
second_reader.py vectors FOLDER: reads the test vectors and says what is in them, as one JSON object.

Its words are the document's. Where this file and the document differ, one of them is wrong.
"""

import base64
import gzip
import hashlib
import io
import json
import os
import struct
import sys

import lz4.frame
import snappy
import zstandard


class Damaged(Exception):
    pass


def check(condition, what):
    if not condition:
        raise Damaged(what)


TABLE = []
for number in range(256):
    for _ in range(8):
        number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)
    TABLE.append(number)


def crc32c(data, before=0):
    crc = before ^ 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def uuid(raw):
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


class Fields:
    """Little-endian fields, one after the other."""

    def __init__(self, data):
        self.data, self.at = memoryview(data), 0

    def raw(self, length):
        check(self.at + length <= len(self.data), "bytes missing")
        self.at += length
        return bytes(self.data[self.at - length : self.at])

    def number(self, form):
        return struct.unpack("<" + form, self.raw(struct.calcsize("<" + form)))[0]

    def u8(self):
        return self.number("B")

    def u16(self):
        return self.number("H")

    def u32(self):
        return self.number("I")

    def u64(self):
        return self.number("Q")

    def i16(self):
        return self.number("h")

    def i32(self):
        return self.number("i")

    def i64(self):
        return self.number("q")

    def string(self):
        return self.raw(self.u32()).decode()

    def list(self, each):
        return [each(self) for _ in range(self.u32())]

    def option(self, some):
        return some(self) if self.u8() else None

    def frame(self):
        return Fields(self.raw(self.u32()))

    def left(self):
        return len(self.data) - self.at


def numbers(fields, forms):
    """`name:form` each, in their order."""
    return {name: fields.number(form) for name, form in (word.split(":") for word in forms.split())}


def expand(codec, stored, raw_len):
    if codec == 0:
        raw = stored
    elif codec == 1:
        raw = zstandard.ZstdDecompressor().decompress(stored, max_output_size=max(raw_len, 1))
    elif codec == 2:
        raw = gzip.decompress(stored)
    else:
        raise Damaged(f"codec {codec}")
    check(len(raw) == raw_len, "another length than raw_len")
    return raw


def identity(fields):
    cluster, incarnation = uuid(fields.raw(16)), fields.u32()
    return {
        "cluster": cluster,
        "incarnation": incarnation,
        "topic_id": uuid(fields.raw(16)),
        "topic": fields.string(),
        "partition": fields.i32(),
    }


def entry(fields):
    frame = fields.frame()
    forms = (
        "store_id:H kind:B incarnation:I term:Q uid:Q position:Q length:Q base:Q last:Q count:Q min_timestamp:q max_timestamp:q"
        " first_index:Q roll_index:Q roll_term:Q first_term:Q last_term:Q txn_index_empty:B delete_horizon_ms:q batch_bytes:Q"
    )
    found = numbers(frame, forms)
    check(found["kind"] in (1, 2, 3, 4) and found["base"] <= found["last"], "entry")
    return found | {"sha256": frame.raw(32).hex()}


def reference(fields):
    frame = fields.frame()
    found = numbers(frame, "level:B incarnation:I uid:Q base:Q last:Q entries:Q segment_bytes:Q max_timestamp:q length:Q")
    found["sha256"] = frame.raw(32).hex()
    if frame.left():
        found["batch_bytes"] = frame.u64()
    return found


def root(fields):
    frame = fields.frame()
    return {"start": frame.u64(), "references": frame.list(reference), "entries": frame.list(entry)}


def producer(fields):
    frame = fields.frame()
    found = {"id": frame.i64(), "epoch": frame.i16()}
    found["batches"] = frame.list(lambda batch: numbers(batch, "first_sequence:i last_sequence:i first_offset:Q timestamp:q"))
    found["transaction_first"] = frame.option(Fields.u64)
    return found | numbers(frame, "coordinator_epoch:i transaction_version:B last_timestamp:q")


def published(fields):
    frame = fields.frame()
    found = numbers(frame, "uid:Q term:Q s_index:Q s_term:Q s_offset:Q a:Q log_start:Q bytes:Q")
    found["sha256"] = frame.raw(32).hex()
    return found | {"published_ms": frame.i64()}


def epoch(fields):
    return numbers(fields.frame(), "term:Q first:Q")


def topic(fields):
    frame = fields.frame()
    found = {"id": uuid(frame.raw(16)), "name": frame.string(), "created_ms": frame.i64()}
    found["partitions"] = len(frame.list(lambda partition: partition.frame()))
    found["configs"] = dict(frame.list(lambda pair: (pair.string(), pair.string())))
    return found


def image(fields):
    frame = fields.frame()
    found = numbers(frame, "index:Q term:Q append_time_ms:q")
    frame.list(published)
    found |= {"cluster": uuid(frame.raw(16)), "incarnation": frame.u32(), "changed": frame.u64()}
    frame.list(lambda broker: broker.frame())
    return found | {"topics": frame.list(topic)}


def archive_cursor(fields):
    frame = fields.frame()
    found = {"end": frame.u64(), "newest_ms": frame.i64()}
    found["plan"] = frame.option(lambda plan: numbers(plan.frame(), "base:Q end:Q day:q"))
    found["entry_sha256"] = frame.option(lambda digest: digest.raw(32).hex())
    return found | numbers(frame, "files:Q bytes:Q records:Q skipped:Q")


def checkpoint(data):
    """Header and sections, all of them verified."""
    check(data[:8] == b"VARVECKP" and data[-8:] == b"PKCEVRAV", "magic")
    check(hashlib.sha256(data[:-40]).digest() == data[-40:-8], "sha256")
    fields = Fields(data[8:-40])
    check(fields.u16() == 1, "version")
    frame = fields.frame()
    header = {"kind": frame.u8(), "group": frame.u64(), "identity": identity(frame)}
    header |= numbers(frame, "s_index:Q s_term:Q s_offset:Q a_index:Q a_term:Q")
    members = frame.frame()
    header["voters"], _, _, _ = [members.list(Fields.u64) for _ in range(4)]
    header |= numbers(frame, "manifest_seq:Q feature_level:H append_time_ms:q records_local:B")
    sections = {}
    while fields.left() > 4:
        start = fields.at
        number, codec, flags, raw_len, stored_len = fields.u16(), fields.u8(), fields.u8(), fields.u32(), fields.u32()
        covered = bytes(fields.data[start : fields.at])
        crc, stored = fields.u32(), fields.raw(stored_len)
        check(flags == 0 and crc32c(stored, crc32c(covered)) == crc, "a section's CRC")
        check(number not in sections, "a section is there twice")
        sections[number] = expand(codec, stored, raw_len)
    check(fields.u32() == len(sections) and fields.left() == 0, "section count")
    return header, sections


def enveloped(data, magic):
    check(data[:8] == magic, "magic")
    check(crc32c(data[:-4]) == struct.unpack("<I", data[-4:])[0], "CRC")
    fields = Fields(data[8:-4])
    check(fields.u16() == 1, "version")
    return fields.frame()


def node(data):
    frame = enveloped(data, b"VARVENOD")
    found = {"level": frame.u8(), "identity": identity(frame)}
    return found | {"places": frame.list(reference if found["level"] else entry)}


def claim(data):
    frame = enveloped(data, b"VARVECLM")
    return {"cluster": uuid(frame.raw(16))} | numbers(frame, "incarnation:I created_ms:q node:I format:H")


def complete(data):
    frame = enveloped(data, b"VARVECMP")
    return {"cluster": uuid(frame.raw(16))} | numbers(frame, "incarnation:I completed_ms:q groups:Q")


def footer(data):
    check(data[-8:] == b"VARVESEG", "magic")
    length = struct.unpack("<I", data[-12:-8])[0]
    stored = data[-12 - length : -12]
    check(crc32c(stored[:-4]) == struct.unpack("<I", stored[-4:])[0], "the footer's CRC")
    frame = Fields(stored[:-4]).frame()
    check(frame.u16() == 1, "version")
    found = {"identity": identity(frame)}
    forms = (
        "kind:B base:Q last:Q count:Q batch_bytes:Q batch_crcs:I min_timestamp:q max_timestamp:q first_index:Q roll_index:Q"
        " roll_term:Q first_term:Q last_term:Q txn_index_empty:B delete_horizon_ms:q"
    )
    found |= numbers(frame, forms)
    section = "kind:H position:Q stored_len:I raw_len:I codec:B crc32c:I"
    found["sections"] = {one["kind"]: one for one in frame.list(lambda fields: numbers(fields.frame(), section))}
    check(frame.u8() == 0, "encrypted")
    return found


def section_of(data, found, kind):
    section = found["sections"][kind]
    stored = data[section["position"] : section["position"] + section["stored_len"]]
    check(crc32c(stored) == section["crc32c"], "a section's CRC")
    return Fields(expand(section["codec"], stored, section["raw_len"]))


def segment(data):
    """The footer, and the batches of all blocks."""
    found = footer(data)
    blocks = section_of(data, found, 4).frame().list(
        lambda fields: numbers(fields.frame(), "position:Q stored_len:I raw_len:I base:Q last:Q max_timestamp:q count:I")
    )
    found["epochs"] = section_of(data, found, 3).list(epoch)
    found["producers"] = section_of(data, found, 1).list(producer)
    batches, crcs, at = [], 0, 0
    for block in blocks:
        check(block["position"] == at, "blocks lie end to end")
        head, at = data[at : at + 14], at + 14
        codec, flags, raw_len, stored_len, crc = struct.unpack("<BBIII", head)
        stored, at = data[at : at + stored_len], at + stored_len
        check(flags == 0 and crc32c(stored, crc32c(head[:10])) == crc, "a block's CRC")
        raw = expand(codec, stored, raw_len)
        while raw:
            size = 12 + struct.unpack(">i", raw[8:12])[0]
            batches.append(raw[:size])
            crcs, raw = crc32c(raw[17:21][::-1], crcs), raw[size:]
    check(crcs == found["batch_crcs"], "batch_crcs")
    return found, batches


# Kafka's record batches, version 2: big-endian, and varints in zigzag.


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return (value >> 1) ^ -(value & 1), at


def unsnap(data):
    if data[:8] != b"\x82SNAPPY\0":
        return snappy.decompress(data)
    raw, at = b"", 16
    while at < len(data):
        length = struct.unpack(">i", data[at : at + 4])[0]
        raw, at = raw + snappy.decompress(data[at + 4 : at + 4 + length]), at + 4 + length
    return raw


CODECS = {
    0: lambda data: data,
    1: gzip.decompress,
    2: unsnap,
    3: lz4.frame.decompress,
    4: lambda data: zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read(),
}


def piece(data, at):
    length, at = varint(data, at)
    return (None, at) if length < 0 else (data[at : at + length], at + length)


def records(batch):
    base, _, _, magic, crc = struct.unpack(">qiibI", batch[:21])
    check(magic == 2 and crc32c(batch[21:]) == crc, "a batch's CRC")
    attributes, _, first_ms, max_ms = struct.unpack(">hiqq", batch[21:43])
    count = struct.unpack(">i", batch[57:61])[0]
    data, at = CODECS[attributes & 7](batch[61:]), 0
    for _ in range(count):
        _, at = varint(data, at)
        at += 1
        delta_ms, at = varint(data, at)
        delta, at = varint(data, at)
        key, at = piece(data, at)
        value, at = piece(data, at)
        headers, (number, at) = [], varint(data, at)
        for _ in range(number):
            name, at = piece(data, at)
            content, at = piece(data, at)
            headers.append((name.decode(), content))
        timestamp = max_ms if attributes & 8 else first_ms + delta_ms
        yield {"offset": base + delta, "timestamp": timestamp, "key": key, "value": value, "headers": headers}


class Bucket:
    """Objects that are files: a key is a path."""

    def __init__(self, folder, prefix):
        self.folder, self.prefix = folder, prefix

    def get(self, key):
        return open(os.path.join(self.folder, self.prefix, key), "rb").read()

    def list(self, below):
        folder = os.path.join(self.folder, self.prefix, below)
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []

    def newest(self, below):
        """The checkpoint with the highest A that is whole."""
        for name in reversed(self.list(below)):
            try:
                return checkpoint(self.get(f"{below}/{name}"))
            except Damaged as damage:
                print(f"{below}/{name}: {damage}", file=sys.stderr)
        return None

    def open(self):
        names = self.list("claim")
        done = [int(name.split(".")[0]) for name in names if name.endswith(".complete")]
        incarnation = max(done, default=1)
        if done:
            complete(self.get(f"claim/{incarnation:010}.complete"))
        cluster = claim(self.get(f"claim/{incarnation:010}"))["cluster"]
        header, sections = self.newest(f"{cluster}/meta/i{incarnation:010}")
        check(header["kind"] == 3 and header["identity"]["cluster"] == cluster, "the metadata's checkpoint")
        return cluster, incarnation, image(Fields(sections[12]))

    def read(self, topic_name):
        cluster, incarnation, metadata = self.open()
        found = next(one for one in metadata["topics"] if one["name"] == topic_name)
        for partition in range(found["partitions"]):
            raw_id = base64.urlsafe_b64decode(found["id"] + "==")
            spread = crc32c(raw_id + struct.pack("<i", partition)) & 255
            home = f"{cluster}/p/{spread:02x}/{found['id']}/{partition:05}"
            for record in self.partition(home, incarnation, found["id"], partition):
                yield partition, record

    def partition(self, home, incarnation, topic_id, partition):
        whole = self.newest(f"{home}/i{incarnation:010}/ckpt")
        start, end, entries = 0, 0, []
        if whole:
            header, sections = whole
            check(header["identity"]["topic_id"] == topic_id and header["identity"]["partition"] == partition, "identity")
            manifest = root(Fields(sections[1]))
            start = Fields(sections[6]).frame().u64()
            entries = [leaf for one in manifest["references"] for leaf in self.below(home, one)] + manifest["entries"]
            end = entries[-1]["last"] + 1 if entries else manifest["start"]
        for one in entries:
            if one["last"] < start:
                continue
            folder = "seg" if one["kind"] == 1 else "mseg"
            name = f"{one['base']:020}-{one['last']:020}-{one['term']:08x}-{one['uid']:016x}.seg"
            data = self.get(f"{home}/i{one['incarnation']:010}/{folder}/{name}")
            check(len(data) == one["length"] and hashlib.sha256(data).hexdigest() == one["sha256"], name)
            yield from self.records_of(data, topic_id, partition, (one["base"], one["last"]), start)
        tail = f"{home}/i{incarnation:010}/seg"
        for name in self.list(tail):
            base, last = int(name[:20]), int(name[21:41])
            if base == end:
                yield from self.records_of(self.get(f"{tail}/{name}"), topic_id, partition, (base, last), start)
                end = last + 1

    def below(self, home, one):
        name = f"{one['level']}-{one['base']:020}-{one['last']:020}-{one['uid']:016x}.mn"
        data = self.get(f"{home}/i{one['incarnation']:010}/node/{name}")
        check(len(data) == one["length"] and hashlib.sha256(data).hexdigest() == one["sha256"], name)
        found = node(data)
        check(found["level"] == one["level"], "level")
        for place in found["places"]:
            yield from self.below(home, place) if found["level"] else [place]

    def records_of(self, data, topic_id, partition, bounds, start):
        found, batches = segment(data)
        check((found["identity"]["topic_id"], found["identity"]["partition"]) == (topic_id, partition), "identity")
        check((found["base"], found["last"]) == bounds, "another range")
        for batch in batches:
            yield from (record for record in records(batch) if record["offset"] >= start)


def text(data):
    return None if data is None else base64.b64encode(data).decode()


def vectors(folder):
    """What the test vectors hold, by their names."""
    known = {
        "claim": claim,
        "claim_complete": complete,
        "node_leaf": node,
        "node_inner": node,
        "manifest_root": lambda data: root(Fields(data)),
        "manifest_reference": lambda data: reference(Fields(data)),
        "archive_state": lambda data: archive_cursor(Fields(data)),
        "checkpoint_none": lambda data: checkpoint(data)[0],
        "checkpoint_zstd": lambda data: checkpoint(data)[0],
        "checkpoint_gzip": lambda data: checkpoint(data)[0],
        "segment_plain": lambda data: segment(data)[0],
        "segment_zstd": lambda data: segment(data)[0],
    }
    said = {}
    for name, read in known.items():
        data = bytes.fromhex("".join(open(f"{folder}/{name}.hex").read().split()))
        said[name] = read(data)
        # A changed bit is found, where something covers it; where nothing does, its container's digest would.
        if name.startswith(("claim", "node", "checkpoint", "segment")):
            for place in range(0, len(data), max(1, len(data) // 64)):
                spoilt = bytearray(data)
                spoilt[place] ^= 4
                try:
                    read(bytes(spoilt))
                except (Damaged, struct.error, zstandard.ZstdError, gzip.BadGzipFile, EOFError, UnicodeDecodeError, KeyError):
                    continue
                raise AssertionError(f"{name}: byte {place} may be anything")
    print(json.dumps(said))


def main():
    if sys.argv[1] == "vectors":
        return vectors(sys.argv[2])
    folder, name = sys.argv[2:4]
    for partition, record in Bucket(folder, sys.argv[4] if len(sys.argv) > 4 else "").read(name):
        headers = [[header, text(value)] for header, value in record["headers"]]
        line = {"partition": partition, "offset": record["offset"], "timestamp": record["timestamp"]}
        print(json.dumps(line | {"key": text(record["key"]), "value": text(record["value"]), "headers": headers}))


main()
