"""Appends blocks to a file, syncs each, and says how far it is: the control of the power cuts.

append.py PATH unwritten|written|direct|append BLOCKS

Prints a line `ready`, then one per block that is durable. Block N holds N + 1 in every 8 bytes.
"""

import mmap
import os
import struct
import sys

BLOCK = 4096


def main():
    path, kind, blocks = sys.argv[1], sys.argv[2], int(sys.argv[3])
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | (os.O_DIRECT if kind == "direct" else 0))
    if kind != "append":
        os.posix_fallocate(file, 0, blocks * BLOCK)
    if kind == "written":
        for at in range(blocks):
            os.pwrite(file, bytes(BLOCK), at * BLOCK)
    os.fsync(file)
    os.fsync(os.open(os.path.dirname(path), os.O_RDONLY))
    os.write(1, b"ready\n")
    block = mmap.mmap(-1, BLOCK)
    for at in range(blocks):
        block[:] = struct.pack("<Q", at + 1) * (BLOCK // 8)
        os.pwrite(file, block, at * BLOCK)
        os.fdatasync(file)
        os.write(1, b"%d\n" % at)


main()
