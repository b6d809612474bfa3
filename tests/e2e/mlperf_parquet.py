"""The native Parquet reader against pyarrow: every encoding and compression that it reads, what it
refuses, and files with wrong bytes."""
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq

GLOSS = os.environ["GLOSS"]
OURS = ("tok_input", "tok_input_len", "text_input")


def rows_of(path, *args):
    """The rows as gloss reads them: harmonize keeps all columns."""
    p = subprocess.run([GLOSS, "mlperf", "harmonize", "--data-file", path, "--output-file",
                        path + ".jsonl", "--num-processes", "1", *args], capture_output=True,
                       text=True)
    if p.returncode:
        assert p.returncode in (1, 3, 4) and p.stderr.count("\n") == 1, (p.returncode, p.stderr)
        return None, p.stderr
    with open(path + ".jsonl") as f:
        rows = [json.loads(x) for x in f.read().strip().split("\n")]
    return [{k: v for k, v in r.items() if k not in OURS} for r in rows], ""


def table(n, rng):
    def maybe(v):
        return None if rng.random() < 0.2 else v

    def ids():
        return [rng.randrange(201088) for _ in range(rng.choice([0, 1, 7, 40]))]
    return pa.table({
        "question": [f"q{i} é {'x' * rng.randrange(30)}" for i in range(n)],
        "ids32": pa.array([maybe(ids()) for _ in range(n)], pa.list_(pa.int32())),
        "ids64": pa.array([ids() for _ in range(n)], pa.list_(pa.int64())),
        "gaps": pa.array([[maybe(i) for i in range(rng.randrange(4))] for _ in range(n)],
                         pa.list_(pa.int16())),
        "strict": pa.array([ids() for _ in range(n)], pa.list_(pa.field("x", pa.int32(), False))),
        "words": pa.array([maybe([maybe("a"), "b"]) for _ in range(n)], pa.large_list(pa.string())),
        "dataset": pa.array(["gpqa_diamond", "aime25", "math500"][:1] * n),
        "i8": pa.array([maybe(rng.randrange(-128, 128)) for _ in range(n)], pa.int8()),
        "u32": pa.array([maybe(rng.randrange(1 << 32)) for _ in range(n)], pa.uint32()),
        "i64": pa.array([maybe(rng.randrange(-2**63, 2**63)) for _ in range(n)], pa.int64()),
        "f": pa.array([maybe(rng.random()) for _ in range(n)], pa.float64()),
        "f32": pa.array([maybe(float(i)) for i in range(n)], pa.float32()),
        "b": pa.array([maybe(rng.random() < 0.5) for _ in range(n)], pa.bool_()),
        "none": pa.array([None] * n, pa.string()),
        "one": pa.array([5] * n, pa.int64()),
    })


def main():
    rng = random.Random(int(os.environ.get("SEED", "5")))
    with tempfile.TemporaryDirectory() as d:
        forms = [dict(compression=c, data_page_version=v, use_dictionary=u, data_page_size=s)
                 for c in ("none", "snappy", "zstd") for v in ("1.0", "2.0") for u in (True, False)
                 for s in (100, 1 << 20)]
        n = 150
        t = table(n, rng)
        want = t.to_pylist()

        def check(i):
            path = f"{d}/t{i}.parquet"
            pq.write_table(t, path, row_group_size=[1000, 40][i % 2], **forms[i])
            have, why = rows_of(path)
            assert have == want, (forms[i], why, next((h, w) for h, w in zip(have, want) if h != w))
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(check, range(len(forms))))

        # As pandas writes it: an index column; and a large table of prompts.
        big = pa.table({"question": ["q"] * 400, "input_tokens": [[i % 200000] * (i * 5) for i in range(400)]})
        pq.write_table(big, d + "/big.parquet")
        assert rows_of(d + "/big.parquet")[0] == big.to_pylist()
        assert rows_of(d + "/big.parquet", "--max-rows", "3")[0] == big.to_pylist()[:3]

        # Refused, with the column's name.
        q = {"question": ["q"]}
        for column, kind, form in (
                ([{"a": 1}], pa.struct([("a", pa.int32())]), {}),
                ([[[1]]], pa.list_(pa.list_(pa.int32())), {}), ([[("k", 1)]], pa.map_(pa.string(), pa.int32()), {}),
                ([10], pa.timestamp("ms"), {}), ([1], pa.date32(), {}), (["x"], pa.string(), {"compression": "gzip"}),
                ([b"\xff"], pa.binary(), {}),
                ([7], pa.int32(), {"use_dictionary": False, "column_encoding": {"odd": "DELTA_BINARY_PACKED"}})):
            pq.write_table(pa.table({**q, "odd": pa.array(column, kind)}), d + "/odd.parquet", **form)
            have, why = rows_of(d + "/odd.parquet")
            name = "question" if form.get("compression") else "odd"
            assert have is None and name in why and "convert_dataset.py" in why, (kind, form, why)

        # Wrong bytes: an error or rows, never a crash.
        small = table(12, rng)
        seeds = []
        for i, form in enumerate(forms[:: 5]):
            pq.write_table(small, d + "/s.parquet", **form)
            with open(d + "/s.parquet", "rb") as f:
                seeds.append(f.read())

        def mutate(k):
            r = random.Random(k)
            data = bytearray(r.choice(seeds))
            for _ in range(r.choice([1, 1, 3, 10])):
                data[r.randrange(len(data))] = r.choice([0, 1, 0x7f, 0x80, 0xff, r.randrange(256)])
            if r.random() < 0.1:
                data = data[: r.randrange(len(data))]
            path = f"{d}/m{k}.parquet"
            with open(path, "wb") as f:
                f.write(data)
            have, why = rows_of(path)
            os.remove(path)
            return have is None
        with ThreadPoolExecutor(2) as pool:
            refused = sum(pool.map(mutate, range(int(os.environ.get("MUTANTS", "150")))))
        print(f"{len(forms)} forms, {refused} mutants refused")
        assert refused > 50


if __name__ == "__main__":
    main()
