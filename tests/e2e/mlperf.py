"""gloss mlperf: LoadGen runs on the tiny model, in process and over /generate, scored and verified."""
import json
import os
import re
import shutil
import subprocess
import sys
import unittest

from cli_util import Case, gloss

QUESTIONS = ["What is 12 + 30?", "Reverse the word lamp.", "Sort: 8 3 5", "What is 7 + 5?"]
SETS = ["gpqa_diamond", "aime25", "livecodebench_v6"]
# A run of a second or two that is valid on any machine: LoadGen wants 459 queries for the 99th
# percentile, and the benchmark's limits of latency are not for a machine that runs other tests.
USER_CONF = """*.Offline.target_qps = 40
*.Offline.min_duration = 100
*.Server.target_qps = 100
*.Server.min_duration = 100
*.Server.min_query_count = 100
*.Server.target_latency_percentile = 90
*.Server.ttft_latency = 60000
*.Server.tpot_latency = 60000
"""
LOGS = ["mlperf_log_accuracy.json", "mlperf_log_detail.txt", "mlperf_log_summary.txt",
        "mlperf_log_trace.json"]
FAST = ["-t", "1", "--max-new-tokens", "6", "--max-concurrency", "8"]


def prompts():
    out = []
    for q in QUESTIONS:
        r = gloss("harmony", "render", "-m", "tiny",
                  stdin=json.dumps({"messages": [{"role": "user", "content": q}]}))
        out.append(r.json()["tokens"][-20:])  # the question; the rest is the same for all
    return out


def ids_of(log_entry):
    raw = bytes.fromhex(log_entry["data"])
    return [int.from_bytes(raw[i:i + 4], "little") for i in range(0, len(raw), 4)]


def read(*parts):
    with open(os.path.join(*parts)) as f:
        return f.read()


class Mlperf(Case):
    @classmethod
    def setUpClass(cls):
        cls.prompts = prompts()

    def setUp(self):
        super().setUp()
        self.rows = [{"dataset": SETS[i % 3], "ground_truth": "42", "question": QUESTIONS[i % 4],
                      "input_tokens": self.prompts[i % 4]} for i in range(24)]
        self.data = self.write("data.jsonl", "".join(json.dumps(r) + "\n" for r in self.rows))
        self.user = self.write("user.conf", USER_CONF)
        self.out = os.path.join(self.dir, "out")

    def write(self, name, text):
        path = os.path.join(self.dir, name)
        with open(path, "w") as f:
            f.write(text)
        return path

    def run_ok(self, *args, code=0, **kw):
        r = gloss("mlperf", *args, timeout=120, cwd=self.dir, **kw)
        self.assertEqual(r.code, code, r.errors + r.text)
        return r

    def load(self, *args, **kw):
        return self.run_ok("run", "--input-file", self.data, "--user-conf", self.user,
                           "--output-dir", self.out, *FAST, *args, **kw)

    def log(self, *parts):
        return json.loads(read(self.out, *parts, "mlperf_log_accuracy.json"))

    # ---- LoadGen ----

    def test_offline_is_valid(self):
        r = self.load()
        folder = os.path.join(self.out, "offline", "performance")
        self.assertEqual(sorted(os.listdir(folder)), LOGS)
        self.assertIn("Result is : VALID", r.text)
        self.assertRegex(r.text, r"Tokens per second: \d")
        self.assertIn("Failed samples: 0", r.text)
        self.assertIn("No errors encountered during test.", r.text)
        summary = read(folder, "mlperf_log_summary.txt")
        self.assertTrue(r.text.startswith(summary))
        for line in ("SUT name : gloss_offline", "Scenario : Offline", "Mode     : PerformanceOnly",
                     "target_qps : 40", "qsl_rng_seed : 2085463073848966840",
                     "sample_index_rng_seed : 2747215439041700203",
                     "schedule_rng_seed : 16159082839903944936"):
            self.assertIn(line, summary)
        detail = [json.loads(x[len(":::MLLOG "):]) for x in
                  read(folder, "mlperf_log_detail.txt").splitlines()]
        keys = {d["key"]: d["value"] for d in detail}
        self.assertEqual(keys["effective_performance_sample_count"], len(self.rows))
        self.assertEqual(keys["effective_sample_concatenate_permutation"], True)

    def test_server_is_valid(self):
        r = self.load("--scenario", "server")
        self.assertIn("Result is : VALID", r.text)
        self.assertRegex(r.text, r"Completed tokens per second *: \d")
        self.assertRegex(r.text, r"99.00 percentile first token latency \(ns\) *: \d")
        self.assertIn("ttft_latency (ns): 60000000000", r.text)

    def test_limits_of_the_scenarios(self):
        """The benchmark's own limits, from the conf file inside LoadGen."""
        conf = self.write("few.conf", "*.Server.target_qps = 100\n*.Server.min_duration = 1\n"
                          "*.Server.min_query_count = 4\n")
        for name, ttft, tpot in (("server", 3000, 80), ("interactive", 2000, 15)):
            r = gloss("mlperf", "run", "--input-file", self.data, "--user-conf", conf, "--scenario",
                      name, "--output-dir", self.out, *FAST, cwd=self.dir)
            self.assertIn(r.code, (0, 1))  # too few queries to be valid
            self.assertIn(f"ttft_latency (ns): {ttft}000000\n", r.text)
            self.assertIn(f"tpot_latency (ns): {tpot}000000\n", r.text)
            self.assertTrue(os.path.isdir(os.path.join(self.out, name, "performance")))

    def test_invalid_is_exit_code_1(self):
        conf = self.write("slow.conf", USER_CONF + "*.*.tpot_latency = 0\n*.Server.tpot_latency = 0\n")
        r = self.run_ok("run", "--input-file", self.data, "--user-conf", conf, "--output-dir",
                        self.out, *FAST, "--scenario", "server", code=1)
        self.assertIn("Result is : INVALID", r.text)
        self.assertIn("calls the run INVALID", r.errors)

    def test_answers_are_the_engines(self):
        """What is logged are the tokens of the plain greedy request, all of them, in every form."""
        script = self.write("script.jsonl", '{"tokens":[5,6,7,8]}\n')
        greedy = ["--temperature", "0", "--accuracy"]
        self.load(*greedy)
        offline = {x["qsl_idx"]: x for x in self.log("offline", "accuracy")}
        self.assertEqual(sorted(offline), list(range(len(self.rows))))
        self.load(*greedy, "--scenario", "server")
        server = {x["qsl_idx"]: x for x in self.log("server", "accuracy")}
        self.load(*greedy, "--scenario", "server", "--ref-compat")
        ref = {x["qsl_idx"]: x for x in self.log("server", "accuracy")}
        self.run_ok("run", "--input-tokens", self.data, "--output", self.dir + "/a.jsonl", *FAST,
                    "--temperature", "0", "-m", "tiny")
        plain = [json.loads(x) for x in read(self.dir, "a.jsonl").splitlines()]
        for i, row in enumerate(plain):
            want = row["tok_model_output_0"]
            self.assertEqual(len(want), 6)
            self.assertEqual(ids_of(offline[i]), want)
            self.assertEqual(ids_of(server[i]), want)
            self.assertEqual(server[i]["token_count"], len(want))
            self.assertEqual(bytes.fromhex(server[i]["token_data"])[:4],
                             want[0].to_bytes(4, "little"))
            self.assertEqual(ids_of(ref[i]), want[1:])
            self.assertEqual(ref[i]["token_count"], len(want) - 1)
        self.load("--accuracy", "--scripted", script)
        self.assertEqual({tuple(ids_of(x)) for x in self.log("offline", "accuracy")}, {(5, 6, 7, 8)})

    def test_seed_repeats_an_accuracy_run(self):
        def one(*seed):
            self.load("--accuracy", "--temperature", "2", *seed)
            return {x["qsl_idx"]: x["data"] for x in self.log("offline", "accuracy")}
        self.assertEqual(one("--seed", "7"), one("--seed", "7"))
        self.assertNotEqual(one("--seed", "7"), one("--seed", "8"))

    def test_conf_files(self):
        mlperf = self.write("mlperf.conf", "*.Offline.target_qps = 3\n*.*.min_duration = 1\n")
        r = self.load("--mlperf-conf", mlperf)
        self.assertIn("target_qps : 40", r.text)  # user.conf goes before
        r = self.run_ok("run", "--input-file", self.data, "--mlperf-conf", mlperf, "--output-dir",
                        self.out, *FAST)
        self.assertIn("target_qps : 3", r.text)
        self.assertIn("min_duration (ms): 1\n", r.text)
        r = self.run_ok("run", "--input-file", self.data, "--user-conf", self.dir + "/none",
                        code=1)
        self.assertIn("conf file", r.errors)
        gen = self.write("gen.json", '{"_x":1,"max_new_tokens":3,"temperature":0,"top_k":-1,"top_p":1.0}')
        self.run_ok("run", "--input-file", self.data, "--user-conf", self.user, "--output-dir",
                    self.out, "--accuracy", "-t", "1", "--generation-config", gen)
        self.assertEqual({x["token_count"] if "token_count" in x else len(ids_of(x))
                          for x in self.log("offline", "accuracy")}, {3})

    def test_without_loadgen(self):
        """A gloss that lies alone says how to get LoadGen, and answers rows without it."""
        alone = os.path.join(self.dir, "gloss")
        shutil.copy(os.environ["GLOSS"], alone)
        p = subprocess.run([alone, "mlperf", "run", "--input-file", self.data, *FAST],
                           capture_output=True, text=True, cwd=self.dir)
        self.assertEqual(p.returncode, 3)
        self.assertIn("scripts/deps.sh mlperf", p.stderr)
        p = subprocess.run([alone, "mlperf", "run", "--input-tokens", self.data, *FAST],
                           capture_output=True, text=True, cwd=self.dir)
        self.assertEqual(p.returncode, 0, p.stderr)
        # Installed: the program in bin, the library in lib.
        for name in ("bin", "lib"):
            os.mkdir(os.path.join(self.dir, name))
        shutil.move(alone, os.path.join(self.dir, "bin", "gloss"))
        shutil.copy(os.path.join(os.path.dirname(os.environ["GLOSS"]), "libgloss-loadgen.so"),
                    os.path.join(self.dir, "lib"))
        p = subprocess.run([os.path.join(self.dir, "bin", "gloss"), "mlperf", "run", "--input-file",
                            self.data, "--user-conf", self.user, *FAST], capture_output=True,
                           text=True, cwd=self.dir)
        self.assertEqual(p.returncode, 0, p.stderr)

    # ---- /generate ----

    def serve(self):
        p = subprocess.Popen([os.environ["GLOSS"], "serve", "--port", "0", "-t", "1", "--parallel",
                              "8"], stderr=subprocess.PIPE, text=True)
        self.addCleanup(p.stderr.close)
        self.addCleanup(p.wait)
        self.addCleanup(p.kill)
        for line in p.stderr:
            m = re.search(r"http://[0-9.]+:\d+", line)
            if m:
                return m.group(0), p
        self.fail("the server said no address")

    def test_over_a_server(self):
        url, server = self.serve()
        greedy = ["--temperature", "0", "--accuracy"]
        self.load(*greedy)
        want = {x["qsl_idx"]: x["data"] for x in self.log("offline", "accuracy")}
        self.out += "2"
        self.load(*greedy, "--server-url", url)
        self.assertEqual({x["qsl_idx"]: x["data"] for x in self.log("offline", "accuracy")}, want)
        self.load(*greedy, "--server-url", url, "--scenario", "server", "--num-workers", "2")
        self.assertEqual({x["qsl_idx"]: x["data"] for x in self.log("server", "accuracy")}, want)
        r = self.load("--server-url", url, "--scenario", "server", "--backend", "sglang")
        self.assertIn("Result is : VALID", r.text)
        server.kill()
        server.wait()
        r = self.load("--server-url", url, "--scenario", "server", "--accuracy", "--max-samples",
                      "4", code=5)
        self.assertIn("4 of 4 samples failed", r.errors)

    # ---- rows without LoadGen ----

    def test_rows_with_answers(self):
        out = os.path.join(self.dir, "answers.jsonl")
        r = self.run_ok("run", "--input-tokens", self.data, "--max-tokens", "9", "--max-concurrency",
                        "4", "--pass-k", "2", "--output", out, "-t", "1", "--max-samples", "5")
        self.assertEqual(r.json()["rows"], 5)
        rows = [json.loads(x) for x in read(out).splitlines()]
        self.assertEqual(len(rows), 5)
        for have, row in zip(rows, self.rows):
            for key, value in row.items():
                self.assertEqual(have[key], value)
            self.assertEqual(list(have)[len(row):],
                             [f"{c}_{k}" for k in (0, 1) for c in
                              ("model_output", "tok_model_output", "tok_model_output_len",
                               "infer_time")])
            self.assertEqual(have["tok_model_output_0"], have["tok_model_output_1"])  # top-k 1
            self.assertEqual(have["tok_model_output_len_0"], 9)
            self.assertGreater(have["infer_time_1"], 0)
            self.assertNotIn("<|", have["model_output_0"])
        again = self.run_ok("run", "--input-tokens", out, "--max-tokens", "9", "--output", out, "-t",
                            "1")
        self.assertEqual(again.json()["rows"], 5)
        self.assertEqual([list(json.loads(x)) for x in read(out).splitlines()], [
            [k for k in r if not k.endswith("_0")] + [k for k in r if k.endswith("_0")]
            for r in rows])

    # ---- accuracy and compliance ----

    def test_accuracy_reads_the_log(self):
        self.load("--accuracy", "--temperature", "0")
        log = os.path.join(self.out, "offline", "accuracy", "mlperf_log_accuracy.json")
        js = os.path.join(self.dir, "score.json")
        args = ["accuracy", "--reference-data", self.data, "-m", "tiny"]
        r = self.run_ok(*args, "--mlperf-log", log, "--skip-lcb", "--output-file", js)
        score = json.loads(read(js))
        summary = score["summary"]
        self.assertEqual(summary["total_samples"], 16)
        self.assertEqual(summary["dataset_repeats"],
                         {"aime25": 8, "gpqa_diamond": 5, "livecodebench_v6": 3})
        self.assertEqual(len(score["detailed_results"]), 24)
        self.assertEqual(summary["per_dataset"]["livecodebench_v6"]["skipped"], 8)
        self.assertAlmostEqual(summary["max_score"], 8 / 5 + 8 / 8)
        self.assertRegex(r.text, r"\n'exact_match': \d+\.\d{3}\n")
        # The same entries one a line, or one behind another.
        entries = [json.dumps(x) for x in self.log("offline", "accuracy")]
        for text in ("\n".join(entries) + "\n", "".join(entries)):
            other = self.run_ok(*args, "--mlperf-log", self.write("log2", text), "--skip-lcb")
            self.assertEqual(other.out, r.out)
        cut = self.run_ok(*args, "--mlperf-log", self.write("log3", entries[0] + entries[1][:-30]),
                          "--skip-lcb", code=1)
        self.assertIn("entry 2: it is cut", cut.errors)
        short = self.write("short.jsonl", json.dumps(self.rows[0]) + "\n")
        r = self.run_ok("accuracy", "--reference-data", short, "--mlperf-log", log, "--skip-lcb",
                        code=1)
        self.assertIn("--reference-data", r.errors)

    def test_score(self):
        """The weighted score of known answers."""
        lines = []
        text = {"A": "answer: A", "5": "\\boxed{5}"}
        rows = [("gpqa_diamond", "A", "A"), ("gpqa_diamond", "B", "A"), ("aime25", 5, "5"),
                ("aime25", "05", "5"), ("aime25", 5.0, "5"), ("aime25", "6", "5"), ("mmlu", "a", "A")]
        ref = "".join(json.dumps({"dataset": d, "ground_truth": t}) + "\n" for d, t, _ in rows)
        for i, (_, _, a) in enumerate(rows):
            ids = gloss("tokenize", text[a]).json()
            data = b"".join(t.to_bytes(4, "little") for t in ids).hex()
            lines.append(json.dumps({"seq_id": i, "qsl_idx": i, "data": data}))
        js = os.path.join(self.dir, "s.json")
        self.run_ok("accuracy", "--mlperf-log", self.write("l", "\n".join(lines)),
                    "--reference-data", self.write("r", ref), "--output-file", js)
        s = json.loads(read(js))["summary"]
        self.assertEqual((s["total_correct"], s["total_samples"]), (5, 7))
        self.assertAlmostEqual(s["final_score"], 1 / 5 + 3 / 8 + 1)
        self.assertAlmostEqual(s["max_score"], 2 / 5 + 4 / 8 + 1)
        self.assertAlmostEqual(s["final_score_percentage"], 100 * (1 / 5 + 3 / 8 + 1) / 1.9)
        self.assertEqual(s["per_dataset"]["aime25"]["correct"], 3)

    def test_programs_need_a_grader(self):
        ids = gloss("tokenize", "```python\nx\n```").json()
        data = b"".join(t.to_bytes(4, "little") for t in ids).hex()
        args = ["accuracy", "--reference-data",
                self.write("r", '{"dataset":"LiveCodeBench_v6","ground_truth":"q1"}\n'),
                "--mlperf-log", self.write("l", json.dumps({"qsl_idx": 0, "data": data}))]
        r = self.run_ok(*args, code=1)
        self.assertIn("1 programs need a grader", r.errors)
        for command, why in (("false", "failed with status 1"), ("cat > /dev/null", "judged 0 of 1"),
                             ("echo yes", "line 1 of the grader"), ("echo '{}'", "line 1 of")):
            r = self.run_ok(*args, "--lcb-grader", command, code=1)
            self.assertIn(why, r.errors)
        r = self.run_ok(*args, "--lcb-grader", """grep -q '"code":"x"' && echo '{"passed":true}'""")
        self.assertIn("'exact_match': 100.000", r.text)

    def test_test07(self):
        audit = os.path.join(self.dir, "audit.config")  # where LoadGen looks by default
        self.run_ok("compliance", "TEST07", "--write-audit-config", audit, "--samples", "24")
        self.load()
        folder = os.path.join(self.out, "offline", "performance")
        self.assertEqual(sorted(x["qsl_idx"] for x in self.log("offline", "performance")),
                         list(range(24)))
        to = os.path.join(self.dir, "c")
        args = ["compliance", "TEST07", "-c", folder, "-o", to, "--reference-data", self.data,
                "--skip-lcb", "-m", "tiny"]
        r = self.run_ok(*args, "--audit-config", audit, code=1)
        self.assertIn("Accuracy threshold: 60.698\n", r.text)
        self.assertTrue(r.text.endswith("Accuracy check pass: False\nTEST FAIL\n"))
        r = self.run_ok(*args, "--accuracy-threshold", "0")
        self.assertTrue(r.text.endswith("Accuracy check pass: True\nTEST PASS\n"))
        self.assertEqual(read(to, "TEST07", "verify_accuracy.txt"), r.text)
        for name in ("accuracy/mlperf_log_accuracy.json", "performance/run_1/mlperf_log_summary.txt",
                     "performance/run_1/mlperf_log_detail.txt"):
            self.assertEqual(read(to, "TEST07", name), read(folder, os.path.basename(name)))

    def test_test09(self):
        audit = os.path.join(self.dir, "a09")
        self.run_ok("compliance", "TEST09", "--write-audit-config", audit, "--samples", "24")
        self.load("--audit-config", audit)
        folder = os.path.join(self.out, "offline", "performance")
        to = os.path.join(self.dir, "c")
        args = ["compliance", "TEST09", "--compliance_dir", folder, "--output_dir", to]
        r = self.run_ok(*args, "--audit-config", audit, code=1)
        self.assertIn("Min threshold: 1150.38\nMax threshold: 1406.02\nMin check pass: False\n",
                      r.text)
        r = self.run_ok(*args, "--min-output-tokens", "6", "--max-output-tokens", "6")
        self.assertIn("Total samples: 24\nMean output tokens: 6.00\nMin output tokens: 6\n"
                      "Max output tokens: 6\nStd deviation: 0.00\n", r.text)
        self.assertTrue(r.text.endswith("\nTEST PASS\n"))
        self.assertEqual(read(to, "TEST09", "verify_output_len.txt"), r.text)

    def test_official_audit_configs(self):
        for test, n, logged in (("TEST07", 990, 990), ("TEST09", 6396, 10000)):
            path = os.path.join(self.dir, test)
            self.run_ok("compliance", test, "--write-audit-config", path)
            keys = dict(re.findall(r"^\*\.\*\.(\S+) = (\S+)$", read(path), re.M))
            common = {"mode": "2", "accuracy_log_rng_seed": "720381539243781796",
                      "accuracy_log_sampling_target": str(logged), "min_query_count": str(n),
                      "min_duration": "0", "performance_issue_unique": "1",
                      "sample_concatenate_permutation": "0"}
            limits = {"TEST07": {"test07_accuracy_threshold": "60.698"},
                      "TEST09": {"test09_min_output_tokens": "1150.38",
                                 "test09_max_output_tokens": "1406.02"}}[test]
            self.assertEqual(keys, {**common, **limits})

    # ---- harmonize ----

    def test_harmonize(self):
        """Byte-stable for any number of threads, and what openai-harmony renders."""
        sets = ["math500", "aime1983", "gpqa", "mmlu_pro", "livecodebench", "aime25"]
        rows = [{"dataset": d, "question": f"{i}: <|end|> \u00e9 \u2028 of {d}", "ground_truth": i}
                for i, d in enumerate(sets * 5)]
        rows += [{"question": "no data set"},
                 {"dataset": "healthbench", "prompt": [{"role": "user", "content": "hi"},
                                                       {"role": "assistant", "content": "hello"},
                                                       {"role": "user", "content": "more"}]}]
        data = self.write("q.jsonl", "".join(json.dumps(r) + "\n" for r in rows))
        texts = []
        for n in ("1", "2", "7"):
            out = os.path.join(self.dir, "p" + n)
            self.run_ok("harmonize", "--data-file", data, "--output-file", out, "--num-processes", n)
            texts.append(read(out))
        self.assertEqual(texts[0], texts[1])
        self.assertEqual(texts[0], texts[2])
        os.environ["TIKTOKEN_ENCODINGS_BASE"] = os.path.abspath("assets/o200k")
        import openai_harmony as oh
        enc = oh.load_harmony_encoding(oh.HarmonyEncodingName.HARMONY_GPT_OSS)
        profiles = json.loads(read("src/mlperf/profiles.json"))
        message = oh.Message.from_role_and_content
        for line, row in zip(texts[0].strip().split("\n"), rows):
            have = json.loads(line)
            name = max((k for k in profiles if row.get("dataset", "default").startswith(k)), key=len)
            system = (oh.SystemContent.new()
                      .with_reasoning_effort(oh.ReasoningEffort.HIGH)
                      .with_conversation_start_date("2025-09-30")
                      .with_required_channels(["analysis", "commentary", "final"]))
            developer = oh.DeveloperContent.new().with_instructions(profiles[name]["instructions"])
            talk = [message(oh.Role.SYSTEM, system), message(oh.Role.DEVELOPER, developer)]
            for ask, say in profiles[name]["shots"]:
                talk += [message(oh.Role.USER, ask),
                         message(oh.Role.ASSISTANT, say).with_channel("final")]
            turns = row.get("prompt") or [{"role": "user", "content": row["question"]}]
            talk += [message(oh.Role(t["role"]), t["content"]) for t in turns]
            want = enc.render_conversation_for_completion(oh.Conversation.from_messages(talk),
                                                          oh.Role.ASSISTANT)
            self.assertEqual(have["tok_input"], want)
            self.assertEqual(have["tok_input_len"], len(want))
            self.assertEqual(have["text_input"], enc.decode(want))
            self.assertEqual(list(have), list(row) + ["tok_input", "tok_input_len", "text_input"])

    def test_harmonize_options(self):
        data = self.write("q.jsonl", '{"dataset":"x","question":"Q"}\n{"dataset":"y","question":"R"}\n')
        out = os.path.join(self.dir, "o")
        r = self.run_ok("harmonize", "--data-file", data, "--output-file", out, code=1)
        self.assertIn("line 1: no profile for the data set 'x'", r.errors)
        self.assertFalse(os.path.exists(out))
        own = self.write("p.json", '{"y":{"instructions":"Be kind.","shots":[["a","b"]]}}')
        self.run_ok("harmonize", "--data-file", data, "--output-file", out, "--profiles", own,
                    "--dataset", "y", "--reasoning-effort", "low", "--date", "2026-01-02")
        row = json.loads(read(out))
        for part in ("Be kind.", "Reasoning: low", "Current date: 2026-01-02",
                     "<|channel|>final<|message|>b<|end|>", "<|message|>R<|end|>"):
            self.assertIn(part, row["text_input"])

    # ---- wrong input ----

    def test_errors(self):
        def fails(code, text, *args):
            r = self.run_ok(*args, code=code)
            self.assertIn(text, r.errors)
            self.assertEqual(r.errors.count("\n"), 1)
        fails(2, "--input-file", "run")
        fails(2, "--input-file", "run", "--input-file", "a", "--input-tokens", "b")
        fails(3, "none.jsonl", "run", "--input-file", "none.jsonl")
        for text, why in (('{"question":"x"}\n', "line 1: no token ids"),
                          ("\n[1]\n", "line 2: not a JSON object"),
                          ('{"tok_input":[1,-2]}\n', "token id 1 is not"),
                          ('{"tok_input":[]}\n', "must be a list that is not empty"),
                          ('{"tok_input":[99999]}\n', "not in the vocabulary"), ("", "no rows")):
            fails(1, why, "run", "--input-tokens", self.write("bad.jsonl", text))
        fails(2, "TEST07 or TEST09", "compliance", "TEST01")
        fails(2, "--compliance-dir", "compliance", "TEST09")
        fails(1, "no rule for the data set 'other'", "accuracy", "--reference-data",
              self.write("r", '{"dataset":"other"}\n'), "--mlperf-log",
              self.write("l", '[{"qsl_idx":0,"data":"00000000"}]'))


if __name__ == "__main__":
    if not os.path.exists(os.path.join(os.path.dirname(os.environ["GLOSS"]), "libgloss-loadgen.so")):
        print("LoadGen was not built (scripts/deps.sh mlperf)")
        sys.exit(1)
    unittest.main()
