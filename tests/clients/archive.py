"""Reads exported files with DuckDB, Polars, pandas and pyarrow, and holds each against what consumers read.

archive.py TOPIC CONSUMED DOCUMENT: in the folder that holds `history/`, `arrow/` and `jsonl/`. CONSUMED has a line of `varve consume -o json`
for each record. Runs every block of DOCUMENT that is SQL or Python, as it stands there. Prints one JSON line.
"""

import base64
import glob
import json
import re
import sys

import duckdb
import pandas
import polars
import pyarrow.dataset
import pyarrow.parquet

COLUMNS = [
    "offset", "timestamp", "timestamp_type", "key", "value", "headers", "leader_epoch", "producer_id", "producer_epoch", "sequence",
    "is_transactional", "is_control", "txn_outcome",
]


def field(record, name, encoding):
    value = record.get(name)
    return value if value is None else base64.b64decode(value) if record.get(encoding) == "base64" else value.encode()


def consumed(path, topic):
    records = []
    for line in open(path):
        record = json.loads(line)
        if record["topic"] == topic:
            headers = [(header["key"], field(header, "value", "encoding")) for header in record.get("headers", [])]
            key, value = field(record, "key", "key_encoding"), field(record, "value", "value_encoding")
            records.append((record["partition"], record["offset"], record["timestamp"], key, value, headers))
    return sorted(records)


def data(value):
    """Bytes of whatever a reader gives; pandas has NaN for null in some columns."""
    return None if value is None or value is pandas.NA or value != value else bytes(value)


def row(partition, offset, timestamp, key, value, headers):
    pairs = [(header["key"], data(header["value"])) for header in ([] if headers is None else headers)]
    return int(partition), int(offset), int(timestamp.timestamp() * 1000 + 0.5), data(key), data(value), pairs


def by_duckdb(tree):
    files = f"{tree}/**/*.parquet"
    names = [name for name, *_ in duckdb.sql(f"DESCRIBE SELECT * FROM read_parquet('{files}', hive_partitioning=false)").fetchall()]
    assert names == COLUMNS, names
    rows = duckdb.sql(
        f"SELECT partition, \"offset\", timestamp, key, value, headers FROM read_parquet('{files}', hive_partitioning=true, hive_types={{'topic': VARCHAR}})"
    ).fetchall()
    footers = duckdb.sql(f"SELECT DISTINCT decode(key), decode(value) FROM parquet_kv_metadata('{files}')").fetchall()
    wanted = {"cluster_id", "topic", "topic_id", "partition", "first_offset", "last_offset", "record_count", "source_sha256", "writer", "format_version"}
    assert wanted <= {name for name, _ in footers}, footers
    return sorted(row(*fields) for fields in rows)


def by_polars(tree):
    frame = polars.scan_parquet(tree, hive_partitioning=True).collect()
    picked = frame.select("partition", "offset", "timestamp", "key", "value", "headers")
    return sorted(row(*fields) for fields in picked.iter_rows())


def by_pandas(tree):
    frame = pandas.read_parquet(tree)
    names = ["partition", "offset", "timestamp", "key", "value", "headers"]
    return sorted(row(*fields) for fields in frame[names].itertuples(index=False))


def by_pyarrow(tree, form):
    table = pyarrow.dataset.dataset(tree, format=form, partitioning="hive").to_table()
    return sorted(
        row(one["partition"], one["offset"], one["timestamp"], one["key"], one["value"], one["headers"]) for one in table.to_pylist()
    )


def documented(path):
    """Runs the blocks of a document; each gives something."""
    text, blocks = open(path).read(), 0
    for language, block in re.findall(r"```(sql|python)\n(.*?)```", text, re.S):
        if language == "sql":
            for statement in block.split(";"):
                if statement.strip():
                    assert duckdb.sql(statement).fetchall(), statement
        else:
            names = {}
            exec(block, names)
            assert len(names["result"]), block
        blocks += 1
    return blocks


def main():
    topic, lines, document = sys.argv[1:]
    expected = consumed(lines, topic)
    tree = glob.glob(f"history/*/archive/v1/topic={topic}")[0]
    root = glob.glob("history/*/archive/v1")[0]
    for file in glob.glob(f"{tree}/**/*.parquet", recursive=True):
        meta = pyarrow.parquet.read_metadata(file)
        assert meta.row_group(0).column(0).compression == "ZSTD" and meta.row_group(0).column(0).has_offset_index, file
    readers = {
        "duckdb": by_duckdb(tree),
        "polars": [one for one in by_polars(tree)],
        "pandas": by_pandas(tree),
        "pyarrow": by_pyarrow(tree, "parquet"),
        "arrow": by_pyarrow(glob.glob(f"arrow/*/archive-arrow/v1/topic={topic}")[0], "arrow"),
    }
    for name, rows in readers.items():
        assert rows == expected, (name, len(rows), len(expected), next((pair for pair in zip(rows, expected) if pair[0] != pair[1]), None))
    exported = sorted(line for file in glob.glob(f"jsonl/*/archive-jsonl/v1/topic={topic}/**/*.jsonl", recursive=True) for line in open(file))
    assert exported == sorted(line for line in open(lines) if json.loads(line)["topic"] == topic), "jsonl"
    # All topics in one tree.
    assert len(polars.scan_parquet(root, hive_partitioning=True).collect()) >= len(expected)
    assert len(pandas.read_parquet(root)) >= len(expected)
    print(json.dumps({"rows": len(expected), "blocks": documented(document)}))


if __name__ == "__main__":
    main()
