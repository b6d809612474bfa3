"""Random turns through the turn automaton, against openai-harmony's strict parser and jsonschema:
every finished turn parses into legal messages, recipients are declared tools, arguments and
structured answers are valid, the first and last messages are what the request asked for.

usage: turn_check.py DRIVER ASSETS [N_TURNS [SEED]]"""
import json
import os
import random
import sys

import schema_gen as gen
from schema_check import Driver, fail, loads, validator

BUILTIN = [["browser.search", json.dumps({"type": "object", "properties": {"query": {"type": "string"},
           "topn": {"type": "number"}}, "required": ["query"]}), True], ["python", None, True]]
NAMES = ["get_weather", "get_weather_now", "f", "f2", "send-mail", "A" * 64, "x.y", "caf\u00e9"]


def spec(r):
    tools = [["functions." + n, json.dumps(args(r)) if r.random() < 0.8 else None, False]
             for n in r.sample(NAMES, r.randint(0, 4))]
    tools += r.sample(BUILTIN, r.randint(0, 2))
    final = json.dumps(args(r)) if r.random() < 0.5 else None
    return dict(tools=tools, final=final, must_call=bool(tools) and r.random() < 0.3, no_analysis=r.random() < 0.2)


def args(r):
    """An object schema with values."""
    while True:
        s = gen.object_schema(r, 2, [])
        try:
            v = gen.value(r, s, s)
        except gen.No:
            continue
        if validator(s).is_valid(loads(json.dumps(v))):
            return s


def canonical(enc, ids):
    """Whether all text in headers has the tokens that encoding it gives."""
    header, run = True, []
    for t in ids:
        if header and t < 199998:
            run.append(t)
            continue
        if run and enc.encode(enc.decode(run)) != run:
            return False
        run = []
        header = header and t != 200008 or t == 200006
    return True


def check(lib, enc, d, r, count):
    q = spec(r)
    c = d("turn", **q)
    if "error" in c:
        fail(c["error"], q)
    stop = r.random() < 0.3
    for _ in range(5):
        w = d("turn_walk", seed=r.getrandbits(60), max=1500, stop=stop)
        ids = w["ids"]
        if not w["done"]:
            count["cut"] += 1
            continue
        p = lib.StreamableParser(enc, role=lib.Role.ASSISTANT)  # strict
        for t in ids:
            p.process(t)
        messages = p.messages
        text = enc.decode(ids)
        kinds = []
        for m in messages:
            body = "".join(x.text for x in m.content)
            if m.author.role != lib.Role.ASSISTANT:
                fail("role", q, text)
            if m.recipient in (None, "all"):
                if m.channel not in ("analysis", "commentary", "final"):
                    fail("channel", q, text)
                kinds.append(m.channel)
                if m.channel == "final" and q["final"]:
                    errors = [e.message for e in validator(json.loads(q["final"])).iter_errors(loads(body))]
                    if errors:
                        fail("answer not valid", q, text, errors)
            else:
                kinds.append("call")
                tool = [t for t in q["tools"] if t[0] == m.recipient]
                if len(tool) != 1:
                    fail("recipient %r" % m.recipient, q, text)
                if m.channel != "commentary" and not (tool[0][2] and m.channel == "analysis"):
                    fail("channel of a call", q, text)
                if m.content_type not in (None, "json", "<|constrain|>json", "code"):
                    fail("content type %r" % m.content_type, q, text)
                if tool[0][1] is not None:
                    errors = [e.message for e in validator(json.loads(tool[0][1])).iter_errors(loads(body))]
                    if errors:
                        fail("arguments not valid", q, text, errors)
        last = kinds[-1]
        if last not in ("final", "call") or set(kinds[:-1]) - {"analysis", "commentary"}:
            fail("order of messages: %s" % kinds, q, text)
        if q["must_call"] and last != "call" or q["no_analysis"] and "analysis" in kinds:
            fail("not as asked: %s" % kinds, q, text)
        if stop and kinds.count("analysis") > 1:
            fail("analysis after it was stopped", q, text)
        if (ids[-1] == 200012) != (last == "call"):
            fail("last token", q, text)
        if not canonical(enc, ids):
            fail("a header split differently from its encoding", q, text)
        count["turns"] += 1
        count[last] += 1
        count["messages"] += len(kinds)


def main():
    driver, assets = sys.argv[1:3]
    n = int(sys.argv[3]) if len(sys.argv) > 3 else 2000
    seed = int(sys.argv[4]) if len(sys.argv) > 4 else 6
    os.environ["TIKTOKEN_ENCODINGS_BASE"] = os.path.join(assets, "o200k")
    import openai_harmony as lib
    enc = lib.load_harmony_encoding("HarmonyGptOss")
    print("seed", seed)
    r = random.Random(seed)
    d = Driver(driver)
    count = dict.fromkeys(["turns", "cut", "final", "call", "messages"], 0)
    for _ in range(n // 5):
        check(lib, enc, d, r, count)
    print(count, d("stats"))
    if count["turns"] < n * 0.9 or min(count["final"], count["call"]) < n / 20:
        fail("too few turns", {}, count)


if __name__ == "__main__":
    main()
