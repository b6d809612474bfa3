"""Masks against llguidance over the tiny vocabulary: both walk random schemas together; at each step
every difference between the two masks must have one of the causes that docs/structured-output.md
lists.

usage: guidance_check.py DRIVER TOKENIZER.JSON [N [SEED]]"""
import collections
import json
import random
import re
import sys

import llguidance

import schema_gen as gen
from schema_check import Driver, fail


def byte_tokens(path):
    t = json.load(open(path))
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    back = {chr(b): b for b in plain}
    back.update({chr(256 + i): b for i, b in enumerate(b for b in range(256) if b not in plain)})
    tokens = {i: bytes(back[c] for c in s) for s, i in t["model"]["vocab"].items()}
    special = {a["id"]: a["content"].encode() for a in t["added_tokens"]}
    n = max([*tokens, *special]) + 1
    return [tokens.get(i, b"\xff" + special.get(i, b"?")) for i in range(n)], sorted(set(range(n)) - set(tokens))


class Wrapper:
    def __init__(self, tokens, special):
        self.tokens, self.special_token_ids = tokens, special
        self.eos_token_id, self.bos_token_id = special[0], None
        self.greedy = sorted(range(len(tokens)), key=lambda i: -len(tokens[i]))

    def __call__(self, s):
        s = s if isinstance(s, bytes) else s.encode()
        out = []
        while s:
            i = next(i for i in self.greedy if s.startswith(self.tokens[i]))
            out.append(i)
            s = s[len(self.tokens[i]):]
        return out


def comparable(r, depth):
    """Schemas for which both sides promise the same language, but for the causes below."""
    k = r.random()
    if depth > 0 and k < 0.35:
        names = r.sample(["a", "id", "name", "k\u00e9y"], r.randint(1, 3))
        return {"type": "object", "properties": {n: comparable(r, depth - 1) for n in names},
                "required": [n for n in names if r.random() < 0.6], "additionalProperties": False}
    if depth > 0 and k < 0.5:
        s = {"type": "array", "items": comparable(r, depth - 1)}
        lo = r.randint(0, 2)
        s["minItems"] = lo
        if r.random() < 0.5:
            s["maxItems"] = lo + r.randint(0, 2)
        return s
    if depth > 0 and k < 0.6:
        return {"anyOf": [comparable(r, depth - 1) for _ in range(2)]}
    j = r.random()
    if j < 0.2:
        return {"type": "string"}
    if j < 0.35:
        lo = r.randint(0, 3)
        return {"type": "string", "minLength": lo, "maxLength": lo + r.randint(0, 5)}
    if j < 0.45:
        return {"type": "string", "pattern": r.choice(["^[a-z]+$", "^[A-Z]{2,4}-[0-9]{1,3}$", "^(foo|bar)+$", "^a*b?$"])}
    if j < 0.5:
        return {"type": "string", "format": r.choice(["date", "uuid", "ipv4"])}
    if j < 0.65:
        s = {"type": "integer"}
        if r.random() < 0.7:
            a, b = sorted([r.randint(-150, 150), r.randint(-150, 2000)])
            s.update(minimum=a, maximum=b)
        return s
    if j < 0.75:
        return {"type": "number"}
    if j < 0.85:
        return {"type": r.choice(["boolean", "null"])}
    return {"enum": [r.choice([gen.text(r, 0, 4).replace("\x00", "").replace("/", ""), r.randint(-20, 20), True, None])
                     for _ in range(r.randint(1, 4))]}


def blank_outside(s, t):
    """Whether the token writes white space outside strings."""
    inside = escaped = False
    for i, b in enumerate(s + t):
        if not inside and b in b" \n\t" and i >= len(s):
            return True
        if escaped:
            escaped = False
        elif inside and b == 0x5c:
            escaped = True
        elif b == 0x22:
            inside = not inside
    return False


CAUSES = [  # name, who allows it ("ours" or "theirs"), test of (text so far, token)
    ("white space", "ours", lambda s, t: blank_outside(s, t)),
    ("DEL in a string", "ours", lambda s, t: b"\x7f" in t),
    ("escape \\/", "ours", lambda s, t: b"\\/" in (s + t)[-40:]),
    ("integer -0", "theirs", lambda s, t: re.search(rb"(^|[\[:,{ ])-0$", (s + t)) or re.search(rb"(^|[\[:,{ ])-0[,\]}]", (s + t))),
    ("more than 18 digits", "theirs", lambda s, t: re.search(rb"\d{19}", s + t)),
    ("exponent over two digits", "theirs", lambda s, t: re.search(rb"[eE][+-]?\d{3}", s + t)),
    ("year 0000, 29 February of a common year", "theirs",
     lambda s, t: re.search(rb'"(0000|\d{4}-02-29)', s + t)),
    ("\\u escape of a character that needs none", "ours", lambda s, t: b"\\u" in (s + t)[-40:]),
    ("escape where we write the character", "theirs", lambda s, t: b"\\" in (s + t)[-14:]),
]


def explain(ours, s, t):
    for name, who, test in CAUSES:
        if who == ("ours" if ours else "theirs") and test(s, t):
            return name
    return None


def main():
    driver, path = sys.argv[1:3]
    n = int(sys.argv[3]) if len(sys.argv) > 3 else 300
    seed = int(sys.argv[4]) if len(sys.argv) > 4 else 9
    print("seed", seed)
    r = random.Random(seed)
    tokens, special = byte_tokens(path)
    tok = llguidance.LLTokenizer(llguidance.TokenizerWrapper(Wrapper(tokens, special)), n_vocab=len(tokens))
    ordinary = [i for i in range(len(tokens)) if i not in set(special)]
    d = Driver(driver)
    d("tiny", path=path)
    count = collections.Counter()
    for _ in range(n):
        schema = comparable(r, 2)
        g = llguidance.LLMatcher.grammar_from_json_schema(
            json.dumps(schema), defaults={"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"})
        m = llguidance.LLMatcher(tok, g)
        if m.is_error():
            count["llguidance refuses"] += 1
            continue
        c = d("schema", schema=json.dumps(schema))
        if "error" in c:
            fail("refused: " + c["error"], schema)
        ids, s = [], b""
        for _ in range(40):
            a = d("mask", ids=ids)
            if "refused" in a:
                fail("a token that both allowed was refused", schema, s)
            words = [int(a["mask"][i:i + 8], 16) for i in range(0, len(a["mask"]), 8)]
            ours = {i for i in ordinary if words[i // 32] >> (i % 32) & 1}
            bits = m.compute_bitmask()
            theirs = {i for i in ordinary if bits[i // 8] >> (i % 8) & 1}
            count["masks"] += 1
            count["equal"] += ours == theirs
            for i in ours ^ theirs:
                why = explain(i in ours, s, tokens[i])
                only = tokens[next(iter(theirs))] if len(theirs) == 1 else b""
                if not why and i in ours and (only.startswith(tokens[i]) or tokens[i].startswith(only) and only):
                    why = "forced text: one split of it"
                if not why:
                    fail("unexplained: only %s" % ("ours" if i in ours else "theirs"), schema, s, tokens[i])
                count[why] += 1
            if a["end"] != m.is_accepting():
                fail("end: ours %s, theirs %s" % (a["end"], m.is_accepting()), schema, s)
            both = sorted(ours & theirs)
            if not both:
                break
            i = r.choice(both)
            if r.random() < 0.5:
                closers = [k for k in both if tokens[k] in (b'"', b"]", b"}", b",")]
                i = r.choice(closers or both)
            ids.append(i)
            s += tokens[i]
            if not m.consume_token(i):
                fail("llguidance refused its own token", schema, s)
    print(dict(count))


if __name__ == "__main__":
    main()
