"""The pieces of src/eval against Python: extraction (the committed table, then random texts against
extract_ref.py), CPython's random, SHA-256, statistics, CSV, gp-IRT."""

import csv
import hashlib
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile

import extract_ref as ref

DRIVER = os.path.join(os.environ["GLOSS_BUILD"], "drivers", "eval_driver")
CASES = os.path.join(os.path.dirname(__file__), "..", "golden", "extract", "cases.jsonl")
N_RANDOM = 4000
bad = 0


def ask(queries):
    done = subprocess.run([DRIVER], input="".join(json.dumps(q) + "\n" for q in queries),
                          capture_output=True, text=True, timeout=60)
    if done.returncode or done.stderr:
        sys.exit(f"driver: exit {done.returncode} {done.stderr}")
    out = [json.loads(x) for x in done.stdout.splitlines()]
    assert len(out) == len(queries)
    return out


def check(name, got, want):
    global bad
    if got != want:
        bad += 1
        if bad < 20:
            print(f"{name}: {str(got)[:150]!r}, wanted {str(want)[:150]!r}")


def table():
    cases = [json.loads(x) for x in open(CASES)]
    assert len(cases) >= 300
    for c, got in zip(cases, ask(cases)):
        check(f"{c['op']} of {c['text']!r}", got, c["want"])
    met = {c["want"] for c in cases if c["op"] == "pattern"}
    # what 6 and 7 match, 5 matches too, and it goes first
    check("deciding patterns in the table", sorted(met), [-1, 0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12])
    print(f"{len(cases)} cases of the table ({sum(c['by'] == 'hand' for c in cases)} by hand)")
    return cases


def random_texts(seed):
    """Texts of the rules' own words, shuffled."""
    r = random.Random(seed)
    words = ["Answer", "answers", "Option", "Choice", "**", "*", "__", "_", ":", "-", "\u2013", "(", ")",
             "[", "]", "A", "B", "C", "D", "E", "a", "c", "\\boxed{", "\\text{", "\\textbf{", "}", "\n",
             " ", " ", " ", ".", ",", "$", "#### ", "12", "-3", "0.5", "The answer is ", "x", "\u00e9",
             "framebox{", "is", "=", "\t", "0"]
    rules = {"abcd": ref.abcd, "pattern": ref.pattern, "boxed": ref.boxed, "tinymmlu": ref.tinymmlu,
             "gsm8k_strict": ref.gsm8k_strict, "gsm8k_flexible": ref.gsm8k_flexible,
             "gsm8k_cot": ref.gsm8k_cot, "int": ref.integer}
    queries, want = [], []
    for _ in range(N_RANDOM):
        text = "".join(r.choice(words) for _ in range(r.randint(0, 14)))
        op = r.choice(list(rules))
        queries.append({"op": op, "text": text})
        want.append(rules[op](text))
        gold = "".join(r.choice(words) for _ in range(r.randint(0, 3)))
        other = gold if r.random() < 0.5 else text
        queries.append({"op": "same", "text": other, "gold": gold})
        want.append(ref.same(other, gold))
    for q, got, w in zip(queries, ask(queries), want):
        check(f"{q['op']} of {q['text']!r}", got, w)
    print(f"{len(queries)} random texts")


def twister():
    queries, want = [], []
    for seed in (0, 1, 42, 1234, 2**32 - 1, 2**32, 2**53 + 12345):
        r, draws, w = random.Random(seed), [], []
        for i in range(300):
            what = ("sample", "shuffle", "random")[i % 3]
            n = (4, 30, 198, 1584, 21, 22, 85, 86)[i % 8]
            k = min(n, (4, 1, 5, 6, 16, 21, 22, 100)[i // 8 % 8])
            draws.append([what, n, k])
            if what == "sample":
                w.append(r.sample(range(n), k))
            elif what == "shuffle":
                v = list(range(n))
                r.shuffle(v)
                w.append(v)
            else:
                w.append(r.random())
        queries.append({"op": "twister", "seed": seed, "draws": draws})
        want.append(w)
    for q, got, w in zip(queries, ask(queries), want):
        for d, a, b in zip(q["draws"], got, w):
            check(f"seed {q['seed']} {d}", a, b)
    print(f"{sum(len(w) for w in want)} draws of CPython's generator")


def hashes():
    texts = ["x" * n for n in (0, 1, 54, 55, 56, 57, 63, 64, 65, 119, 120, 128, 1000)] + ["\u00e9\u20ac"]
    for t, got in zip(texts, ask([{"op": "sha256", "text": t} for t in texts])):
        check(f"sha256 of {len(t)}", got, hashlib.sha256(t.encode()).hexdigest())


def close(name, got, want, tol=1e-9):
    same = got is not None and want is not None and math.isclose(got, want, rel_tol=tol, abs_tol=tol)
    check(name, got if not same else want, want)


def stats():
    r = random.Random(7)
    sets = [[r.choice([0, 1]) for _ in range(n)] for n in (2, 10, 198)] + [[r.random() for _ in range(50)]]
    for v, got in zip(sets, ask([{"op": "stats", "values": v} for v in sets])):
        n, m = len(v), statistics.mean(v)
        se = statistics.stdev(v) / math.sqrt(n)
        close("mean", got[0], m)
        close("std", got[1], statistics.pstdev(v))
        close("stderr", got[2], se)
        z = statistics.NormalDist().inv_cdf(0.975)
        if set(v) <= {0, 1}:  # Wilson: where |p - m| = z sqrt(p (1 - p) / n)
            for p in got[3:5]:
                close("Wilson", abs(p - m), z * math.sqrt(max(0, p * (1 - p)) / n), 1e-6)
        else:
            close("low", got[3], m - z * se)
            close("high", got[4], m + z * se)
        close("bootstrap", got[5], statistics.pstdev(v) / math.sqrt(n), 0.1)  # 1000 resamples


def rows():
    r = random.Random(3)
    with tempfile.TemporaryDirectory() as d:
        table = [["Question", "a b", "c,d"]]
        table += [["".join(r.choice("ab \",\n\u00e9x") for _ in range(r.randint(0, 9))) for _ in range(3)]
                  for _ in range(200)]
        table = [t for t in table if any(t)]
        want = [dict(zip(table[0], t)) for t in table[1:]]
        for i, end in enumerate(("\n", "\r\n")):
            path = os.path.join(d, f"{i}.csv")
            with open(path, "w", newline="") as f:
                csv.writer(f, lineterminator=end).writerows(table)
            check(f"CSV with {end!r}", ask([{"op": "rows", "path": path}])[0], want)
        bad_files = {"short.csv": "a,b\n1\n", "open.csv": 'a,b\n1,"2\n', "x.parquet": "PAR1", "e.jsonl": "",
                     "bad.jsonl": '{"a":1}\n{"a":\n', "list.jsonl": "[1]\n", "long.csv": "a\n1,2\n"}
        says = {"short.csv": "line 2", "open.csv": "quote", "x.parquet": "convert_dataset.py",
                "e.jsonl": "no rows", "bad.jsonl": "line 2", "list.jsonl": "object", "long.csv": "line 2"}
        for name, text in bad_files.items():
            with open(os.path.join(d, name), "w") as f:
                f.write(text)
            got = ask([{"op": "rows", "path": os.path.join(d, name)}])[0]
            check(f"{name} says {says[name]}", says[name] in got.get("error", ""), True)


def irt():
    """Parameters of our own making; the same formulas with a plain minimiser (gradient descent)."""
    r = random.Random(11)
    n, dim = 400, 3
    a = [[abs(r.gauss(0.8, 0.3)) for _ in range(n)] for _ in range(dim)]
    b = [[r.gauss(0, 0.7) for _ in range(n)] for _ in range(dim)]
    seen = r.sample(range(n), 100)
    weights = [r.random() for _ in seen]
    weights = [w / sum(weights) for w in weights]
    subs = {"x": list(range(0, 100)), "y": list(range(100, n))}

    def p(i, t):
        z = sum(min(30, max(-30, a[d][i] * t[d] - b[d][i])) for d in range(dim))
        return 1 / (1 + math.exp(-z))

    ability = [0.9, -0.2, 0.4]
    y = [int(r.random() < p(i, ability)) for i in seen]

    def fit():
        t = [0.0] * dim
        for _ in range(1500):
            g = [sum((p(i, t) - yi) * a[d][i] for i, yi in zip(seen, y)) for d in range(dim)]
            t = [x - 0.05 * gi for x, gi in zip(t, g)]
        return t

    t = fit()
    bal = {i: n / (2 * len(s)) for s in subs.values() for i in s}
    lam = 100 / n
    first = sum(w * yi for w, yi in zip(weights, y))
    data = sum(bal[i] * yi for i, yi in zip(seen, y)) / 100
    rest = [i for i in range(n) if i not in set(seen)]
    model = sum(bal[i] * p(i, t) for i in rest) / len(rest)
    second = lam * data + (1 - lam) * model
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "irt.json")
        par = {"mmlu": {"seen_examples": seen, "examples_weights": weights, "A": [a], "B": [b],
                        "optimal_lambda": 0.3, "subscenarios_position": {"mmlu": subs}}}
        with open(path, "w") as f:
            json.dump(par, f)
        got, few = ask([{"op": "irt", "path": path, "y": y}, {"op": "irt", "path": path, "y": y[:9]}])
        close("irt", got["irt"], first, 1e-9)
        close("pirt", got["pirt"], second, 1e-5)
        close("gpirt", got["gpirt"], 0.3 * first + 0.7 * second, 1e-5)
        check("few answers", "100" in few.get("error", ""), True)
        par["mmlu"]["seen_examples"][0] = n
        with open(path, "w") as f:
            json.dump(par, f)
        check("bad index", "below N" in ask([{"op": "irt", "path": path, "y": y}])[0]["error"], True)


seed = int(os.environ.get("SEED", "1"))
print("seed", seed)
table()
random_texts(seed)
twister()
hashes()
stats()
rows()
irt()
if bad:
    sys.exit(f"{bad} differences")
print("all equal")
