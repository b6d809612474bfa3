"""The tiny model's vocabulary: the first N ranks of o200k plus the 15 harmony specials.

An ordinary token keeps its o200k rank as its id.  The special tokens, which have the
ids 199998..200012 in the large vocabulary, follow at N..N+14 in the same order.

    python tokenizer.py --o200k o200k_base.tiktoken --out assets/tiny

writes tokenizer.json and tokenizer_config.json.
"""
import argparse
import base64
import json
import os

N_RANKS = 1521
SPECIALS = [
    "<|startoftext|>", "<|endoftext|>", "<|reserved_200000|>", "<|reserved_200001|>",
    "<|return|>", "<|constrain|>", "<|reserved_200004|>", "<|channel|>", "<|start|>",
    "<|end|>", "<|message|>", "<|reserved_200009|>", "<|reserved_200010|>",
    "<|reserved_200011|>", "<|call|>",
]
VOCAB = N_RANKS + len(SPECIALS)  # 1536
SPECIAL_ID = {s: N_RANKS + i for i, s in enumerate(SPECIALS)}
START = SPECIAL_ID["<|start|>"]
END = SPECIAL_ID["<|end|>"]
MESSAGE = SPECIAL_ID["<|message|>"]
CHANNEL = SPECIAL_ID["<|channel|>"]
CONSTRAIN = SPECIAL_ID["<|constrain|>"]
RETURN = SPECIAL_ID["<|return|>"]
CALL = SPECIAL_ID["<|call|>"]
ENDOFTEXT = SPECIAL_ID["<|endoftext|>"]
STOPS = (RETURN, ENDOFTEXT, CALL)

# The pre-tokeniser of o200k, one alternative a line.
SPLIT = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|"
    r"'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|"
    r"'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r"\s*[\r\n]+",
    r"\s+(?!\S)",
    r"\s+",
])


def find_o200k(path=None):
    """The o200k_base.tiktoken file: the argument, $O200K or the repository's own."""
    here = os.path.dirname(os.path.abspath(__file__))
    path = path or os.environ.get("O200K") or \
        os.path.join(here, "../../assets/o200k/o200k_base.tiktoken")
    if not os.path.exists(path):
        raise SystemExit("name the file o200k_base.tiktoken with --o200k or $O200K")
    return path


def read_ranks(path, limit=None):
    """Token bytes in rank order."""
    out = []
    with open(path) as f:
        for line in f:
            token, rank = line.split()
            if int(rank) != len(out):
                raise SystemExit("ranks are not in order")
            out.append(base64.b64decode(token))
            if limit and len(out) == limit:
                break
    return out


class Tokenizer:
    """Text to ids with tiktoken's BPE over the prefix of the ranks (or over all of them)."""

    def __init__(self, o200k, full=False):
        import tiktoken
        ranks = read_ranks(o200k, None if full else N_RANKS)
        base = len(ranks)
        self.special = {s: base + i for i, s in enumerate(SPECIALS)}
        self.enc = tiktoken.Encoding(
            "tiny", pat_str=SPLIT, mergeable_ranks={t: i for i, t in enumerate(ranks)},
            special_tokens=self.special)
        self.cache = {}

    def text(self, s):
        """Ids of one piece of text; short pieces and system texts are remembered."""
        ids = self.cache.get(s)
        if ids is None:
            ids = self.enc.encode_ordinary(s)
            if len(self.cache) < 20000 and (len(s) < 20 or s.startswith("You are")):
                self.cache[s] = ids
        return ids

    def decode(self, ids):
        return self.enc.decode(list(ids))


def byte_to_unicode():
    """The reversible byte -> printable character table that byte-level BPE files use."""
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, extra = {}, 0
    for b in range(256):
        if b in keep:
            table[b] = chr(b)
        else:
            table[b] = chr(256 + extra)
            extra += 1
    return table


def write_files(o200k, out):
    ranks = read_ranks(o200k, N_RANKS)
    rank_of = {t: i for i, t in enumerate(ranks)}
    b2u = byte_to_unicode()
    show = lambda t: "".join(b2u[b] for b in t)
    # tiktoken merges any adjacent pair whose union is a token, lowest rank first.  The same
    # in merge-list form: every split of every token into two tokens, in order of the union.
    merges = []
    for t in ranks:
        pairs = [(rank_of[t[:i]], rank_of[t[i:]]) for i in range(1, len(t))
                 if t[:i] in rank_of and t[i:] in rank_of]
        assert pairs or len(t) == 1, t
        merges += [[show(ranks[a]), show(ranks[b])] for a, b in sorted(pairs)]
    added = [{"id": SPECIAL_ID[s], "content": s, "single_word": False, "lstrip": False,
              "rstrip": False, "normalized": False, "special": True} for s in SPECIALS]
    tok = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated",
             "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
             "use_regex": False}]},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": True,
                           "trim_offsets": False, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                    "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": True,
                  "vocab": {show(t): i for i, t in enumerate(ranks)}, "merges": merges},
    }
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, "tokenizer.json"), "w") as f:
        json.dump(tok, f, separators=(",", ":"))
        f.write("\n")
    conf = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|startoftext|>", "eos_token": "<|return|>",
        "pad_token": "<|endoftext|>", "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 131072,
        "added_tokens_decoder": {
            str(a["id"]): {k: v for k, v in a.items() if k != "id"} for a in added},
    }
    with open(os.path.join(out, "tokenizer_config.json"), "w") as f:
        json.dump(conf, f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--o200k")
    ap.add_argument("--out", required=True)
    a = ap.parse_args()
    write_files(find_o200k(a.o200k), a.out)
