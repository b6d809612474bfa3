#!/usr/bin/env python3
"""Parquet files as JSON Lines, for gloss eval. Needs pyarrow (pip install pyarrow).

Usage: scripts/convert_dataset.py IN.parquet... OUT.jsonl
Several inputs are written one after the other. Dates become ISO text, bytes UTF-8 text.
"""

import json
import sys


def plain(v):
    if isinstance(v, bytes):
        return v.decode()
    if hasattr(v, "isoformat"):
        return v.isoformat()
    raise TypeError(f"a value of type {type(v).__name__} has no JSON form")


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        from pyarrow import parquet
    except ImportError:
        sys.exit("convert_dataset.py: pyarrow is missing: pip install pyarrow")
    n = 0
    with open(sys.argv[-1], "w", encoding="utf-8") as out:
        for path in sys.argv[1:-1]:
            for batch in parquet.ParquetFile(path).iter_batches():
                for row in batch.to_pylist():
                    out.write(json.dumps(row, ensure_ascii=False, default=plain) + "\n")
                    n += 1
    print(f"{n} rows", file=sys.stderr)


if __name__ == "__main__":
    main()
