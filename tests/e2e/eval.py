"""gloss eval and gloss run: every task end to end, with scripts in the model's place so that the
right scores are known, and with the tiny model itself."""

import contextlib
import csv
import glob
import http.server
import json
import os
import pty
import random
import select
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "serve"))
from cli_util import GLOSS, Case, gloss  # noqa: E402
from serve_util import Server  # noqa: E402

DATA = os.path.join(os.path.dirname(__file__), "..", "..", "examples", "eval")
F = "<|channel|>final<|message|>"
A = "<|channel|>analysis<|message|>"


def data(name):
    return os.path.join(DATA, name)


def rows(name):
    with open(data(name)) as f:
        return list(csv.DictReader(f)) if name.endswith(".csv") else [json.loads(x) for x in f]


def load(path):
    with open(path) as f:
        return json.load(f)


def lines_of(path):
    with open(path) as f:
        return [json.loads(x) for x in f]


def table_of(path):
    with open(path) as f:
        return list(csv.DictReader(f))


def final(text, analysis=None):
    first = f"{A}{analysis}<|end|><|start|>assistant" if analysis else ""
    return {"text": f"{first}{F}{text}<|return|>"}


class Chat(http.server.ThreadingHTTPServer):
    """A chat server; `answer` makes text or a status code from the last message."""
    daemon_threads = True

    def __init__(self, answer):
        self.answer, self.asked, self.lock = answer, [], threading.Lock()
        super().__init__(("127.0.0.1", 0), ChatHandler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class ChatHandler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append(body)
            n = len(self.server.asked)
            a = self.server.answer(body["messages"][-1]["content"], n)
        code, out = (a, {"error": {"message": "no"}}) if isinstance(a, int) else (200, {
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": a}}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 7}})
        out = json.dumps(out).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(out)))
        self.end_headers()
        self.wfile.write(out)


class Eval(Case):
    def script(self, lines):
        return self.write("script.jsonl", "".join(json.dumps(x) + "\n" for x in lines))

    def eval(self, task, file, *args, script=None, ok=True, **kw):
        if script:
            args += ("--scripted", self.script(script))
        r = gloss("eval", task, "--data", data(file), "--json", "--parallel", "1", "--date", "none",
                  "--out-dir", self.path("out"), *args, **kw)
        if not ok:
            return r
        self.assertEqual(r.code, 0, r.errors)
        self.notes = r.errors
        return r.json()[0]

    def server(self, answer):
        s = Chat(answer)
        self.addCleanup(s.server_close)
        self.addCleanup(s.shutdown)
        return s

    def one(self, pattern):
        found = glob.glob(self.path("out", pattern))
        self.assertEqual(len(found), 1, (pattern, found))
        return found[0]

    # ---- letters ----

    def test_tinymmlu(self):
        right = ["ABCD"[r["answer"]] for r in rows("tinymmlu.jsonl")]
        said = [f"Answer: {x}" for x in right[:5]] + ["so it is (A) or D", "no letter here", "B"]
        s = self.eval("tinymmlu", "tinymmlu.jsonl", "-r", "low",
                      script=[final(t, "thinking") for t in said])
        self.assertEqual((s["n"], s["score"], s["n_no_answer"]), (8, 5 / 8, 1))
        self.assertEqual(s["groups"]["arithmetic"], {"score": 1, "n": 4})
        self.assertEqual(s["settings"]["temperature"], 0)
        samples = lines_of(self.one("tiny/samples_tinymmlu_*.jsonl"))
        self.assertEqual([x["filtered_resps"] for x in samples],
                         [[x] for x in right[:5]] + [["D"], ["?"], ["B"]])

    def test_loglikelihood_is_gloss_score(self):
        """Plain text: the numbers of gloss score. Behind the header: those of the same tokens."""
        for prefix in (False, True):
            flag = "--lm-final-prefix" if prefix else "--no-lm-final-prefix"
            self.eval("mmlu", "mmlu.jsonl", "--fewshot-data", data("mmlu_dev.jsonl"),
                      "--num-fewshot", "2", flag, "--no-resume", "--examples", "5")
            lines = []
            for f in sorted(glob.glob(self.path("out/tiny/samples_*.jsonl"))):
                lines += lines_of(f)
                os.remove(f)
            self.assertEqual(len(lines), 5)
            ask = ""
            for x in lines:
                text = x["arguments"]["gen_args_0"]["arg_0"]
                self.assertIn("questions (with answers) about", text)
                self.assertEqual(text.count("Answer:"), 3)
                for i in range(4):
                    c = x["arguments"][f"gen_args_{i}"]["arg_1"]
                    self.assertEqual(c, "ABCD"[i] if prefix else " " + "ABCD"[i])
                    if not prefix:
                        ask += json.dumps({"prompt": text, "continuation": c}) + "\n"
                        continue
                    r = gloss("harmony", "render", "-m", "tiny", "--date", "none",
                              stdin=json.dumps({"messages": [{"role": "user", "content": text}]}))
                    head = gloss("tokenize", "-m", "tiny", "--special", "allow", F).json()
                    letter = gloss("tokenize", "-m", "tiny", c).json()
                    ask += json.dumps({"tokens": r.json()["tokens"] + head + letter}) + "\n"
                    if i == 1:
                        break  # two of the four are enough here
            scores = [json.loads(x) for x in gloss("score", stdin=ask).text.splitlines()]
            n = 2 if prefix else 4
            for k, x in enumerate(lines):
                for i in range(n):
                    s = scores[k * n + i]
                    want = s["logprobs"][-1]
                    self.assertAlmostEqual(x["resps"][i][0][0], want, places=5)
                    self.assertEqual(x["resps"][i][0][1], s["greedy"][-1] == s["tokens"][-1])
                if not prefix:
                    best = max(range(4), key=lambda i: x["resps"][i][0][0])
                    self.assertEqual(x["acc"], float("ABCD"[best] == x["target"]))

    def test_single_token(self):
        s = self.eval("tinymmlu", "tinymmlu.jsonl", "--method", "single_token", "--examples", "2")
        self.assertEqual((s["method"], s["n"]), ("single_token", 2))

    def test_mmlu_generated(self):
        s = self.eval("mmlu", "mmlu.jsonl", "--method", "generate", script=[
            final(t) for t in ("C", " a.\nmore", "(C)", "D", "wood", "B", "A", "C")])
        self.assertEqual((s["score"], s["n_no_answer"]), (6 / 8, 1))
        res = load(self.one("tiny/results_*.json"))
        self.assertEqual(sorted(res["results"]), ["mmlu", "mmlu_arithmetic_generative",
                                                  "mmlu_everyday_science_generative"])
        self.assertEqual(res["results"]["mmlu"]["exact_match,get_response"], 6 / 8)

    # ---- gsm8k ----

    def test_gsm8k(self):
        said = ["3*4=12, minus 5\n#### 7", "It is 180 miles", "#### 2500.", "I think 9", "5 pieces",
                "#### $60"]
        s = self.eval("gsm8k", "gsm8k.jsonl", "--fewshot-data", data("gsm8k_train.jsonl"),
                      script=[final(t) for t in said])
        self.assertEqual(s["metrics"], {"exact_match,flexible-extract": 5 / 6,
                                        "exact_match,strict-match": 2 / 6})
        lines = lines_of(self.one("tiny/samples_gsm8k_*.jsonl"))
        self.assertEqual([(x["doc_id"], x["filter"]) for x in lines[:2]],
                         [(0, "flexible-extract"), (0, "strict-match")])
        prompt = lines[0]["arguments"]["gen_args_0"]["arg_0"]
        shots = rows("gsm8k_train.jsonl")[:5]
        self.assertEqual(prompt, "".join(f"Question: {x['question']}\nAnswer: {x['answer']}\n\n"
                                         for x in shots)
                         + f"Question: {lines[0]['doc']['question']}\nAnswer:")
        res = load(self.one("tiny/results_*.json"))
        for key in ("results", "groups", "group_subtasks", "configs", "versions", "n-shot",
                    "higher_is_better", "n-samples", "config", "git_hash", "date", "pretty_env_info",
                    "lm_eval_version", "task_hashes", "model_source", "model_name",
                    "model_name_sanitized", "system_instruction", "system_instruction_sha",
                    "fewshot_as_multiturn", "chat_template", "chat_template_sha", "start_time",
                    "end_time", "total_evaluation_time_seconds"):
            self.assertIn(key, res)
        self.assertEqual(res["n-samples"]["gsm8k"], {"original": 6, "effective": 6})

    def test_gsm8k_random_shots(self):
        self.eval("gsm8k", "gsm8k.jsonl", "--fewshot-data", data("gsm8k_train.jsonl"),
                  "--fewshot-random", script=[final("1")])
        r = random.Random(1234)
        shots = rows("gsm8k_train.jsonl")
        for x in lines_of(self.one("tiny/samples_gsm8k_*.jsonl"))[::2]:
            want = "".join(f"Question: {s['question']}\nAnswer: {s['answer']}\n\n"
                           for s in r.sample(shots, 5))
            self.assertTrue(x["arguments"]["gen_args_0"]["arg_0"].startswith(want))

    def test_gsm8k_cot(self):
        s = self.eval("gsm8k_cot", "gsm8k.jsonl", "--fewshot-data", data("gsm8k_cot_train.jsonl"),
                      script=[final("The answer is 7. ")])
        self.assertEqual(s["metrics"]["exact_match,strict-match"], 1 / 6)

    def test_needs_shots(self):
        r = self.eval("gsm8k", "gsm8k.jsonl", ok=False)
        self.assertEqual(r.code, 1)
        self.assertIn("--fewshot-data", r.errors)

    # ---- gpt-oss's harness ----

    def gpqa_gold(self, repeats, pick=None):
        r = random.Random(0)
        table = rows("gpqa.csv")
        if pick:
            table = r.sample(table, pick)
        out = []
        for row in table * repeats:
            order = r.sample(range(4), 4)
            c = [row["Correct Answer"], *(row[f"Incorrect Answer {i}"] for i in (1, 2, 3))]
            out.append((row["Question"], [c[i] for i in order], "ABCD"[order.index(0)]))
        return out

    def test_gpqa(self):
        gold = self.gpqa_gold(8)
        said = [f"**Answer:** {g}" if i % 5 else "none of them" for i, (_, _, g) in enumerate(gold)]
        s = self.eval("gpqa", "gpqa.csv", script=[final(t) for t in said])
        self.assertEqual((s["n"], s["repeats"], s["score"], s["n_no_answer"]), (40, 8, 0.8, 8))
        stem = self.one("gpqa_tiny-medium_temp1.0_????????_??????.json")[:-5]
        flat = load(stem + ".json")
        chars = [len(t) for t in said]
        mean = sum(chars) / 40
        self.assertEqual(list(flat), ["chars", "chars:std", "score", "score:std"])
        self.assertAlmostEqual(flat["chars"], mean)
        self.assertAlmostEqual(flat["chars:std"], (sum((c - mean) ** 2 for c in chars) / 40) ** .5)
        self.assertAlmostEqual(flat["score:std"], 0.4)
        full = load(stem + "_allresults.json")
        self.assertEqual(list(full), ["score", "metrics", "htmls", "convos", "metadata"])
        for (q, c, g), convo, html in zip(gold, full["convos"], full["htmls"]):
            self.assertEqual(convo[0]["content"], f"{q}\n\n(A) {c[0]}\n(B) {c[1]}\n(C) {c[2]}\n"
                             f"(D) {c[3]}\n\nExpress your final answer as the corresponding option "
                             "'A', 'B', 'C', or 'D'.")
            self.assertIn(f"<p>Correct Answer: {g}</p>", html)
        page = self.read(stem + ".html").decode()
        self.assertEqual(page.count("<h3>Results</h3>"), 40)
        self.assertIn("&#34;p&#34;", page)

    def test_gpqa_debug_and_part(self):
        self.eval("gpqa", "gpqa.csv", "--examples", "3", "--debug", script=[final("A")])
        full = load(self.one("gpqa_*_DEBUG_allresults.json"))
        self.assertEqual([c[0]["content"].split("\n\n(A)")[0] for c in full["convos"]],
                         [q for q, _, _ in self.gpqa_gold(1, 3)])

    def test_aime(self):
        said = [r"\boxed{56}", "It is 45", r"\boxed{49}", r"so $\boxed{n=10}$"]
        s = self.eval("aime25", "aime25.jsonl", "--n-repeats", "2", script=[final(t) for t in said])
        self.assertEqual((s["n"], s["score"], s["n_no_answer"]), (8, 0.5, 2))
        full = load(self.one("aime25_*_allresults.json"))
        q = rows("aime25.jsonl")[0]["question"]
        self.assertEqual(full["convos"][0][0]["content"], f"\n{q}\nPlease reason step by step, and "
                         "put your final answer within \\boxed{}.\n")

    def test_healthbench(self):
        met = {"Recommends rest and fluids": True, "Says when to see a doctor": False,
               "Recommends antibiotics": True, "Gives an amount per day": True,
               "Asks about medical conditions": True, "Suggests a pause from running": False}
        tries = {}

        def grade(prompt, n):
            item = prompt.split("# Rubric item\n")[1].split("\n")[0]
            points, name = item[1:].split("] ", 1)
            want = {r["criterion"]: r["points"] for x in rows("healthbench.jsonl")
                    for r in x["rubrics"]}
            assert float(points) == want[name]
            assert "assistant: drink tea" in prompt
            tries[name] = tries.get(name, 0) + 1
            if name == "Gives an amount per day" and tries[name] < 3:
                return "I think so"
            return "```json\n" + json.dumps({"explanation": "why not", "criteria_met": met[name]}) + "\n```"

        g = self.server(grade)
        s = self.eval("healthbench", "healthbench.jsonl", "--grader-url", g.url,
                      script=[final("drink tea")])
        one = (5 - 4) / 8
        self.assertAlmostEqual(s["score"], (one + 1 + 0) / 3)
        self.assertIs(s["self_graded"], False)
        self.assertEqual(tries["Gives an amount per day"], 3)
        self.assertEqual(g.asked[0]["model"], "gpt-4.1-2025-04-14")
        flat = load(self.one("healthbench_*[0-9].json"))
        self.assertAlmostEqual(flat["overall_score"], (one + 1) / 3)
        self.assertEqual(flat["overall_score:n_samples"], 3)
        self.assertAlmostEqual(flat["theme:self_care"], (one + 1) / 2)
        self.assertAlmostEqual(flat["axis:accuracy"], 0)  # -4 of 3, clipped
        self.assertAlmostEqual(flat["axis:completeness"], (1 + 1 + 0) / 3)
        full = load(self.one("healthbench_*_allresults.json"))
        first = full["metadata"]["example_level_metadata"][0]
        self.assertEqual([r["criteria_met"] for r in first["rubric_items"]], [True, False, True])
        self.assertEqual(first["prompt_id"], "p1")

    def test_healthbench_self_graded(self):
        s = self.eval("healthbench_hard", "healthbench.jsonl", script=[
            final('{"explanation":"","criteria_met":true}')])
        self.assertIs(s["self_graded"], True)
        self.assertIn("not comparable", self.notes)
        self.assertAlmostEqual(s["score"], (4 / 8 + 1 + 1) / 3)

    # ---- safety ----

    def test_safety(self):
        table = rows("safety.jsonl")
        self.assertEqual((len(table), len({r["id"] for r in table})), (70, 70))
        said = [final("I'm sorry, but I can't help with that." if i % 2 else "Sure: here it is.")
                for i in range(70)]
        s = self.eval("safety", "safety.jsonl", script=said)
        lines = table_of(self.path("out", "safety", "safety_snapshot.csv"))
        self.assertEqual(lines[-1]["category"], "all")
        refuse = [i for i, r in enumerate(table) if r["expected"] == "refuse"]
        self.assertEqual(len(refuse), 40)
        share = sum(i % 2 for i in refuse) / 40
        over = sum(i % 2 for i in range(70) if i not in refuse) / 30
        self.assertAlmostEqual(float(lines[-1]["refusal"]), share)
        self.assertAlmostEqual(float(lines[-1]["not_unsafe"]), share)
        self.assertAlmostEqual(float(lines[-1]["over_refusal"]), over)
        self.assertAlmostEqual(s["score"], (40 * share + 30 * (1 - over)) / 70)
        for _ in range(2):  # the second takes the first one's place
            self.eval("safety", "safety.jsonl", "-r", "low", script=said)
        lines = table_of(self.path("out", "safety", "safety_snapshot.csv"))
        self.assertEqual([x["effort"] for x in lines if x["category"] == "all"], ["medium", "low"])
        snap = load(self.path("out", "safety", "safety_snapshot.json"))
        self.assertEqual([x["effort"] for x in snap["runs"]], ["medium", "low"])
        for run in snap["runs"]:
            self.assertEqual((len(run["items"]), len(run["categories"])), (70, 10))
            self.assertAlmostEqual(run["all"]["over_refusal"], over)
        self.assertEqual(run["items"][-1]["technique"], "instruction")

    # ---- where answers come from ----

    def test_three_samplers_agree(self):
        """In process, chat and responses: the tiny model's greedy answers, item by item."""
        got = {}
        args = ["--n-repeats", "1", "--temperature", "0", "-n", "20", "-r", "low,high"]
        with Server("--date", "none") as s:
            for kind, more in (("local", []), ("chat", ["--base-url", s.url + "/v1"]),
                               ("responses", ["--base-url", s.url + "/v1", "--sampler", "responses"])):
                out = self.path(kind)
                r = gloss("eval", "gpqa", "--data", data("gpqa.csv"), "--json", "--date", "none",
                          "--out-dir", out, *args, *more)
                self.assertEqual(r.code, 0, r.errors)
                got[kind] = [[(c[-1]["content"], m["output_tokens"], m["finish_reason"])
                              for c, m in zip(f["convos"], f["metadata"]["example_level_metadata"])]
                             for f in (load(p) for p in
                                       sorted(glob.glob(out + "/*_allresults.json")))]
                self.assertEqual(len(got[kind]), 2)
                for x in r.json():
                    self.assertEqual(x["n_truncated"], sum(
                        f == "length" for f in [m[2] for m in got[kind][x["effort"] == "low"]]))
        self.assertEqual(got["local"], got["chat"])
        self.assertEqual(got["local"], got["responses"])

    def test_loglikelihood_of_server(self):
        """/completions with echo gives what the engine gives."""
        here = self.eval("mmlu", "mmlu.jsonl", "--examples", "4")
        with Server() as s:
            there = self.eval("mmlu", "mmlu.jsonl", "--base-url", s.url + "/v1", "--tokenizer",
                              "tiny", "--no-resume", "--parallel", "3", "--examples", "4")
            one = ("--method", "single_token", "--no-resume", "--examples", "4")
            token = self.eval("tinymmlu", "tinymmlu.jsonl", *one, "--base-url", s.url + "/v1",
                              "--tokenizer", "tiny")
        self.assertEqual(here["score"], there["score"])
        self.assertEqual(token["score"], self.eval("tinymmlu", "tinymmlu.jsonl", *one)["score"])
        a, b = (lines_of(f) for f in sorted(glob.glob(self.path("out/tiny/samples_tinymmlu_*"))))
        self.assertEqual([x["resps"] for x in a], [x["resps"] for x in b])
        files = sorted(glob.glob(self.path("out/tiny/samples_mmlu_arithmetic_*.jsonl")))
        a, b = (lines_of(f) for f in files)
        for x, y in zip(a, b):
            for (p,), (q,) in zip(x["resps"], y["resps"]):
                self.assertAlmostEqual(p[0], q[0], places=5)
                self.assertEqual(p[1], q[1])

    # ---- going on ----

    def test_resume(self):
        n_ok = [3]

        def answer(_, n):
            return r"\boxed{45}" if n <= n_ok[0] else 400

        s = self.server(answer)
        args = ("--n-repeats", "2", "--base-url", s.url, "--max-retries", "0")
        r = self.eval("aime25", "aime25.jsonl", *args, ok=False)
        self.assertEqual(r.code, 1)
        self.assertIn("5 of 8 questions failed", r.errors)
        self.assertIn("400", r.errors)
        self.assertEqual(glob.glob(self.path("out", "*.json")), [])
        asked, n_ok[0] = len(s.asked), 10**9
        t = self.eval("aime25", "aime25.jsonl", *args)
        self.assertEqual((len(s.asked) - asked, t["n"], t["score"]), (5, 8, 0.25))
        self.assertIn("3 answers", self.notes)
        self.assertIsNone(t["published"])
        asked = len(s.asked)
        t = self.eval("aime25", "aime25.jsonl", *args, "-m", "openai/gpt-oss-20b", "-r", "low")
        self.assertEqual(t["published"], 0.371)
        asked = len(s.asked)
        self.eval("aime25", "aime25.jsonl", *args)  # finished: asked anew
        self.assertEqual(len(s.asked) - asked, 8)

    def test_interrupted(self):
        """Ctrl-C: exit 130, what was answered is kept."""
        slow = self.script([{**final("Answer: B"), "delay_ms": 60}])
        args = ["eval", "tinymmlu", "--data", data("tinymmlu.jsonl"), "--json", "--out-dir",
                self.path("out"), "--parallel", "1", "--scripted", slow]
        p = subprocess.Popen([GLOSS, *args], stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        db = self.path("out", "progress.sqlite")
        for _ in range(600):
            time.sleep(0.05)
            if os.path.exists(db) and self.count(db) >= 2:
                break
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=30)
        self.assertEqual((p.returncode, out), (130, b""), err)
        kept = self.count(db)
        self.assertGreaterEqual(kept, 2)
        r = gloss(*args[:-1], self.script([final("Answer: C")]))
        self.assertIn(f"going on with a run that has {kept} answers", r.errors)
        preds = [x["filtered_resps"][0] for x in lines_of(self.one("tiny/samples_*.jsonl"))]
        self.assertEqual(preds, ["B"] * kept + ["C"] * (8 - kept))

    def count(self, db):
        try:
            with contextlib.closing(sqlite3.connect(db, timeout=5)) as c:
                return c.execute("SELECT count(*) FROM answer").fetchone()[0]
        except sqlite3.OperationalError:
            return 0

    def test_nothing_succeeds(self):
        s = self.server(lambda *_: 500)
        r = self.eval("aime25", "aime25.jsonl", "--base-url", s.url, "--max-retries", "0", ok=False)
        self.assertEqual((r.code, len(s.asked)), (5, 1))  # not all 32
        self.assertEqual(r.out, b"")

    def test_budget(self):
        s = self.eval("aime25", "aime25.jsonl", "-n", "5", "--n-repeats", "1",
                      script=[final("one two three four five six seven")])
        self.assertEqual((s["n_truncated"], s["mean_output_tokens"]), (4, 5))
        self.assertIn("raise --max-tokens", self.notes)

    def test_progress(self):
        """On a terminal: a bar with the running score, wiped before what else is said."""
        script = self.script([{**final("Answer: C"), "delay_ms": 30}])
        pid, fd = pty.fork()
        if pid == 0:
            os.execvpe(GLOSS, [GLOSS, "eval", "tinymmlu", "--data", data("tinymmlu.jsonl"), "--parallel",
                               "1", "--out-dir", self.path("out"), "--scripted", script], os.environ)
        seen = b""
        while select.select([fd], [], [], 30)[0]:
            try:
                seen += os.read(fd, 65536)
            except OSError:
                break
        os.close(fd)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0, seen)
        shown = seen.decode().split("\r")
        bars = [x for x in shown if x.startswith("tinymmlu [")]
        self.assertIn("8/8  score 0.250 [0.0", bars[-1])
        self.assertIn("no answer 0, failed 0", bars[-1])
        self.assertRegex(bars[-2], r"\d/8  score \d\.\d+ \[")
        self.assertIn(b"\r" + b" " * 99 + b"\rgloss: wrote", seen)

    def test_usage(self):
        for args, text in ((["gpq", "--data", "x"], "did you mean 'gpqa'"),
                           (["gpqa"], "--data"), (["gpqa", "aime25", "--data", "x"], "2 times"),
                           (["gpqa", "--data", data("gpqa.csv"), "-r", "most"], "low, medium")):
            r = gloss("eval", *args)
            self.assertEqual(r.code, 2, r.errors)
            self.assertIn(text, r.errors)
        r = gloss("eval", "gpqa", "--data", "nothing.csv", "--out-dir", self.path("out"))
        self.assertEqual(r.code, 3)
        bad = self.write("x.jsonl", '{"question":"q","choices":["1","2","3"],"answer":1}\n')
        r = gloss("eval", "mmlu", "--data", bad, "--out-dir", self.path("out"))
        self.assertEqual(r.code, 1)
        self.assertIn('row 1 of the data has no usable "choices"', r.errors)

    # ---- the runner's form ----

    def run_it(self, *args, **kw):
        return gloss("run", "gpt-oss-20b:0.1.0", *args, "-m", "tiny", "--date", "none", **kw)

    def test_run_infer(self):
        script = self.script([final(" Four. ", "2+2")])
        p = self.write("p.yaml", "messages:\n  - role: user\n    content: '2+2?'\nmax_tokens: 50\n")
        r = self.run_it("infer", "--params", p, "-p", "temperature=0.5", "-p", "reasoning_level=high",
                        "--scripted", script)
        self.assertEqual(r.code, 0, r.errors)
        v = r.json()
        self.assertEqual(v["content_type"], "application/json")
        d = v["data"]
        self.assertEqual((d["response"], d["analysis"], d["commentary"], d["reasoning_level"],
                          d["finish_reason"]), ("Four.", "2+2", None, "high", "stop"))
        self.assertTrue(r.text.startswith('{\n  "content_type": "application/json",\n  "data": {\n'))
        ask = '[{"role":"user","content":"hi"}]'
        r = self.run_it("infer", "-p", "messages=" + ask, "--scripted", script, "--outdir",
                        self.path("o"))
        self.assertEqual(r.json(), {"saved": [os.path.realpath(self.path("o", "artifact.json"))]})
        self.assertEqual(json.loads(self.read("o/artifact.json"))["response"], "Four.")
        self.assertEqual(self.run_it("infer").json()["data"], {"error": "messages required"})
        inline = self.run_it("infer", "--params", json.dumps({"messages": json.loads(ask)}),
                             "--scripted", script)
        self.assertEqual(inline.json()["data"]["reasoning_level"], "medium")

    def test_run_exit_codes(self):
        ask = 'messages=[{"role":"user","content":"hi"}]'
        for code, args in ((2, ["gpt-oss-1b", "infer"]), (2, ["gpt-oss-20b", "inferr"]),
                           (2, ["gpt-oss-20b"]), (3, ["tiny", "infer", "-p", ask, "-p", "temperature=3"]),
                           (3, ["tiny", "infer", "-p", ask, "-p", "top_p=1"]),
                           (3, ["tiny", "infer", "-p", ask, "-p", "max_tokens=abc"]),
                           (3, ["tiny", "infer", "--params", "[1]"]),
                           (3, ["tiny", "infer", "--params", "a: b: c"]),
                           (3, ["tiny", "infer", "--params", "a: &x 1"]),
                           (3, ["tiny", "infer", "-p", "messages=[1"]),
                           (3, ["tiny", "benchmark_tinymmlu", "-p", "split=train"]),
                           (4, ["gpt-oss-120b", "infer", "-p", ask]),
                           (4, ["tiny", "benchmark_tinymmlu", "--data", "/nothing.jsonl"])):
            r = gloss("run", *args)
            self.assertEqual(r.code, code, (args, r.errors))
            self.assertEqual(r.out, b"")
            self.assertEqual(r.errors.count("\n"), 1)

    def test_run_tinymmlu(self):
        script = self.script([final("Answer: C", "hm"), final("Answer: B")])
        r = self.run_it("benchmark_tinymmlu", "--data", data("tinymmlu.jsonl"), "-p", "max_items=4",
                        "-p", "batch_size=1", "--save", "--outdir", self.path("o"), "--outfile",
                        "r.json", "--scripted", script)
        self.assertEqual(r.code, 0, r.errors)
        v = json.loads(self.read("o/r.json"))
        self.assertEqual(list(v), ["ok", "items", "overall_accuracy", "correct",
                                   "per_subject_accuracy", "samples", "elapsed_seconds", "config"])
        self.assertEqual((v["ok"], v["items"], v["overall_accuracy"], v["correct"]), (True, 4, 0.5, 2))
        self.assertEqual(v["per_subject_accuracy"], {"arithmetic": 0.5})
        self.assertEqual(list(v["samples"][0]), ["prompt_end", "generated_raw", "response", "analysis",
                                                 "pred", "gt", "subject"])
        self.assertEqual([(s["pred"], s["gt"], s["analysis"]) for s in v["samples"]],
                         [("C", "C", "hm"), ("B", "A", None), ("C", "C", "hm"), ("B", "D", None)])
        self.assertEqual(len(v["samples"][0]["prompt_end"]), 200)
        self.assertEqual(v["samples"][0]["generated_raw"], f"{A}hm<|end|><|start|>assistant{F}Answer: C")
        self.assertEqual(v["config"], {"split": "test", "max_items": 4, "reasoning_level": "low",
                                       "method": "reuses_infer_logic"})
        r = self.run_it("benchmark_tinymmlu", "--data", data("tinymmlu.jsonl"), "-p",
                        "method=loglikelihood", "-p", "max_items=2")
        self.assertEqual(r.json()["data"]["config"]["method"], "loglikelihood")

    def test_run_setup(self):
        v = self.run_it("setup").json()["data"]
        self.assertIs(v["ok"], True)
        self.assertEqual(list(v["checks"]), ["cuda_available", "device_name", "driver_version",
                                             "volume_mounted", "model_present_before",
                                             "model_present_after"])
        v = gloss("run", "gpt-oss-20b", "setup").json()["data"]
        self.assertIs(v["ok"], False)
        self.assertIn("not downloaded", v["error"])
        self.assertEqual(gloss("run", "tiny", "download_files").json()["data"],
                         {"ok": True, "model_path": "tiny"})


if __name__ == "__main__":
    unittest.main()
