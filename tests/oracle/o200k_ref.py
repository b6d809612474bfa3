"""The reference tokenizer (tiktoken over the committed rank file) and ours behind its pipe."""
import base64
import os
import struct
import subprocess
import tempfile

import tiktoken

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("GLOSS_BUILD", os.path.join(ROOT, "build"))
DRIVER = os.path.join(BUILD, "drivers", "tok_driver")

# The o200k split, one alternative a line.
SPLIT = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r"\s*[\r\n]+",
    r"\s+(?!\S)",
    r"\s+",
])

NAMED = {199998: "startoftext", 199999: "endoftext", 200002: "return", 200003: "constrain",
         200005: "channel", 200006: "start", 200007: "end", 200008: "message", 200012: "call"}
SPECIALS = {f"<|{NAMED.get(i, f'reserved_{i}')}|>": i for i in range(199998, 201089)}


def read_ranks():
    with open(os.path.join(ROOT, "assets", "o200k", "o200k_base.tiktoken"), "rb") as f:
        return {base64.b64decode(t): int(r) for t, r in (line.split() for line in f)}


def reference(ranks, specials):
    return tiktoken.Encoding("reference", pat_str=SPLIT, mergeable_ranks=ranks,
                             special_tokens=specials)


class Driver:
    """One running tok_driver; `tokenizer_json` is a path, or None for the compiled-in vocabulary."""

    TEXT, ALLOW, ERROR, DECODE = range(4)
    E_INPUT = -2

    def __init__(self, tokenizer_json=None):
        self.p = subprocess.Popen([DRIVER, "serve"] + ([tokenizer_json] if tokenizer_json else []),
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def _read(self, n):
        b = self.p.stdout.read(n)
        if len(b) != n:
            raise RuntimeError(f"tok_driver died: exit {self.p.wait()}")
        return b

    def _ask(self, mode, body):
        self.p.stdin.write(struct.pack("<II", mode, len(body)) + body)
        self.p.stdin.flush()
        return struct.unpack("<i", self._read(4))[0]

    def encode(self, text, mode=TEXT):
        """ids, or the negative status."""
        n = self._ask(mode, text if isinstance(text, bytes) else text.encode())
        return n if n < 0 else list(struct.unpack(f"<{n}i", self._read(4 * n)))

    def decode(self, ids):
        n = self._ask(self.DECODE, struct.pack(f"<{len(ids)}i", *ids))
        return n if n < 0 else self._read(n)

    def close(self):
        self.p.stdin.close()
        return self.p.wait()


def byte_alphabet():
    """The printable character that stands for each byte in a byte-level tokenizer.json."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    chars = {b: chr(b) for b in own}
    for i, b in enumerate(b for b in range(256) if b not in own):
        chars[b] = chr(256 + i)
    return chars


def tokenizer_json(ranks, specials):
    """A Hugging Face tokenizer.json of these ranks (every split into two tokens is a merge)."""
    chars = byte_alphabet()
    spell = {t: "".join(chars[b] for b in t) for t in ranks}
    merges = []
    for t, _ in sorted(ranks.items(), key=lambda tr: tr[1]):
        splits = [(t[:i], t[i:]) for i in range(1, len(t)) if t[:i] in ranks and t[i:] in ranks]
        splits.sort(key=lambda lr: (ranks[lr[0]], ranks[lr[1]]))
        merges += [[spell[a], spell[b]] for a, b in splits]
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": s, "single_word": False, "lstrip": False,
                          "rstrip": False, "normalized": False, "special": True}
                         for s, i in specials.items()],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
             "use_regex": False}]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                    "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": True,
                  "vocab": {spell[t]: r for t, r in ranks.items()}, "merges": merges},
    }


def temporary(suffix):
    f = tempfile.NamedTemporaryFile(prefix="gloss-", suffix=suffix, delete=False)
    f.close()
    return f.name
