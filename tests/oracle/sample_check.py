"""Sampled turns of the tiny model, hot, through the engine.

turns: with tools, at temperature 1.5. With the header grammar on every finished turn must parse with
openai-harmony's strict parser, call only what it may call, with arguments that jsonschema accepts;
the first messages of cut ones parse, too. With it off, recover mode must not lose text.
schemas: answers held to random schemas; every finished one is valid.

usage: sample_check.py DRIVER ASSETS turns|schemas N [SEED]"""
import json
import os
import random
import re
import subprocess
import sys

import schema_gen as gen
from schema_check import fail, loads, validator
from turn_check import BUILTIN, NAMES, args

START, END, MESSAGE, CHANNEL, CONSTRAIN, RETURN, CALL = 200006, 200007, 200008, 200005, 200003, 200002, 200012
N_RANK, SPECIAL = 1521, 199998  # of tiny: the first ranks of o200k, then its specials (assets/tiny/README.md)
ASKED = ["What is the weather in Oslo?", "What is 127 + 385?", "Sort these numbers: 8 3 5", "Hi", "Send a mail to Ada.",
         "Which is larger, 9.11 or 9.9?", "Call a tool, please.", "What is the capital of France?"]


def run(driver, requests):
    p = subprocess.run([driver, "tiny"], input="".join(json.dumps(q) + "\n" for q in requests), stdout=subprocess.PIPE,
                       text=True, check=True)
    lines = p.stdout.rstrip("\n").split("\n")
    assert len(lines) == len(requests)
    return [json.loads(x) for x in lines]


def o200k(ids):
    return [i if i < N_RANK else i - N_RANK + SPECIAL for i in ids]


def request(r, tools):
    q = {"messages": [{"role": "user", "content": r.choice(ASKED)}], "reasoning_effort": "low"}
    functions = [{"type": "function", "function": {"name": t[0][10:], **({"parameters": json.loads(t[1])} if t[1] else {})}}
                 for t in tools if t[0].startswith("functions.")]
    if functions:
        q["tools"] = functions
    return q


def some_tools(r):
    tools = [["functions." + n, json.dumps(args(r)) if r.random() < 0.8 else None, False]
             for n in r.sample([n for n in NAMES if n.isascii()], r.randint(1, 4))]
    return tools + r.sample(BUILTIN, r.randint(0, 2))


def turn_request(r, tools, grammar):
    choice = r.choice([0, 0, 0, 1, 2]) if grammar else r.choice([0, 1])
    allowed = [t[0] for t in r.sample(tools, r.randint(1, len(tools)))] if r.random() < 0.3 else []
    final = json.dumps(args(r)) if r.random() < 0.3 else None
    return dict(request=request(r, tools), tools=tools, choice=choice, allowed=allowed, format=2 if final else 0,
                format_text=final, grammar=grammar, no_analysis=r.random() < 0.2, temperature=1.5,
                seed=r.getrandbits(30), max=300)


def check_held(lib, enc, q, ids, done, count):
    """What the strict parser makes of it, message by message."""
    p = lib.StreamableParser(enc, role=lib.Role.ASSISTANT)
    try:
        for t in ids:
            p.process(t)
    except Exception as e:  # noqa: BLE001
        fail("malformed: %s" % e, q, enc.decode(ids))
    text, kinds = enc.decode(ids), []
    messages = list(p.messages)
    if not done:
        messages = messages[:sum(t in (END, RETURN, CALL) for t in ids)]  # the last one is cut
    may = [t for t in q["tools"] if q["choice"] != 1 and (not q["allowed"] or t[0] in q["allowed"])]
    for m in messages:
        body = "".join(x.text for x in m.content)
        if m.author.role != lib.Role.ASSISTANT or m.channel not in ("analysis", "commentary", "final"):
            fail("header of %r" % m, q, text)
        if m.recipient in (None, "all"):
            kinds.append(m.channel)
            schema = q["format_text"] if m.channel == "final" and q["format"] else None
        else:
            kinds.append("call")
            tool = [t for t in may if t[0] == m.recipient]
            if len(tool) != 1 or m.channel == "final" or (m.channel == "analysis" and not tool[0][2]):
                fail("call of %r on %s" % (m.recipient, m.channel), q, text)
            schema = tool[0][1] or (None if tool[0][2] else '{"type":"object"}')
        if schema:
            errors = [e.message for e in validator(json.loads(schema)).iter_errors(loads(body))]
            if errors:
                fail("not valid", q, text, errors)
    if done:
        if kinds[-1] not in ("final", "call") or set(kinds[:-1]) - {"analysis", "commentary"}:
            fail("order of messages: %s" % kinds, q, text)
        if (q["choice"] == 2 and kinds[-1] != "call") or (ids[-1] == CALL) != (kinds[-1] == "call"):
            fail("not as asked: %s" % kinds, q, text)
        count[kinds[-1]] += 1
    if q["no_analysis"] and "analysis" in kinds:
        fail("analysis though there should be none", q, text)
    count["messages"] += len(kinds)


def check_recovered(enc, q, ids, parsed, count):
    """Every run of ordinary tokens that follows <|message|>, and every run that no header took, is in the
    text that was recovered, in order. Replacement characters (cut UTF-8) are left out of the comparison."""
    def plain(s):
        return re.sub("[\ufffd\\s]+", "", s)

    have = plain("".join(part.get("text", "") for m in parsed["messages"]
                         for part in (m["content"] if isinstance(m["content"], list) else [{"text": m["content"]}])))
    at, runs, header = 0, [], True
    for i in [-1] + [k for k, t in enumerate(ids) if t >= SPECIAL]:
        mark, j = ids[i] if i >= 0 else START, i + 1
        while j < len(ids) and ids[j] < SPECIAL:
            j += 1
        after = ids[j] if j < len(ids) else None
        header = mark in (START, CHANNEL) or (header and mark == CONSTRAIN)
        if mark == MESSAGE:
            runs.append((ids[i + 1:j], after))
    for run_ids, _ in runs:
        want = plain(enc.decode(run_ids)) if run_ids else ""
        where = have.find(want, at)
        if where < 0:
            fail("lost %r" % want, q, enc.decode(ids), json.dumps(parsed))
        at = where + len(want)
        count["runs"] += bool(want)
    if len(ids) > 3 and any(t < SPECIAL for t in ids) and not parsed["messages"]:
        fail("nothing recovered", q, enc.decode(ids))


def malformed(lib, enc, ids):
    p = lib.StreamableParser(enc, role=lib.Role.ASSISTANT)
    try:
        for t in ids:
            p.process(t)
    except Exception:  # noqa: BLE001
        return True
    return any(m.channel not in ("analysis", "commentary", "final") for m in p.messages)


def turns(lib, enc, driver, n, r):
    for grammar in (True, False):
        count = dict.fromkeys(["turns", "done", "final", "call", "messages", "runs", "malformed"], 0)
        # those with the same tools one after the other: their prompts have a beginning in common
        sets = [some_tools(r) for _ in range(min(50, n // 10))]
        requests = [turn_request(r, sets[i * len(sets) // n], grammar) for i in range(n)]
        for q, a in zip(requests, run(driver, requests)):
            if "error" in a:
                fail(a["error"], q)
            ids, done = o200k(a["ids"]), a["finish"] in (0, 1)
            count["turns"] += 1
            count["done"] += done
            if grammar:
                check_held(lib, enc, q, ids, done, count)
            check_recovered(enc, q, ids, a["parsed"], count)
            count["malformed"] += malformed(lib, enc, ids)
        print("grammar on:" if grammar else "grammar off:", count)
        if grammar and (count["malformed"] or count["done"] < n * 0.5 or min(count["final"], count["call"]) < n / 20):
            fail("too few turns came to an end", {}, count)
        if not grammar and not count["malformed"]:
            fail("without the grammar nothing was malformed: the comparison shows nothing", {}, count)


def schemas(driver, n, r):
    requests = []
    for _ in range(n):
        s = gen.root(r)
        requests.append(dict(request=request(r, []), tools=[], format=2, format_text=json.dumps(s), grammar=True,
                             no_analysis=True, temperature=r.choice([0, 0.7, 1.0]), seed=r.getrandbits(30), max=300))
    count = dict.fromkeys(["valid", "cut", "unsatisfiable"], 0)
    for q, a in zip(requests, run(driver, requests)):
        schema = json.loads(q["format_text"])
        if "error" in a:
            if "nothing satisfies" not in a["error"]:
                fail(a["error"], schema)
            count["unsatisfiable"] += 1
            continue
        final = [m for m in a["parsed"]["messages"] if m.get("channel") == "final"]
        if a["finish"] != 0:
            count["cut"] += 1
            continue
        c = final[-1]["content"]
        body = c if isinstance(c, str) else "".join(x["text"] for x in c)
        try:
            errors = [e.message for e in validator(schema).iter_errors(loads(body))]
        except ValueError as e:
            errors = ["not JSON: %s" % e]
        if errors:
            fail("answer not valid", schema, body, errors)
        count["valid"] += 1
    print("schemas:", count)
    if count["valid"] < n * 0.5:
        fail("too few answers were finished", {}, count)


def main():
    driver, assets, what, n = sys.argv[1:5]
    seed = int(sys.argv[5]) if len(sys.argv) > 5 else 15
    print("seed", seed)
    r = random.Random(seed)
    os.environ["TIKTOKEN_ENCODINGS_BASE"] = os.path.join(assets, "o200k")
    import openai_harmony as lib
    enc = lib.load_harmony_encoding("HarmonyGptOss")
    if what == "turns":
        turns(lib, enc, driver, int(n), r)
    else:
        schemas(driver, int(n), r)


if __name__ == "__main__":
    main()
