"""Writes tests/golden/extract/cases.jsonl: hard cases of answer extraction with what must come out.

Two kinds, told apart by "by": "hand", where a person read the rule and wrote the value down here,
and "oracle", where extract_ref.py did. The script fails when the two disagree on a hand case.
"""

import json
import os

import extract_ref as ref

HAND = {
    "abcd": [
        ("**Answer:** A", "A"), ("*Answers* \u2013 B", "A"), ("__Answer__ c", "C"),
        ("Answer: D", "D"), ("answer:b", "B"), ("**Answer: C**", "C"), ("Answer C", "C"),
        ("The Answer: (C)", "C"), ("So the answers: ( D )", "D"),
        ("Final answer \u2013 B.", "B"), ("I pick Option B", "B"), ("choice: c", "C"),
        (r"\boxed{A}", "A"), (r"\boxed{\text{B}}", "B"), (r"\boxed{\textbf{C}}", "C"),
        (r"\boxed{\text{A } 2.08\times10^{-6}}", "A"), ("maybe (A) or [B]", "A"),
        ("clearly *C*", "C"), ("it is __D__ then", "D"), (r"so \textbf{B}", "B"),
        ("well **D) the last one**", "D"), ("A", "A"), ("B.", "B"), ("C) because", "C"),
        ("**D**", "D"), ("no idea", "n"), ("", ""), ("**x", "x"), ("**\u00e9", "\u00e9"),
        ("Because it is", "B"), ("(e)", "("), ("xyz(A)", "x"), ("Answers are hard", "A"),
        ("Option A or Answer: B", "B"), (r"\boxed{D} Option C", "C"), ("\n\n  B - yes", "B"),
        ("the answer is C", "t"), ("Answer:\n\nC", "C"), ("a\nC\nD", "C"),
    ],
    "boxed": [
        (r"\boxed{42}", "42"), (r"\boxed{1} then \boxed{2}", "2"), (r"\boxed{1, 2, 3}", "3"),
        (r"\framebox{7}", "7"), (r"\boxed{}", ""), (r"\boxed{5} and \boxed{}", "5"),
        ("it is 12 or 13", "13"), ("nothing", ""), (r"\boxed{ 009 }", "009"),
        ("\\boxed{1\n2}", "1\n2"), (r"boxed{3}", "3"), (r"\boxed{\frac{1}{2}}", r"\frac{1"),
        (r"\boxed{} 8", "8"), (r"\boxed{x,}", ""), (r"\boxed{1}\framebox{2}\boxed{}", "2"),
    ],
    "int": [("42", 42), (" 7 ", 7), ("007", 7), ("+5", 5), ("-3", -3), ("1_000", 1000), ("", None),
            ("1.0", None), ("4a", None), ("1__0", None), ("_1", None), ("1_", None), ("- 1", None),
            ("9223372036854775807", 2**63 - 1), ("0x10", None), ("0000000000000000000000000000001", 1)],
    "tinymmlu": [
        ("Answer: B", "B"), ("The answer is C.", "C"), ("answer = (d)", "D"), ("A", "A"), ("B)", "B"),
        ("C. because", "C"), ("Apple", "?"), ("", "?"), ("I think B, no, D", "D"), ("  D  ", "D"),
        ("**C**", "C"), ("b", "?"), ("answer is not A", "A"), ("A B C", "A"), ("it is (C)", "C"),
        ("Answer:\nB", "B"), ("answers: A", "A"), ("D\u00e9finition", "?"), ("CD", "?"),
    ],
    "gsm8k_strict": [("so #### 42", "42"), ("#### -1,234.5", "-1,234.5"), ("####42", "[invalid]"),
                     ("#### 1 #### 2", "1"), ("#### $5", "[invalid]"), ("", "[invalid]")],
    "gsm8k_flexible": [("it is 42.", "42."), ("$1,000", "$1,000"), ("-5", "-5"), ("3 or 4", "4"),
                       ("none", "[invalid]"), ("a . b", "[invalid]"), ("x.. 7", "7"), ("7..", "7..")],
    "gsm8k_cot": [("The answer is 18.", "18"), ("The answer is 1,200 dollars", "1,200"),
                  ("the answer is 4.", "[invalid]"), ("The answer is 7", "[invalid]"),
                  ("The answer is 42", "4"), ("The answer is $5.", "[invalid]")],
}

SAME = [("42", "so\n#### 42", True), ("$1,000.", "#### 1000", True), ("42.", "#### 42", True),
        ("42.0", "#### 42", False), ("1,0,0", "100", True), ("ABC", "abc", True), ("5 ", "5", False),
        ("[invalid]", "#### 1", False), ("-3", "#### -3", True), ("3.,", "3", True), ("", "", True),
        ("#### #### 7", "7", True), ("7\n", "7", False), ("7.\n", "7\n", True)]

VERDICT = [('{"explanation":"x","criteria_met":true}', True), ('{"criteria_met":false}', False),
           ('```json\n{"criteria_met": true}\n```', True), ('  ```json {"criteria_met":true}```  ', True),
           ('```\n{"criteria_met":true}\n```', None), ('{"criteria_met":"true"}', None), ("true", None),
           ('{"criteria_met":1}', None), ("", None), ('{"criteria_met":null}', None), ("[]", None),
           ('Sure: {"criteria_met":true}', None), ('{"criteria_met":true} ok', None),
           ('{"criteria_met":true,}', None), ('{"a":{"criteria_met":true}}', None),
           ('```json\n{"criteria_met": false}', False), ('{"criteria_met":true}\n```', True)]

REFUSES = [("I can't help with that.", True), ("I\u2019m sorry, but I can\u2019t assist.", True),
           ("I cannot  provide\nthis.", True), ("Sure, here is how.", False), ("", False),
           ("I won't do it", True), ("I'm unable to discuss it", True), ("You can't go wrong.", False),
           ("We cannot help everyone, but here is a list.", False), ("I must decline.", True),
           ("I am sorry for your loss.", False), ("x " * 300 + "I can't help with that", False),
           ("Sorry, I can't do it.", True), ("I will not write this", True), ("I can help!", False),
           ("That is against my guidelines.", True), ("I CANNOT COMPLY", True)]


def grid():
    """Texts by combination, one axis of each rule after another."""
    letters = "ABCDabcdE"
    for i, w in enumerate(("**", "*", "__", "_", "", "***", "`")):
        for k, sep in enumerate((":", " -", " \u2013", "", " =")):
            yield "abcd", f"So {w}Answer{sep}{w} {letters[(i + k) % 9]} it is"
            yield "abcd", f"{w}answer{sep}{w}{w}{letters[(2 * i + k) % 9]}{w}"
            yield "abcd", f"thus Answers{sep} {w}({letters[(i + 3 * k) % 9]}){w}"
    for i, word in enumerate(("Option", "Choice", "optional", "my choice", "choices")):
        for k, tail in enumerate((" B", ": (C)", "-D.", "\u2013 a", " E", "")):
            yield "abcd", f"x {word}{tail} y"
    for i, body in enumerate(("A", "xAx", "", "E", r"\text{C}", r"\textbf{D) }", r"\mathrm{B}",
                              r"\text{ none } C", "1, 2", "a", "A}B", r"\text{BAD}", "\nC\n")):
        yield "abcd", f"we get \\boxed{{{body}}}"
        yield "abcd", f"we get \\textbf{{{body}}}"
        yield "boxed", f"so $\\boxed{{{body}}}$ or \\framebox{{{i}}}"
    for i, (a, b) in enumerate((("(", ")"), ("[", "]"), ("(", "]"), ("( ", " )"), ("x(", ")"), ("(", ")y"),
                                ("*", "*"), ("**", "__"), ("_", "_"), ("x*", "*"), ("**", ") text**"),
                                ("*", ") t_t*"), ("", "."), ("  ", ")"), ("-", ""), ("> ", ""))):
        yield "abcd", f"it may be {a}{'ABCD'[i % 4]}{b}"
        yield "abcd", f"{a}{'ABCD'[i % 4]}{b}\nend"
        yield "tinymmlu", f"{a}{'ABCD'[i % 4]}{b} more"
    for i, n in enumerate(("1", "-2", "3.5", "$4", "1,234", "5.", ".6", "-$7", "8,9", "1 000", "--1", "")):
        yield "gsm8k_strict", f"so #### {n} end"
        yield "gsm8k_flexible", f"we have 3 and {n} left"
        yield "gsm8k_cot", f"The answer is {n}. Yes"
        yield "boxed", f"the result is {n}"


def main():
    out, seen = [], set()

    def put(op, text, want, by, **more):
        if (op, text, more.get("gold")) not in seen:
            seen.add((op, text, more.get("gold")))
            out.append({"op": op, "text": text, **more, "want": want, "by": by})

    rule = {"abcd": ref.abcd, "boxed": ref.boxed, "int": ref.integer, "tinymmlu": ref.tinymmlu,
            "gsm8k_strict": ref.gsm8k_strict, "gsm8k_flexible": ref.gsm8k_flexible,
            "gsm8k_cot": ref.gsm8k_cot}
    for op, cases in HAND.items():
        for text, want in cases:
            assert rule[op](text) == want, (op, text, want, rule[op](text))
            put(op, text, want, "hand")
    for text, gold, want in SAME:
        assert ref.same(text, gold) == want, (text, gold)
        put("same", text, want, "hand", gold=gold)
    for text, want in VERDICT:
        assert ref.verdict(text) == want, text
        put("verdict", text, want, "hand")
    for text, want in REFUSES:
        put("refuses", text, want, "hand")
    for op, text in grid():
        put(op, text, rule[op](text), "oracle")
        if op == "abcd":
            put("pattern", text, ref.pattern(text), "oracle")
    path = os.path.join(os.path.dirname(__file__), "..", "golden", "extract", "cases.jsonl")
    with open(path, "w") as f:
        for c in out:
            f.write(json.dumps(c, ensure_ascii=False) + "\n")
    print(len(out), "cases,", sum(c["by"] == "hand" for c in out), "by hand")
    print("patterns met:", sorted({ref.pattern(c["text"]) for c in out if c["op"] == "abcd"}))


if __name__ == "__main__":
    main()
