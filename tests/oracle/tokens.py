"""Our tokenizer against tiktoken. Exits 1 at the first difference, printing the string.

    make drivers && SEED=N python tests/oracle/tokens.py [STRINGS]

The driver checks by itself that decoding gives back every text it encoded.
"""
import glob
import json
import os
import random
import subprocess
import sys
import sysconfig
import time
import unicodedata

from o200k_ref import DRIVER, ROOT, SPECIALS, Driver, read_ranks, reference, temporary, tokenizer_json

N_STRINGS = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
SEED = int(os.environ.get("SEED", "20240806"))
N_SMALL = 1200  # ranks of the small vocabulary


def scalar(rng, lo=0, hi=0x110000):
    while True:
        cp = rng.randrange(lo, hi)
        if not 0xD800 <= cp < 0xE000:
            return chr(cp)


class Strings:
    """Generators of strings that tokenizers get wrong. Each method makes one of up to ~100 characters."""

    def __init__(self, rng, ranks):
        self.rng = rng
        self.by_category = {}
        for cp in range(0x110000):
            if not 0xD800 <= cp < 0xE000:
                self.by_category.setdefault(unicodedata.category(chr(cp)), []).append(chr(cp))
        self.categories = sorted(self.by_category)
        self.tokens = []
        for t in ranks:
            try:
                self.tokens.append(t.decode())
            except UnicodeDecodeError:
                pass
        self.bytes = list(ranks)
        self.specials = list(SPECIALS)
        self.kinds = [f for name, f in sorted(vars(Strings).items()) if name.startswith("make_")]

    def some(self, choices, lo=1, hi=30):
        return [self.rng.choice(choices) for _ in range(self.rng.randrange(lo, hi))]

    def make_categories(self):
        """Characters of all general categories, each as likely."""
        return "".join(self.rng.choice(self.by_category[c]) for c in self.some(self.categories))

    def make_split_classes(self):
        """One representative of each class that the split tells apart, densely mixed."""
        return "".join(self.some("aAbBzZ01 \t\n\r/.'!ǅʰ日\u0301\u0903\u20dd५Ⅷ½\u00a0\u3000ß\u0378\ue000"))

    def make_contractions(self):
        parts = ["'s", "'S", "'ſ", "'t", "'re", "'RE", "'rE", "'ve", "'Ve", "'m", "'ll", "'lL", "'d",
                 "'", "''", "’s", "x", "X", "ſ", "it", "WE", "日", "\u0301", " ", "l", "e", "'r", "'v",
                 "K", "1"]
        return "".join(self.some(parts, 1, 14))

    def make_line_ends(self):
        return "".join(self.some(["\r\n", "\n", "\r", "\n\n", " ", "  ", "\t", "/", "//", ".", "a",
                                  "\u2028", "\u2029", "\x0b", "\x0c", "\x85", "\u00a0", "!"], 1, 20))

    def make_runs(self):
        return "".join(self.rng.choice("aAzZ 0\n\r/!.日\u0301५🙂'ʰǅ\u3000\u200d") * self.rng.randrange(1, 70)
                       for _ in range(self.rng.randrange(1, 5)))

    def make_digits(self):
        return "".join(self.rng.choice(self.by_category[c])
                       for c in self.some(["Nd", "Nl", "No", "Nd", "Ll", "Zs", "Po"], 1, 25))

    def make_marks(self):
        return "".join(self.rng.choice(self.by_category[c])
                       for c in self.some(["Mn", "Mc", "Me", "Lo", "Lu", "Zs", "Po", "Nd"], 1, 25))

    def make_emoji(self):
        return "".join(self.some(["👨", "👩", "👧", "\u200d", "\ufe0f", "🏳", "🌈", "🇩", "🇪", "🏽", "❤", " ",
                                  "a", "☃", "\U0001fae8", "\U000e0067"], 1, 25))

    def make_private_and_unassigned(self):
        return "".join(self.rng.choice(self.by_category[c])
                       for c in self.some(["Co", "Cn", "Cc", "Cf", "Ll", "Zs"], 1, 25))

    def make_any(self):
        return "".join(scalar(self.rng) for _ in range(self.rng.randrange(1, 30)))

    def make_blocks(self):
        """One or two stretches of 0x80 code points: scripts."""
        starts = [self.rng.randrange(0, 0x1F0, 1) * 0x80 for _ in range(2)]
        return "".join(scalar(self.rng, s, s + 0x80) if not 0xD800 <= s < 0xE000 else " "
                       for s in self.some(starts + [0x20], 1, 40))

    def make_scripts(self):
        """Words of letters of one script, where the merge begins with whole characters."""
        lo, hi = self.rng.choice([(0x410, 0x450), (0x4E00, 0x9FFF), (0x3041, 0x30FF), (0xAC00, 0xD7A3),
                                  (0x5D0, 0x5EA), (0x620, 0x64A), (0x904, 0x939), (0xE01, 0xE2E),
                                  (0x10D0, 0x10FA), (0x531, 0x587), (0xC0, 0x17F), (0x391, 0x3C9)])
        return "".join(self.some([scalar(self.rng, lo, hi) for _ in range(12)] + [" ", "о", "a", "。"],
                                 2, 60))

    def make_tokens(self):
        """Whole tokens and halves of them side by side."""
        out = []
        for t in self.some(self.tokens, 1, 12):
            k = self.rng.randrange(4)
            out.append(t if k else t[self.rng.randrange(len(t)):])
        return "".join(out)

    def make_byte_tokens(self):
        """Any tokens' bytes, what isn't UTF-8 dropped: characters cut in unusual places."""
        return b"".join(self.some(self.bytes, 1, 12)).decode("utf-8", "ignore")

    def make_code(self):
        return "".join(self.some(["    ", "\n", "if ", "(x", ")", "== ", "{", "}", "\t", "0x1F", "//", "\"",
                                  "'d", "_a", "Bc", "->", "…", ";\r\n", "\n\n", "FooBar", "HTTPServer"]))

    def make_special_lookalikes(self):
        parts = ["<|", "|>", "<", "|", "start", "<|start|>", "<|end", "<|<|end|>|>", " ", "\n", "user",
                 "<|reserved_200013|>", "<|reserved_201089|>", "<|endofprompt|>", "<|message|>"]
        return "".join(self.some(parts + [self.rng.choice(self.specials)], 1, 10))

    def one(self):
        return self.rng.choice(self.kinds)(self)


def fail(what, text, ours, theirs):
    print(f"DIFFERENT ({what}): {text!r}\n  ours   {ours}\n  theirs {theirs}")
    sys.exit(1)


def check(what, driver, enc, text):
    ours, theirs = driver.encode(text), enc.encode_ordinary(text)
    if ours != theirs:
        fail(what, text, ours, theirs)


def check_special(driver, enc, text):
    ours, theirs = driver.encode(text, Driver.ALLOW), enc.encode(text, allowed_special="all")
    if ours != theirs:
        fail("special allowed", text, ours, theirs)
    ours = driver.encode(text, Driver.ERROR)
    try:
        theirs = enc.encode(text, disallowed_special="all")
    except ValueError:
        theirs = Driver.E_INPUT
    if ours != theirs:
        fail("special refused", text, ours, theirs)


def whole_files():
    stdlib = sysconfig.get_paths()["stdlib"]
    yield from sorted(glob.glob("/usr/share/common-licenses/*"))[:12]
    yield from sorted(glob.glob(os.path.join(stdlib, "*.py")))[:60]
    yield from sorted(glob.glob(os.path.join(ROOT, "src", "*", "*.[ch]")))
    yield from sorted(glob.glob(os.path.join(ROOT, "docs", "*.md")))
    yield __file__


def check_files(driver, enc):
    n = 0
    for path in whole_files():
        if os.path.isfile(path):
            with open(path, encoding="utf-8", errors="ignore", newline="") as f:
                check(path, driver, enc, f.read())
            n += 1
    print(f"{n} whole files")


def check_code_points(driver, enc):
    """Every code point of the planes in use, between characters that show its class; others sampled."""
    cps = [cp for cp in range(0x30000) if not 0xD800 <= cp < 0xE000]
    cps += list(range(0xE0000, 0xE0200)) + list(range(0x30000, 0x110000, 101))
    for i in range(0, len(cps), 50):
        check("code points", driver, enc,
              "".join(f"1{c}A{c}a{c}b !{c} \n{c}\n" for c in map(chr, cps[i : i + 50])))
    print(f"{len(cps)} code points")


def check_long(rng, strings, driver, enc):
    """Pieces past every size at which the code changes its ways (tiktoken is slow on longer ones)."""
    for char in "a A 日 \u0301 🙂 о ! \n 0".split(" ") + [" "]:
        for n in (63, 64, 65, 500, 511, 512, 513, 520, 5000):
            check("run", driver, enc, char * n)
            check("run between", driver, enc, "x" + char * n + "Y" + char * n)
    for _ in range(60):
        letters = [scalar(rng, *rng.choice([(0x61, 0x7B), (0x430, 0x450), (0x4E00, 0x4F00)]))
                   for _ in range(rng.randrange(1, 40))]
        check("long word", driver, enc, "".join(rng.choices(letters, k=rng.randrange(100, 4000))))
    for _ in range(30):
        check("long text", driver, enc, "".join(strings.one() for _ in range(300)))
    word = "".join(rng.choices("абвгдежз", k=900))
    check("repeated word", driver, enc, (word + " ") * 5 + "qzxjv " * 400 + word)


def check_small(rng, strings, ranks):
    """A checkpoint's own tokenizer.json: a prefix of the ranks."""
    small = {t: r for t, r in ranks.items() if r < N_SMALL}
    names = ["<|startoftext|>", "<|endoftext|>", "<|return|>", "<|constrain|>", "<|channel|>", "<|start|>",
             "<|end|>", "<|message|>", "<|call|>"]
    specials = {s: N_SMALL + 7 * i for i, s in enumerate(names)}
    enc, path = reference(small, specials), temporary(".json")
    try:
        for merges_as_pairs in (True, False):
            data = tokenizer_json(small, specials)
            if not merges_as_pairs:
                data["model"]["merges"] = [" ".join(m) for m in data["model"]["merges"]]
            with open(path, "w", encoding="utf-8") as f:
                json.dump(data, f, ensure_ascii=merges_as_pairs)
            driver = Driver(path)
            for _ in range(4000):
                text = strings.one()
                check("small vocabulary", driver, enc, text)
                check_special(driver, enc, text + rng.choice(names) + text)
            driver.close()
    finally:
        os.remove(path)
    print("small vocabulary: 8000 strings")


def check_decode(rng, driver, enc):
    """Every id alone, random sequences, ids that are none."""
    for i in range(201089):
        if i % 7 == 0 or i > 199000:
            want = enc.decode_single_token_bytes(i)
            got = driver.decode([i])
            if got != want:
                fail("decode", str(i), got, want)
    for _ in range(2000):
        ids = rng.choices(range(199998), k=rng.randrange(1, 20))
        if driver.decode(ids) != enc.decode_bytes(ids):
            fail("decode", str(ids), driver.decode(ids), enc.decode_bytes(ids))
    for bad in (-1, 201089, 2**31 - 1, -(2**31)):
        if driver.decode([1, bad, 2]) != Driver.E_INPUT:
            fail("decode", str(bad), "accepted", "refused")


def best_seconds(text, n):
    path = temporary(".txt")
    try:
        with open(path, "wb") as f:
            f.write(text)
        out = subprocess.run([DRIVER, "bench", str(n), path], check=True, capture_output=True).stdout
        return float(out.split()[2])
    finally:
        os.remove(path)


def check_times():
    """Twice the text costs about twice the time, whatever it is. Noise gets three more chances."""
    patterns = {"letter": "a", "capital": "A", "blank": " ", "line end": "\n", "mark": "\u0301",
                "joiner": "👨\u200d", "digit": "7", "ideograph": "日", "mark and capitals": "\u0301A",
                "backing off": "日A", "punctuation": "!", "slash": "/", "blank lines": " \n"}
    for name, pattern in patterns.items():
        unit = pattern.encode()
        one = two = float("inf")
        for attempt in range(4):
            # Short runs are the noisy ones: the machine may be busy with other things.
            runs = 3 if attempt == 0 else 12
            one = min(one, best_seconds(unit * (1_000_000 // len(unit)), runs))
            two = min(two, best_seconds(unit * (2_000_000 // len(unit)), runs))
            if two < 2.2 * one:
                break
        else:
            print(f"{name}: 1 MB in {one * 1e3:.1f} ms, 2 MB in {two * 1e3:.1f} ms")
            sys.exit(1)
        print(f"{name:18} 1 MB {one * 1e3:6.1f} ms, 2 MB {two / one:.2f} times that")


def main():
    print(f"seed {SEED}", flush=True)
    rng = random.Random(SEED)
    ranks = read_ranks()
    enc = reference(ranks, SPECIALS)
    strings = Strings(rng, ranks)
    driver = Driver()
    start = time.monotonic()
    for i in range(N_STRINGS):
        text = strings.one()
        check("string", driver, enc, text)
        if i % 8 == 0:
            check_special(driver, enc, text + strings.make_special_lookalikes())
    print(f"{N_STRINGS} strings, {time.monotonic() - start:.1f} s")
    check_code_points(driver, enc)
    check_long(rng, strings, driver, enc)
    check_files(driver, enc)
    check_decode(rng, driver, enc)
    if driver.close() != 0:
        sys.exit("tok_driver failed")
    check_small(rng, strings, ranks)
    check_times()


main()
