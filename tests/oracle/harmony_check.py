"""The harmony module against openai-harmony 0.0.8: rendering, both library parser modes, recover mode.

    python harmony_check.py DRIVER ASSETS [--seed N] [--conversations N] [--streams N] [--only PART]

DRIVER is build/drivers/harmony_driver, ASSETS the folder with o200k/ and tiny/.
"""
import argparse
import functools
import hashlib
import json
import os
import random
import subprocess
import sys
import time

from harmony_gen import Gen, Streams, dump


class Driver:
    def __init__(self, path):
        self.p = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def batch(self, queries):
        """Answers of many queries; short ones, so that the pipes never fill on both sides."""
        out = []
        for i in range(0, len(queries), 8):
            part = queries[i:i + 8]
            self.p.stdin.write("".join(json.dumps(q) + "\n" for q in part).encode())
            self.p.stdin.flush()
            out += [json.loads(self.p.stdout.readline()) for _ in part]
        return out

    def ask(self, **q):
        return self.batch([q])[0]


class Lib:
    """openai-harmony by its inner interface, which takes JSON text as it is."""

    def __init__(self, ranks):
        os.environ["TIKTOKEN_ENCODINGS_BASE"] = ranks
        import openai_harmony
        self.h = openai_harmony
        self.enc = openai_harmony.load_harmony_encoding("HarmonyGptOss")
        self.inner = self.enc._inner
        self.names = list(self.inner.special_tokens())
        self.special = {s: self.encode(s)[0] for s in self.names}
        self.marks = set(self.special.values())

    def encode(self, text):
        return self.inner.encode(text, self.names)

    def plain(self, text):
        return self.inner.encode(text, [])

    def render(self, conv, how, drop):
        config = {"auto_drop_analysis": drop}
        if how == "completion":
            return self.inner.render_conversation_for_completion(
                conversation_json=conv, next_turn_role="assistant", config=config)
        if how == "training":
            return self.inner.render_conversation_for_training(conversation_json=conv, config=config)
        return self.inner.render_conversation(conversation_json=conv, config=config)

    def parse(self, tokens, role, strict):
        """What the driver prints for the same stream."""
        p = self.h.openai_harmony.PyStreamableParser(self.inner, role, strict)
        error = (self.h.HarmonyError, RuntimeError)
        deltas, heads, index = [], [], None
        last = (None, None, None, None)
        process, marks = p.process, self.marks
        for i, t in enumerate(tokens):
            try:
                process(t)
            except error:
                index = i
                break
            deltas.append(p.last_content_delta)
            # Only a control token or the first token can change what is known of the header.
            now = last if i and t not in marks else (p.current_role, p.current_channel, p.current_recipient,
                                                     p.current_content_type)
            if now != last:
                heads.append([i, *now])
                last = now
        if index is None:
            try:
                p.process_eos()
            except error:
                index = len(tokens)
        return {"deltas": deltas, "heads": heads, "finish_delta": None, "index": index,
                "messages": [plain_message(m) for m in json.loads(p.messages)]}


def plain_message(m):
    """One message without null fields, its content as parts."""
    m = {k: v for k, v in m.items() if v is not None}
    if isinstance(m["content"], str):
        m["content"] = [{"type": "text", "text": m["content"]}]
    return m


def text_of(m):
    return "".join(p["text"] for p in m["content"])


class Report:
    def __init__(self):
        self.bad = 0

    def fail(self, what, **detail):
        self.bad += 1
        if self.bad <= 20:
            print("MISMATCH", what)
            for k, v in detail.items():
                print("   ", k, "=", repr(v)[:1500])

    def done(self, part, n, seconds, note=""):
        print(f"{part}: {n} compared, {self.bad} mismatches in all, {seconds:.1f} s {note}", flush=True)


def check_builtins(drv, lib, rep):
    """The two built-in tool blocks, by the library and by the hashes of the format's description."""
    for name, sha in (("browser", "c4ab16736a28c6e72dca0671a6b7ba8233a0b1deaff7a2c2afad91937694d443"),
                      ("python", "2dd7bb9c4fb01b20e2f99454340c1ad6c02b319b72f76cd78eee9286e51cdf4f")):
        block = drv.ask(op="builtin", name=name)["text"].removeprefix("# Tools\n\n")
        if hashlib.sha256(block.encode()).hexdigest() != sha:
            rep.fail("builtin " + name, block=block)
    rep.done("built-in tools", 2, 0)


def check_render(drv, lib, rep, rng, n):
    t0, gen, refused, n_tok, t_lib, t_drv = time.time(), Gen(rng), 0, 0, 0.0, 0.0
    for base in range(0, n, 100):
        convs = [(gen.conversation(), rng.choice(["completion", "training", "conversation"]), rng.random() < .7)
                 for _ in range(min(100, n - base))]
        t1 = time.time()
        got = drv.batch([{"op": "render", "conv": c, "form": "library", "for": how, "drop": "library" if drop else "nothing"}
                         for c, how, drop in convs])
        t2 = time.time()
        for (c, how, drop), g in zip(convs, got):
            try:
                want = lib.render(c, how, drop)
            except (lib.h.HarmonyError, ValueError, RuntimeError) as e:
                want = None
                refused += 1
                if "error" not in g:
                    rep.fail("we accept what the library refuses", conv=c, library=str(e))
                continue
            n_tok += len(want)
            if g.get("tokens") != want:
                rep.fail("render " + how, conv=c, got=g.get("error") or diff(lib, g["tokens"], want))
        t_drv += t2 - t1
        t_lib += time.time() - t2
    rep.done("conversations", n, time.time() - t0, f"({refused} refused by both, {n_tok} tokens, "
             f"ours {t_drv:.1f} s, library {t_lib:.1f} s)")


def diff(lib, got, want):
    i = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
    show = lambda t: bytes(lib.inner.decode_bytes(t[max(0, i - 12):i + 12])).decode(errors="replace")
    return f"token {i}: got {show(got)!r} want {show(want)!r}"


def check_streams(drv, lib, rep, rng, n):
    t0 = time.time()
    # The library's ids are unsigned; a number past the vocabulary stands for any other.
    streams = Streams(rng, functools.lru_cache(None)(lib.encode), lib.special, 199998, lambda i: bytes(lib.inner.decode_bytes([i])))
    n_tok = accepted = 0
    for base in range(0, n, 64):
        part = [streams.stream() for _ in range(min(64, n - base))]
        got = drv.batch([{"op": "parse", "mode": mode, "role": role, "tokens": toks}
                         for role, toks in part for mode in ("strict", "lenient", "recover")])
        for k, (role, toks) in enumerate(part):
            n_tok += len(toks)
            want = None
            for j, strict in enumerate((True, False)):
                g = got[3 * k + j]
                want = lib.parse(toks, role, strict)
                g["messages"] = [plain_message(m) for m in g["messages"]]
                if g != want:
                    rep.fail("stream " + ("strict" if strict else "lenient"), role=role, tokens=toks,
                             text=[bytes(lib.inner.decode_bytes([t])) if t <= 201088 and t>=0 else t for t in toks], got=g, want=want)
                if strict:
                    accepted += want["index"] is None
    rep.done("streams", n, time.time() - t0, f"({n_tok} tokens twice, {accepted} accepted by strict)")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("driver")
    ap.add_argument("assets")
    ap.add_argument("--seed", type=int, default=None)
    ap.add_argument("--conversations", type=int, default=10000)
    ap.add_argument("--streams", type=int, default=50000)
    ap.add_argument("--only", default="")
    a = ap.parse_args()
    seed = a.seed if a.seed is not None else random.SystemRandom().randrange(2**32)
    print(f"seed {seed} (harmony)", flush=True)
    drv, lib, rep = Driver(a.driver), Lib(os.path.join(a.assets, "o200k")), Report()
    if a.only in ("", "builtin"):
        check_builtins(drv, lib, rep)
    if a.only in ("", "render"):
        check_render(drv, lib, rep, random.Random(seed), a.conversations)
    if a.only in ("", "streams"):
        check_streams(drv, lib, rep, random.Random(seed + 1), a.streams)
    return 1 if rep.bad else 0


if __name__ == "__main__":
    sys.exit(main())
