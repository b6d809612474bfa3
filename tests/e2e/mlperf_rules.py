"""Answers in texts: gloss mlperf accuracy on a log made here, against a table of hard cases and
against the benchmark's rules written as regular expressions, on thousands of random texts."""
import base64
import json
import os
import random
import re
import subprocess
import sys
import tempfile

GLOSS = os.environ["GLOSS"]
RANKS = {}
for line in open("assets/o200k/o200k_base.tiktoken", "rb"):
    token, rank = line.split()
    RANKS[base64.b64decode(token)] = int(rank)
CONTROL = {"<|return|>": 200002, "<|channel|>": 200005, "<|start|>": 200006, "<|end|>": 200007,
           "<|message|>": 200008}


def ids_of(text):
    """Control tokens, and everything else byte by byte."""
    out = []
    for piece in re.split(r"(<\|[a-z]+\|>)", text):
        out += [CONTROL[piece]] if piece in CONTROL else [RANKS[bytes([b])] for b in piece.encode()]
    return out


def entry(i, ids):
    data = b"".join(t.to_bytes(4, "little") for t in ids).hex().upper()
    return {"seq_id": i, "qsl_idx": i, "data": data, "token_count": len(ids)}


def results(cases):
    """[(dataset, truth, text)] -> detailed results and summary, in order."""
    with tempfile.TemporaryDirectory() as d:
        with open(d + "/ref.jsonl", "w") as f:
            for dataset, truth, _ in cases:
                f.write(json.dumps({"dataset": dataset, "ground_truth": truth}) + "\n")
        with open(d + "/log.json", "w") as f:
            json.dump([entry(i, ids_of(c[2])) for i, c in enumerate(cases)], f)
        # The grader says yes to programs that say so.
        with open(d + "/grade.py", "w") as f:
            f.write("import json, sys\nfor l in sys.stdin:\n    p = json.loads(l)\n"
                    "    print(json.dumps({'passed': 'good' in p['code'],"
                    " 'details': p['question_id']}))\n")
        p = subprocess.run([GLOSS, "mlperf", "accuracy", "--mlperf-log", d + "/log.json",
                            "--reference-data", d + "/ref.jsonl", "--output-file", d + "/out.json",
                            "--lcb-grader", f"{sys.executable} {d}/grade.py",
                            "--save-outputs", d + "/texts.jsonl"], capture_output=True, text=True)
        assert p.returncode == 0, p.stderr
        out = json.load(open(d + "/out.json"))
        texts = [json.loads(x) for x in open(d + "/texts.jsonl").read().strip().split("\n")]
        for r, t, c in zip(out["detailed_results"], texts, cases):
            assert t["model_output"] == c[2] and t["output_token_ids"] == ids_of(c[2]), c
            r["full"] = t["extracted_answer"]
        return out, p.stdout


# ---- the rules as regular expressions ----

def final_of(text):
    m = re.search(r"<\|channel\|>final[^<]*<\|message\|>(.*?)(?:<\|return\|>|$)", text, re.S)
    return m.group(1).strip() if m else text


def choice(text, last):
    text = text.strip()
    if not text:
        return None
    f = re.sub(r"\*\*([^*]+)\*\*", r"\1", final_of(text))
    if f.startswith(("['", '["')) and f.endswith(("']", '"]')):
        f = f[2:-2].strip()

    def real(s):
        return s.replace("\\n", "\n").replace("\\'", "'")
    f = real(f)
    m = re.match(rf"^[^a-zA-Z]*([A-{last}])(?:[^a-zA-Z]|$)", f.strip(), re.I | re.A)
    m = m or re.search(rf"\banswer\s*[:.]?\s*([A-{last}])\b", f, re.I)
    if m:
        return m.group(1).upper()
    all_ = re.findall(rf"\b(?:ANSWER|FINAL\s*ANSWER)\b\s*[:=]?\s*(?:\(?\s*([A-{last}])\s*\)?)"
                      rf"(?:\s*$|[^A-Za-z])", real(text), re.I)
    if not all_ and last == "J":
        all_ = re.findall(rf"\b([A-{last}])\b", f, re.I)
    return all_[-1].upper() if all_ else None


def integer(text):
    found = re.findall(r"\\boxed{\s*([0-9]+)\s*}", text.strip())
    found = found or re.findall(r"Answer:\s*([0-9]+)(?!\.)\b", text.strip(), re.I)
    return found[-1] and str(int(found[-1])) if found and int(found[-1]) <= 999 else None


def code(text):
    text = text.strip()

    def inside(s):
        found = re.findall(r"```python(.*?)```", s, re.S)
        if found:
            return found[-1].strip()
        found = re.findall(r"```(.*?)```", s, re.S)
        return re.sub(r"^(?:python|py)\s*\n", "", found[-1].strip(), flags=re.I) if found else None
    f = final_of(text)
    c = inside(f) if f != text else None
    return inside(text) if c is None else c


ORACLE = {"gpqa_diamond": lambda t: choice(t, "D"), "mmlu_pro": lambda t: choice(t, "J"),
          "aime25": integer, "livecodebench_v6": code}

# ---- hard cases by hand ----

H = "<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>{}<|return|>"
CHOICE = [
    ("A", "A"), ("b", "B"), ("(C)", "C"), ("D.", "D"), ("**B**", "B"), ("**Answer: C**", "C"),
    ("Answer: D", "D"), ("answer: d", "D"), ("ANSWER:A", "A"), ("Answer A", "A"), ("Answer. B", "B"),
    ("The answer is clear.\nAnswer: C", "C"), ("Answer: (B)", "B"), ("Answer = C", "C"),
    ("Final answer: B", "B"), ("FINAL   ANSWER = (D)", "D"), ("FinalAnswer: A", "A"),
    ("I think so.", None), ("", None), ("   \n ", None), ("E", None), ("Answer: E", None),
    ("A good question", "A"), ("Because", None), ("1. A", "A"), ("[A]", "A"), ("A)", "A"), ("A-B", "A"),
    ("AB", None), ("Answer: AB", None), ("Answer: A1", "A"), ("x = 3, Answer: B", "B"),
    ("Answers: A", None), ("preanswer: A", None), ("answer\nC", "C"), ("answer :\n\n C", "C"),
    ("['B']", "B"), ('["Answer: C"]', "C"), ("['']", None), ("[']", None), ("Answer: A\\nmore", "A"),
    ("It\\'s B. Answer: B", "B"), ("Answer: A or B", "A"), ("The answer: A. No, answer: C", "A"),
    ("é A", "A"), ("éA", "A"), ("Answer: Aé", "A"), ("Answer: B。", "B"), ("Answer: C—surely", "C"),
    ("Answer：B", None), ("答案 B", "B"), ("*A*", "A"), ("***D***", "D"), ("** A **", "A"), ("****A", "A"),
    ("Answer: **C**", "C"), ("Ans: A", None), ("option C", None), ("C option", "C"), ("$A$", "A"),
    ("\\boxed{A}", None), ("Answer: \\boxed{A}", None), ("Answer\u00a0: A", "A"), ("\u2003B", "B"),
    ("a", "A"), ("A cat. Answer: B", "A"), ("So: Answer:B.", "B"), ("The final answer is C", None),
    ("Final Answer\n\n(C)", "C"), ("ANSWER ( B )", "B"), ("answer=(A", "A"), ("answer:D)", "D"),
    ("No letter here, the answer = d", "D"), ("_A", "A"), ("'A'", "A"), ("Answer: 'A'", None),
]
INTEGER = [
    ("\\boxed{42}", "42"), ("\\boxed{ 7 }", "7"), ("\\boxed{007}", "7"), ("\\boxed{1000}", None),
    ("\\boxed{999}", "999"), ("\\boxed{0}", "0"), ("\\boxed{1} and \\boxed{2}", "2"), ("\\boxed{x}", None),
    ("\\boxed{12.5}", None), ("\\boxed{-3}", None), ("\\boxed{\\boxed{5}}", "5"), ("boxed{5}", None),
    ("\\boxed {5}", None), ("\\boxed{5", None), ("\\boxed{5} \\boxed{y}", "5"), ("Answer: 17", "17"),
    ("answer: 17", "17"), ("Answer:17.", None), ("Answer: 17, done", "17"), ("Answer: 17.5", None),
    ("Answer: 17a", None), ("Answer: 1234", None), ("Answer 17", None), ("Answer: 3\nAnswer: 4", "4"),
    ("Answer: x Answer: 5", "5"), ("\\boxed{1001} Answer: 5", None), ("the answer is 5", None),
    ("Answer:\n\n 8", "8"), ("Answer: 8_", None), ("Answer: $8$", None), ("", None),
    ("Answer: 12é", None), ("Answer: 12。", "12"), ("\\boxed{\n12\n}", "12"), ("\\boxed{1,000}", None),
    ("\\boxed{99999999999999999999}", None), ("MyAnswer: 6", "6"), ("Answer: 6!", "6"),
]
CODE = [
    ("```python\nx = 1\n```", "x = 1"), ("```\ny\n```", "y"), ("```py\nz\n```", "z"),
    ("```Python\nz\n```", "z"), ("```python\na\n```\ntext\n```python\nb\n```", "b"), ("no code", None),
    ("```python\na\n```\n```\nb\n```", "a"), ("```cpp\nq\n```", "cpp\nq"), ("```python\nopen", None),
    ("```python```", ""), ("``````", ""), ("```python3\na\n```", "3\na"), ("```py a```", "py a"),
    ("```python \n \n  a\n```", "a"), ("```\npython\n\n  a\n```", "  a"), ("``` ```x``` ```", ""),
    ("```python\nprint('```')\n```", "print('"), ("`a`", None), ("", None),
    ("```\n```python\nb\n```", "b"), ("```pythonista\n```", "ista"),
]
HEADERS = [
    "<|channel|>final<|message|>{}<|return|>", "<|channel|>final 明<|message|>{}<|return|>",
    "<|channel|>final537<|message|>{}", "<|channel|>final<|message|>{}<|return|>tail",
    "<|channel|>analysis<|message|>maybe ```python\nwrong\n``` Z<|end|><|start|>assistant<|channel|>final"
    "<|message|>{}<|return|>",
    "<|channel|>final<|channel|>final<|message|>{}", "\n <|channel|>final<|message|>\n{}\n<|return|>\n",
]


def random_text(rng):
    words = ["Answer", "answer", "ANSWER", "FINAL", "final", "A", "B", "d", "E", "j", "(", ")", ":", "=", ".", "*",
             "**", " ", "  ", "\n", "\\n", "\\'", "[", "]", "'", '"', "x", "the", "1", "12", "999", "1000", "0",
             "\\boxed{", "}", "{", "```", "```python", "python", "py", "é", "—", "。", "明", "_", "\u00a0", "\u2028",
             "<|channel|>", "<|message|>", "<|return|>", "final", "<|end|>", "analysis", "<", "good"]
    return "".join(rng.choice(words) for _ in range(rng.randrange(1, 14)))


def main():
    table = []
    for dataset, rows in (("gpqa_diamond", CHOICE), ("aime25", INTEGER), ("livecodebench_v6", CODE)):
        for text, want in rows:
            table.append((dataset, text, want))
            for h in HEADERS[: 2 if dataset == "aime25" else 5]:
                thought = dataset == "livecodebench_v6" and "wrong" in h and want is None
                table.append((dataset, h.format(text), "wrong" if thought else want))
    seed = int(os.environ.get("SEED", "9"))
    rng = random.Random(seed)
    print("seed", seed)
    cases = [(d, None, t) for d, t, _ in table]
    n_table = len(cases)
    for _ in range(6000):
        h = rng.choice(HEADERS + ["{}"] * 4 + [H.replace("{}", "thought", 1)])
        cases.append((rng.choice(list(ORACLE)), "B", h.format(random_text(rng))))
    out, _ = results(cases)
    bad = 0
    for i, (r, (d, _, t)) in enumerate(zip(out["detailed_results"], cases)):
        want = table[i][2] if i < n_table else ORACLE[d](t)
        if r["full"] != want or (i < n_table and ORACLE[d](t) != want):
            bad += 1
            if bad <= 15:
                print("case", i, repr(t), d, "gloss", repr(r["full"]), "table/rules", repr(want),
                      "rules", repr(ORACLE[d](t)))
    assert bad == 0, f"{bad} cases differ"
    print(f"{n_table} hard cases, {len(cases) - n_table} random texts")


if __name__ == "__main__":
    main()
