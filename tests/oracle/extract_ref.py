"""What the extraction rules mean, in Python: an implementation of its own, with Python's re.

The rules are those of docs/evaluation.md. Nothing here is shared with src/eval.
"""

import json
import re

MARK = r"(?:\*{1,2}|_{1,2})"
DASH = r"\s*[:\-\u2013]?\s*"
LETTER = "([ABCD])"
NOT_BEFORE, NOT_AFTER = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])"

ABCD = [re.compile(p, f) for p, f in (
    (MARK + r"Answers?\s*[:\-\u2013]?" + MARK + r"\s*" + LETTER + r"\b", re.I),
    (r"^\s*" + MARK + "?Answer:?" + MARK + r"?\s*:?\s*" + MARK + "?" + LETTER + MARK + r"?\s*",
     re.I | re.M),
    (r"\bAnswers?\b" + DASH + r"\(\s*" + LETTER + r"\s*\)", re.I),
    (r"\bAnswers?\b" + DASH + LETTER + r"\b", re.I),
    (r"\b(?:Option|Choice)\b" + DASH + LETTER + r"\b", re.I),
    (r"\\boxed\{[^}]*?" + LETTER + r"[^}]*\}", re.M),
    (r"\\boxed\{[^}]*?\\textbf\{[^}]*?" + LETTER + r"[^}]*\}[^}]*\}", re.M),
    (r"\\boxed\{[^}]*?\\text\{[^}]*?" + LETTER + r"[^}]*\}[^}]*\}", re.M),
    (NOT_BEFORE + r"[\(\[]\s*" + LETTER + r"\s*[\)\]]" + NOT_AFTER, 0),
    (NOT_BEFORE + MARK + LETTER + MARK + NOT_AFTER, 0),
    (r"\\textbf\{[^}]*?" + LETTER + r"[^}]*\}", 0),
    (NOT_BEFORE + MARK + r"\s*" + LETTER + r"\)[^*_\n]+?" + MARK + NOT_AFTER, 0),
    (r"^\s*" + MARK + "?" + LETTER + MARK + r"?\s*[\.\)\-\u2013:]?\s*.*$", re.M))]


def pattern(text):
    return next((i for i, p in enumerate(ABCD) if p.search(text)), -1)


def abcd(text):
    i = pattern(text)
    if i >= 0:
        return ABCD[i].search(text).group(1).upper()
    return text.removeprefix("**")[:1]


def boxed(text):
    for pair in reversed(re.findall(r"boxed{(.*?)}|framebox{(.*?)}", text, re.S)):
        for group in pair:
            if group:
                return group.split(",")[-1].strip()
    digits = re.findall(r"\d+", text)
    return digits[-1] if digits else ""


def integer(text):
    try:
        v = int(text)
    except ValueError:
        return None
    return v if -2**63 <= v < 2**63 else None


def tinymmlu(text):
    text = text.strip(" \t\n\v\f\r")
    m = re.search(r"\banswer\s*(?:is)?\s*[:=]?\s*\(?([A-D])\b", text, re.I)
    if m:
        return m.group(1).upper()
    if re.match(r"[A-D](?![A-Za-z\u0080-\U0010ffff])", text):
        return text[0]
    lone = re.findall(r"\b([A-D])\b", text)
    return lone[-1] if lone else "?"


def _first(p, text):
    m = re.search(p, text)
    return m.group(1).strip() if m else "[invalid]"


def gsm8k_strict(text):
    return _first(r"#### (\-?[0-9\.\,]+)", text)


def gsm8k_cot(text):
    return _first(r"The answer is (\-?[0-9\.\,]+).", text)


def gsm8k_flexible(text):
    found = re.findall(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", text)
    return next(g for g in found[-1] if g).strip() if found else "[invalid]"


def same(text, gold):
    def plain(s):
        for p in (",", r"\$", r"(?s).*#### ", r"\.$"):
            s = re.sub(p, "", s)
        return s.lower()
    return plain(text) == plain(gold)


def verdict(text):
    text = re.sub(r"^```json\s*|\s*```$", "", text.strip())
    try:
        v = json.loads(text)
    except ValueError:
        return None
    met = v.get("criteria_met") if isinstance(v, dict) else None
    return met if isinstance(met, bool) else None
