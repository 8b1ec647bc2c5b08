"""Bytes as another implementation's codecs compress them: those of kafka-python.

compressed.py CODEC          compresses standard input to standard output; CODEC: gzip, snappy, lz4, zstd
compressed.py CODEC ZEROS    compresses so many zeros
"""

import sys

from kafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode

encode = {"gzip": gzip_encode, "snappy": snappy_encode, "lz4": lz4_encode, "zstd": zstd_encode}[sys.argv[1]]
plain = bytes(int(sys.argv[2])) if len(sys.argv) > 2 else sys.stdin.buffer.read()
sys.stdout.buffer.write(encode(plain))
