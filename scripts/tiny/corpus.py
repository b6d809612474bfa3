"""The training corpus: conversations made on the fly, rendered, tokenised and packed.

    python corpus.py --show 20            print conversations
    python corpus.py --speed              tokens per second of one process
    python corpus.py --heldout N --out F  write the held-out set
    python corpus.py --lengths            mean analysis tokens per skill and effort
    python corpus.py --check-harmony N    compare the rendering with the openai-harmony package

An instance is held out when the hash of its key says so; it then never occurs in training,
neither as a question nor in the history of a conversation.
"""
import argparse
import json
import random
import re
import time
import zlib

import numpy as np

import chat
import skills
import toolcalls
from render import from_openai, generated_pieces, prompt_pieces, to_ids, to_text
from tokenizer import Tokenizer, find_o200k, read_ranks

HELD_PERCENT = 6
IGNORE = 65535

SKILLS = {  # weight in training
    "addition": (skills.addition, 9),
    "subtraction": (skills.subtraction, 11),
    "multiplication": (skills.multiplication, 10),
    "multiplication 2x2": (skills.multiplication_long, 7),
    "division": (skills.division, 7),
    "expressions": (skills.expressions, 9),
    "sequences": (skills.sequences, 4),
    "comparing": (skills.comparing, 7),
    "sorting": (skills.sorting, 10),
    "reversing": (skills.reversing, 11),
    "counting letters": (skills.counting, 11),
    "capitals": (skills.capitals, 5),
    "spelling": (skills.spelling, 3),
    "calendar": (skills.calendar, 2),
    "units": (skills.units, 9),
    "multiple choice": (skills.multiple_choice, 12),
    "guessing": (skills.guess_choice, 2),
    "greetings": (chat.smalltalk, 4),
    "out of scope": (chat.out_of_scope, 4),
}
TOOL_SKILLS = {"tool call": 13, "tool result": 6, "tool not needed": 7, "structured": 3}

INSTRUCTIONS = """You are a helpful assistant.;Answer briefly.;Be brief.;Be concise.;Be polite.;
Answer the user's questions.;You help with sums and words.;Always be friendly.;Answer in English.;
Think before you answer.;Keep it short.;Be precise.;You are a careful assistant.;Use plain text.;
Use the tools when they help.;Do not use Markdown.;You are a calculator.;Help the user.;
Answer with one sentence.;Follow the user's wishes.;You are a friendly teacher.;
You are a helpful assistant. Answer briefly.;Be helpful, honest and short.;
You are a test system.;Talk with the user.;Use plain text without Markdown.""".replace("\n",
        "").split(";")


def held_out(skill, key):
    name = key if skill == "multiple choice" or key.startswith("word:") else skill + ":" + key
    if skill == "multiple choice":
        name = name.split(":", 1)[1] if ":word:" in name else name
    return zlib.crc32(name.encode()) % 100 < HELD_PERCENT


def draw(rng, fn, test=False):
    """A problem on the wanted side of the split."""
    while True:
        p = fn(rng)
        if held_out(p.skill, p.key) == test:
            return p


def draw_case(rng, test=False):
    while True:
        c = rng.choice(toolcalls.POOL)(rng).extra(rng)
        if held_out("tool", c.family + ":" + str(c.key)) == test:
            return c


NAMES = list(SKILLS)
WEIGHTS = [SKILLS[n][1] for n in NAMES]
ALL_NAMES = NAMES + list(TOOL_SKILLS)
ALL_WEIGHTS = WEIGHTS + list(TOOL_SKILLS.values())
NO_NEED = [n for n in NAMES if n != "out of scope"]


def set_weights(changes):
    """Changes of the mixture, e.g. {"sorting": 20}."""
    for n, w in changes.items():
        ALL_WEIGHTS[ALL_NAMES.index(n)] = w


def call_message(rng, case, reasoning=None):
    cid = "call_%d" % rng.randrange(1, 10 ** 6)
    m = {"role": "assistant", "tool_calls": [{"id": cid, "type": "function", "function": {
        "name": case.name, "arguments": toolcalls.args_json(None, case.args)}}]}
    if reasoning:
        m["reasoning"] = reasoning
    return m, cid


def tool_turn(rng, case):
    """A closed turn with a call, its result and the answer."""
    m, cid = call_message(rng, case)
    res, final, _ = case.results(rng)
    return [{"role": "user", "content": case.question}, m,
            {"role": "tool", "tool_call_id": cid, "content": res},
            {"role": "assistant", "content": final}]


STRUCTURED = ["addition", "subtraction", "multiplication", "division", "counting letters",
              "reversing", "capitals", "units", "multiple choice"]


def structured(rng, p):
    """A response format for a problem, as text of the developer message, and the answer."""
    v = p.answer if p.answer is not None else p.final
    whole = p.check["type"] in ("number", "first") and "also" not in p.check
    key = rng.choice(["answer", "answer", "answer", "result", "value", "solution", "output",
                      "reply"])
    val = int(v) if whole else v
    out = {key: val}
    props = {key: {"type": rng.choice(["integer", "number"]) if whole else "string"}}
    if rng.random() < 0.15:
        k2 = rng.choice(["ok", "known", "sure"])
        props[k2], out[k2] = {"type": "boolean"}, True
    schema = {"type": "object", "properties": props, "required": list(props)}
    if rng.random() < 0.4:
        schema["additionalProperties"] = False
    name = rng.choice(["answer", "response", "result", "schema", "output", "reply",
                       "answer_format"])
    text = json.dumps(schema) if rng.random() < 0.4 else json.dumps(schema, separators=(",", ":"))
    desc = rng.choice(["", "", "// The answer\n", "// Answer as JSON\n"])
    return (f"# Response Formats\n\n## {name}\n\n{desc}{text}",
            json.dumps(out, separators=(",", ":")))


def conversation(rng, skill=None, effort=None, test=False):
    """One conversation: request fields, the target messages and how to check the answer."""
    skill = skill or rng.choices(ALL_NAMES, ALL_WEIGHTS)[0]
    effort = effort or rng.choice(("low", "medium", "high"))
    conv = {"skill": skill, "effort": effort, "date": None, "messages": [], "tools": None,
            "cutoff": "2024-06", "target": [], "targets_before": []}
    if rng.random() < 0.85:
        conv["date"] = "%d-%02d-%02d" % (rng.randrange(2023, 2031), rng.randrange(1, 13),
                                         rng.randrange(1, 29))
    if rng.random() < 0.03:
        conv["cutoff"] = rng.choice([None, "2023-10", "2024-12", "2025-01"])
    msgs = conv["messages"]
    if rng.random() < 0.2:
        msgs.append({"role": "developer", "content": " ".join(
            rng.choice(INSTRUCTIONS) for _ in range(rng.choice((1, 1, 1, 2, 4))))})
    case, cases = None, []
    if skill in ("tool call", "tool result"):
        case = draw_case(rng, test)
        cases = [case] + toolcalls.others(rng, case, rng.choice((0, 0, 0, 1, 1, 2)))
    elif skill == "tool not needed":
        cases = toolcalls.others(rng, None, rng.choice((1, 1, 1, 2, 2)))
        cases = [c for c in cases if c.family not in ("calculator", "define", "search")] or \
            [toolcalls.f_weather(rng)]
    if cases:
        rng.shuffle(cases)
        conv["tools"] = [c.decl() for c in cases]
    # earlier turns, already closed
    r = rng.random()
    turns = 0 if r < 0.74 else 1 if r < 0.88 else 2 if r < 0.95 else 3 if r < 0.97 else \
        rng.randrange(4, 22)
    if test:
        turns = min(turns, 3)
    for _ in range(turns):
        usable = [c for c in cases if c.props and not held_out("tool", c.family + ":" + str(c.key))
                  and c is not case]
        if usable and rng.random() < 0.4:
            msgs += tool_turn(rng, rng.choice(usable))
            continue
        if case and rng.random() < 0.25:
            # an earlier use of the same tool with other arguments
            for _ in range(40):
                other = next(f for f, _ in toolcalls.FAMILIES
                             if f.__name__ == "f_" + case.family)(rng)
                if other.name == case.name and list(other.args) == list(case.args) and \
                        not held_out("tool", other.family + ":" + str(other.key)):
                    msgs += tool_turn(rng, other)
                    break
            continue
        n = rng.choices(NAMES, WEIGHTS)[0]
        if cases and n == "out of scope":
            continue
        if any(c.family == "calculator" for c in cases) and n in (
                "addition", "subtraction", "multiplication", "multiplication 2x2", "division",
                "expressions", "sequences", "units", "multiple choice"):
            continue
        p = draw(rng, SKILLS[n][0])
        msgs += [{"role": "user", "content": p.question}, {"role": "assistant", "content": p.final}]
    # the open turn
    if case is None:
        if skill == "tool not needed":
            fams = {c.family for c in cases}
            n = rng.choice(NO_NEED)
            if n in ("calendar", "greetings") and "noargs" in fams:
                n = "addition"
            if n == "greetings" and rng.random() < 0.5 and fams <= {"timer", "light", "music",
                    "lookup"}:
                n = "out of scope"
        elif skill == "structured":
            n = rng.choice(STRUCTURED)
        else:
            n = skill
        p = draw(rng, SKILLS[n][0], test)
        if skill == "calendar" and not test and rng.random() < 0.25:
            p = skills.today(rng, conv["date"])
        msgs.append({"role": "user", "content": p.question})
        conv["target"] = [{"role": "assistant", "channel": "analysis", "content": p.work(effort)},
                          {"role": "assistant", "channel": "final", "content": p.final}]
        conv["check"] = p.check
        if skill == "structured":
            conv["schema"], conv["target"][1]["content"] = structured(rng, p)
        return conv
    msgs.append({"role": "user", "content": case.question})
    call = [{"role": "assistant", "channel": "analysis",
             "content": toolcalls.call_work(case, effort)},
            {"role": "assistant", "channel": "commentary", "recipient": "functions." + case.name,
             "content": toolcalls.args_json(None, case.args)}]
    if skill == "tool call":
        conv["target"] = call
        conv["check"] = {"type": "call", "name": case.name, "arguments": case.args}
        return conv
    res, final, values = toolcalls.error_result(rng, case) if rng.random() < 0.06 else \
        case.results(rng)
    m, cid = call_message(rng, case, call[0]["content"] if rng.random() < 0.6 else None)
    msgs += [m, {"role": "tool", "tool_call_id": cid, "content": res}]
    conv["target"] = [{"role": "assistant", "channel": "analysis",
                       "content": toolcalls.result_work(case, values, effort)},
                      {"role": "assistant", "channel": "final", "content": final}]
    conv["check"] = {"type": "all", "values": values}
    # as generated in one go, both generations can be learnt from one sequence
    conv["targets_before"] = call if "reasoning" in m else []
    return conv


def render(conv, rng):
    """[(pieces, learn)]: the prompt and the generated parts of a conversation."""
    form = rng.choice(("json", "<|constrain|>json", "late"))
    both = bool(conv["targets_before"]) and form == "late"
    harm = from_openai(conv["messages"], conv["tools"], conv["effort"], conv["date"], form,
                       conv["cutoff"])
    if conv.get("schema"):
        if harm[1]["role"] == "developer":
            harm[1]["content"] += "\n\n" + conv["schema"]
        else:
            harm.insert(1, {"role": "developer", "content": conv["schema"]})
    target = conv["target"]
    gen = []
    for i, m in enumerate(target):
        gen += generated_pieces(m, i == 0, i == len(target) - 1)
    if not both:
        return [(prompt_pieces(harm), False), (gen, True)]
    cut = len(harm) - 3  # analysis, call, result
    gen1 = []
    for i, m in enumerate(conv["targets_before"]):
        gen1 += generated_pieces(m, i == 0, False)
    rest = prompt_pieces(harm[cut + 2:])
    return [(prompt_pieces(harm[:cut]), False), (gen1, True), (rest, False), (gen, True)]


def encode(tok, parts):
    """Inputs and targets of a conversation; targets that are not learnt are IGNORE."""
    ids, learn = [], []
    for ps, flag in parts:
        x = to_ids(tok, ps)
        ids += x
        learn += [flag] * len(x)
    tgt = [t if f else IGNORE for t, f in zip(ids[1:], learn[1:])]
    return ids[:-1], tgt


def load_words(o200k):
    """English-like words out of the large vocabulary, common ones first."""
    words = []
    for t in read_ranks(o200k, 60000):
        if re.fullmatch(rb" [a-z]{3,11}", t):
            words.append(t[1:].decode())
    skills.set_words(words)
    return words


class Packer:
    """Fills rows of fixed length with whole conversations."""

    def __init__(self, tok, seed, length):
        self.tok, self.rng, self.length = tok, random.Random(seed), length
        self.open = []

    def rows(self, n):
        """n rows: tokens, targets (uint16) and document numbers (uint8), [n, length] each."""
        x = np.zeros((n, self.length), np.uint16)
        y = np.full((n, self.length), IGNORE, np.uint16)
        d = np.zeros((n, self.length), np.uint8)
        docs = []
        total = 0
        while total < n * self.length * 1.02:
            ids, tgt = encode(self.tok, render(conversation(self.rng), self.rng))
            if len(ids) <= self.length:
                docs.append((ids, tgt))
                total += len(ids)
        docs.sort(key=lambda p: -len(p[0]))
        fill = [0] * n
        count = [0] * n
        for ids, tgt in docs:
            k = len(ids)
            # best fit among the rows
            best, room = -1, self.length + 1
            for i in range(n):
                r = self.length - fill[i]
                if k <= r < room:
                    best, room = i, r
            if best < 0:
                continue
            i, f = best, fill[best]
            count[i] += 1
            x[i, f:f + k], y[i, f:f + k], d[i, f:f + k] = ids, tgt, count[i]
            fill[i] += k
        return x, y, d


def held_out_set(n_each, seed=20261121):
    """Held-out prompts, about n_each a skill (tool skills more), efforts in turn."""
    rng = random.Random(seed)
    out = []
    for name in ALL_NAMES:
        if name in ("structured", "guessing"):
            continue
        n = n_each if name not in ("greetings", "out of scope", "capitals", "calendar", "spelling",
                                   "sequences") else \
            n_each * 2 // 3
        seen, tries = set(), 0
        while len(seen) < n and tries < 60 * n:
            tries += 1
            effort = ("low", "medium", "high")[len(seen) % 3]
            c = conversation(rng, name, effort, test=True)
            k = json.dumps(c["messages"][-1]["content"]) + json.dumps(c["check"])
            if k in seen or len(json.dumps(c)) > 2600:
                continue
            seen.add(k)
            row = {"skill": name, "effort": effort, "messages": c["messages"]}
            if c["tools"]:
                row["tools"] = c["tools"]
            row["check"] = c["check"]
            out.append(row)
    return out


def check_harmony(n, o200k, tok):
    """Compares rendering and (with the full vocabulary) token ids with openai-harmony."""
    import openai_harmony as oh
    full = Tokenizer(o200k, full=True)
    enc = oh.load_harmony_encoding("HarmonyGptOss")
    rng = random.Random(5)
    bad = 0
    for _ in range(n):
        conv = conversation(rng)
        form = rng.choice(("json", "<|constrain|>json"))
        msgs = from_openai(conv["messages"], conv["tools"], conv["effort"], conv["date"], form,
                           "2024-06")
        ms = []
        for m in msgs:
            if m["role"] == "system":
                c = oh.SystemContent.new().with_reasoning_effort(
                    getattr(oh.ReasoningEffort, conv["effort"].upper()))
                if conv["date"]:
                    c = c.with_conversation_start_date(conv["date"])
                ms.append(oh.Message.from_role_and_content(oh.Role.SYSTEM, c))
            elif m["role"] == "developer":
                c = oh.DeveloperContent.new()
                inst = [x["content"] for x in conv["messages"] if x["role"] == "developer"]
                if inst:
                    c = c.with_instructions(inst[0])
                if conv["tools"]:
                    c = c.with_function_tools([oh.ToolDescription.new(
                        t["function"]["name"], t["function"]["description"],
                        t["function"].get("parameters")) for t in conv["tools"]])
                ms.append(oh.Message.from_role_and_content(oh.Role.DEVELOPER, c))
            elif m["role"] == "tool":
                ms.append(oh.Message.from_author_and_content(
                    oh.Author.new(oh.Role.TOOL, m["name"]), m["content"])
                    .with_recipient("assistant").with_channel("commentary"))
            else:
                x = oh.Message.from_role_and_content(
                    oh.Role.ASSISTANT if m["role"] == "assistant" else oh.Role.USER, m["content"])
                if m.get("channel"):
                    x = x.with_channel(m["channel"])
                if m.get("recipient"):
                    x = x.with_recipient(m["recipient"]).with_content_type(m["ctype"])
                ms.append(x)
        want = enc.render_conversation_for_completion(oh.Conversation.from_messages(ms),
                                                      oh.Role.ASSISTANT)
        ps = prompt_pieces(msgs)
        # special ids of the full vocabulary
        got = []
        for p in ps:
            got += [p - 1521 + 199998] if isinstance(p, int) else full.text(p)
        if got != want:
            bad += 1
            if bad < 3:
                print("MISMATCH\n" + to_text(ps) + "\n---\n" + enc.decode_utf8(want))
        # and what the model emits must parse
        gen = []
        for i, m in enumerate(conv["target"]):
            gen += generated_pieces(m, i == 0, i == len(conv["target"]) - 1)
        ids = []
        for p in gen:
            ids += [p - 1521 + 199998] if isinstance(p, int) else full.text(p)
        back = enc.parse_messages_from_completion_tokens(ids, oh.Role.ASSISTANT)
        for b, m in zip(back, conv["target"]):
            if b.content[0].text != m["content"] or b.channel != m["channel"] or \
                    b.recipient != m.get("recipient"):
                bad += 1
                print("PARSE", b, m)
    print(f"harmony: {bad} mismatches in {n}")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--o200k")
    ap.add_argument("--show", type=int, default=0)
    ap.add_argument("--skill")
    ap.add_argument("--speed", action="store_true")
    ap.add_argument("--lengths", action="store_true")
    ap.add_argument("--heldout", type=int, default=0)
    ap.add_argument("--out")
    ap.add_argument("--check-harmony", type=int, default=0)
    ap.add_argument("--seed", type=int, default=1)
    a = ap.parse_args()
    o200k = find_o200k(a.o200k)
    tok = Tokenizer(o200k)
    load_words(o200k)
    rng = random.Random(a.seed)
    for _ in range(a.show):
        parts = render(conversation(rng, a.skill), rng)
        print("".join((">>>" if f else "") + to_text(p) for p, f in parts))
        print("-----", sum(len(to_ids(tok, p)) for p, f in parts))
    if a.speed:
        packer = Packer(tok, 1, 1024)
        t = time.time()
        n = learn = used = 0
        for _ in range(10):
            x, y, d = packer.rows(64)
            n += x.size
            learn += int((y != IGNORE).sum())
            used += int((d > 0).sum())
        t = time.time() - t
        print(f"{n / t:.0f} tokens/s; filled {used / n:.3f}; learnt {learn / n:.3f}")
    if a.lengths:
        for name in ALL_NAMES:
            row = []
            for e in ("low", "medium", "high"):
                k = [sum(len(tok.text(m["content"]))
                         for m in conversation(rng, name, e)["target"][:1])
                     for _ in range(200)]
                row.append("%6.1f (max %d)" % (sum(k) / len(k), max(k)))
            print("%-20s" % name, *row)
    if a.heldout:
        rows = held_out_set(a.heldout)
        with open(a.out, "w") as f:
            for r in rows:
                f.write(json.dumps(r, separators=(",", ":")) + "\n")
        print(len(rows), "prompts")
    if a.check_harmony:
        check_harmony(a.check_harmony, o200k, tok)


if __name__ == "__main__":
    main()
