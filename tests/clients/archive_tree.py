"""Reads the files of a topic that a broker exports while it runs, with DuckDB and Polars, and holds them against what consumers read.

archive_tree.py FOLDER TOPIC CONSUMED: FOLDER holds a cluster's `archive` and `archive-meta`; CONSUMED has a line of `varve consume -o json`
for each record. Every record is in one file, and the list says what the files are. Prints one JSON line.
"""

import glob
import hashlib
import json
import os
import sys

import pyarrow.parquet

import archive


def listed(folder, files):
    """The entries of the list by partition; each names its file, and what comes before it."""
    lengths, chained = {}, 0
    for path in files:
        data = open(path, "rb").read()
        lengths[os.path.relpath(path, folder)] = (len(data), hashlib.sha256(data).hexdigest())
    entries = {}
    for path in glob.glob(f"{folder}/archive-meta/v1/parquet/**/*.json", recursive=True):
        raw = open(path, "rb").read()
        entries.setdefault(os.path.dirname(path), []).append((json.loads(raw), hashlib.sha256(raw).hexdigest()))
    named = set()
    for partition in entries.values():
        partition.sort(key=lambda entry: entry[0]["first_offset"])
        before = None
        for entry, digest in partition:
            file = entry["file"].split("/archive/", 1)[1]
            name = f"archive/{file}"
            if name not in lengths:
                continue
            assert lengths[name] == (entry["bytes"], entry["sha256"]), entry
            assert entry["records"] == pyarrow.parquet.read_metadata(f"{folder}/{name}").num_rows, entry
            if before and before[0]["last_offset"] + 1 == entry["first_offset"]:
                assert entry["previous_entry_sha256"] == before[1], entry
                chained += 1
            named.add(name)
            before = (entry, digest)
    assert named == set(lengths), set(lengths) - named
    return chained


def main():
    folder, topic, lines = sys.argv[1:]
    expected = archive.consumed(lines, topic)
    tree = f"{folder}/archive/v1/topic={topic}"
    for name, rows in {"duckdb": archive.by_duckdb(tree), "polars": archive.by_polars(tree)}.items():
        different = next((pair for pair in zip(rows, expected) if pair[0] != pair[1]), None)
        assert rows == expected, (name, len(rows), len(expected), different)
    files = glob.glob(f"{tree}/**/*.parquet", recursive=True)
    print(json.dumps({"rows": len(expected), "files": len(files), "chained": listed(folder, files)}))


main()
