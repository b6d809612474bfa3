"""Judging an answer: splitting a generated turn and checking it."""
import re

import toolcalls
from tokenizer import CALL, CHANNEL, CONSTRAIN, END, MESSAGE, RETURN, START


def split_turn(tok, ids):
    """A generated turn -> {"analysis", "final", "call": (name, text) or None, "ok": bool}.
    ok says that the turn has exactly the form the format asks for."""
    out = {"analysis": None, "final": None, "call": None, "ok": False, "analysis_tokens": 0}
    i, first = 0, True
    while i < len(ids):
        if not first:
            if ids[i] != START:
                return out
            j = ids.index(CHANNEL, i) if CHANNEL in ids[i:] else -1
            if j < 0 or tok.decode(ids[i + 1:j]) != "assistant":
                return out
            i = j
        if ids[i] != CHANNEL or MESSAGE not in ids[i:]:
            return out
        m = ids.index(MESSAGE, i)
        head = [t for t in ids[i + 1:m]]
        k = next((n for n in range(m, len(ids)) if ids[n] in (END, RETURN, CALL)), None)
        if k is None:
            return out
        body = tok.decode(ids[m + 1:k])
        text = tok.decode([t for t in head if t != CONSTRAIN])
        if text == "analysis" and ids[k] == END:
            out["analysis"] = body
            out["analysis_tokens"] = k - m - 1
        elif text == "final" and ids[k] == RETURN:
            out["final"] = body
            out["ok"] = k == len(ids) - 1
            return out
        elif text.startswith("commentary to=functions.") and ids[k] == CALL:
            name = text[len("commentary to=functions."):].split(" ")[0]
            out["call"] = (name, body)
            out["ok"] = k == len(ids) - 1
            return out
        else:
            return out
        i, first = k + 1, False
    return out


def numbers(text):
    return [int(x) for x in re.findall(r"-?\d+", text.replace(",", ", "))]


def right(check, turn, tools=None):
    """Whether a split turn answers the prompt."""
    kind, want = check["type"], check.get("value")
    if kind == "call":
        if not turn["call"]:
            return False
        name, text = turn["call"]
        return (name == check["name"] and toolcalls.valid_call(text, tools, name)
                and toolcalls.same_args(text, check["arguments"]))
    final = turn["final"]
    if final is None:
        return False
    if kind == "number":
        n = numbers(final)
        return bool(n) and n[-1] == want and ("also" not in check or n[-2:-1] == [check["also"]])
    if kind == "first":
        n = numbers(final)
        return bool(n) and n[0] == want
    if kind == "list":
        return numbers(final) == want
    if kind == "yesno":
        return final.lower().startswith("yes" if want else "no")
    if kind == "word":
        return re.sub(r"[^a-z]", "", final.lower()) == want
    if kind == "letter":
        m = re.search(r"\b([ABCD])\b", final)
        return bool(m) and m.group(1) == want
    if kind == "contains":
        return want.lower() in final.lower()
    if kind == "all":
        return all(v in final for v in check["values"])
    raise ValueError(kind)


class Score:
    """Per-skill counts, tool validity and analysis lengths."""

    def __init__(self):
        self.skills, self.lengths = {}, {}
        self.calls = self.valid = self.well_formed = self.n = 0
        self.effort = {}

    def add(self, row, turn):
        ok = right(row["check"], turn, row.get("tools"))
        if row["check"]["type"] != "call" and turn["call"]:
            ok = False
        s = self.skills.setdefault(row["skill"], [0, 0])
        s[0] += ok
        s[1] += 1
        e = self.effort.setdefault(row["effort"], [0, 0, 0])
        e[0] += ok
        e[1] += 1
        e[2] += turn["analysis_tokens"]
        self.n += 1
        self.well_formed += turn["ok"]
        if turn["call"]:
            self.calls += 1
            self.valid += toolcalls.valid_call(turn["call"][1], row.get("tools") or [],
                                               turn["call"][0])
        return ok

    def summary(self):
        total = sum(a for a, _ in self.skills.values())
        return {
            "prompts": self.n, "right": total / max(1, self.n),
            "well_formed": self.well_formed / max(1, self.n),
            "skills": {k: [a, b] for k, (a, b) in self.skills.items()},
            "tool_calls": self.calls, "tool_calls_valid": self.valid / max(1, self.calls),
            "effort": {k: {"right": a / b, "analysis_tokens": c / b}
                       for k, (a, b, c) in self.effort.items()},
        }

    def table(self):
        s = self.summary()
        lines = ["%-20s %4d/%-4d %6.1f%%" % (k, a, b, 100 * a / b)
                 for k, (a, b) in s["skills"].items()]
        lines.append("all %.1f%%  well formed %.1f%%  calls %d valid %.1f%%" % (
            100 * s["right"], 100 * s["well_formed"], s["tool_calls"],
            100 * s["tool_calls_valid"]))
        lines += ["%-6s right %.1f%%  analysis %.1f tokens" % (
            k, 100 * v["right"], v["analysis_tokens"]) for k, v in s["effort"].items()]
        return "\n".join(lines)
