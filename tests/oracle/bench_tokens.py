"""Single-thread encoding speed, ours against tiktoken, over whole text files in one run.

    make drivers && python tests/oracle/bench_tokens.py [FILE...]

Without files: English prose (the system's licence texts), code (Python's own library), JSON, and
text in several scripts whose words are drawn from the vocabulary with Zipf's frequencies, one word
in eight cut short. Ours and tiktoken's encode_ordinary take turns; each figure is the median over
the rounds of the best of three encodings, in processor time. That both give the same number of tokens is asserted.
"""
import glob
import json
import os
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time

from o200k_ref import DRIVER, read_ranks, reference

ROUNDS, BEST_OF, BYTES = 5, 3, 2_000_000


def joined(paths):
    out = ""
    for path in sorted(paths):
        if os.path.isfile(path):
            with open(path, encoding="utf-8", errors="ignore") as f:
                out += f.read()
        if len(out) > BYTES:
            break
    return out[:BYTES]


def words_of(ranks, lo, hi):
    """Vocabulary words (with their leading blank) whose letters lie in [lo, hi]."""
    words = []
    for token in ranks:
        try:
            word = token.decode()
        except UnicodeDecodeError:
            continue
        if word.strip() and all(lo <= c <= hi for c in word.strip()):
            words.append(word)
    return words


def zipf_text(rng, words, n_char, end):
    weights = [1 / (i + 10) for i in range(len(words))]
    out, n = [], 0
    while n < n_char:
        for w in rng.choices(words, weights, k=rng.randrange(5, 25)):
            if rng.random() < 1 / 8 and len(w) > 2:
                w = w[:-1]
            out.append(w)
            n += len(w)
        out.append(rng.choice(end))
    return "".join(out)


def corpora(ranks):
    rng = random.Random(1)
    chinese, russian = words_of(ranks, "一", "鿿"), words_of(ranks, "Ѐ", "ӿ")
    arabic, hindi = words_of(ranks, "؀", "ۿ"), words_of(ranks, "ऀ", "ॿ")
    stdlib = sysconfig.get_paths()["stdlib"]
    yield "english", joined(glob.glob("/usr/share/common-licenses/*"))
    yield "python", joined(glob.glob(os.path.join(stdlib, "*.py")))
    yield "json", json.dumps([{"id": i, "name": f"item {rng.randrange(10**6)}", "tags": ["a", "bc"],
                               "value": rng.random(), "ok": i % 3 == 0} for i in range(20000)])
    yield "chinese", zipf_text(rng, chinese, 400_000, ["。", ",", "\n"])
    yield "russian", zipf_text(rng, russian, 600_000, [". ", ", ", "\n"])
    mixed = [zipf_text(rng, w, 500, [". ", "!\n"]) for _ in range(200)
             for w in (chinese, russian, arabic, hindi)]
    yield "mixed", "\n".join(mixed)


def ours_seconds(path):
    out = subprocess.run([DRIVER, "bench", str(BEST_OF), path], check=True, capture_output=True,
                         text=True).stdout.split()
    return int(out[1]), float(out[2])


def theirs_seconds(enc, text):
    times = []
    for _ in range(BEST_OF):
        start = time.process_time()
        ids = enc.encode_ordinary(text)
        times.append(time.process_time() - start)
    return len(ids), min(times)


def main():
    ranks = read_ranks()
    enc = reference(ranks, {})
    if len(sys.argv) > 1:
        texts = [(os.path.basename(p), joined([p])) for p in sys.argv[1:]]
    else:
        texts = corpora(ranks)
    print(f"{'text':12} {'MB':>6} {'tokens':>8} {'ours MB/s':>10} {'tiktoken':>9} {'ratio':>6}")
    lowest = None
    for name, text in texts:
        data = text.encode()
        with tempfile.NamedTemporaryFile() as f:
            f.write(data)
            f.flush()
            ours, theirs = [], []
            for _ in range(ROUNDS):
                n_ours, s = ours_seconds(f.name)
                ours.append(s)
                n_theirs, s = theirs_seconds(enc, text)
                theirs.append(s)
        assert n_ours == n_theirs, (name, n_ours, n_theirs)
        mb = len(data) / 1e6
        a, b = mb / statistics.median(ours), mb / statistics.median(theirs)
        lowest = a / b if lowest is None else min(lowest, a / b)
        print(f"{name:12} {mb:6.2f} {n_ours:8} {a:10.1f} {b:9.1f} {a / b:6.1f}", flush=True)
    print(f"lowest ratio {lowest:.1f}")


main()
