"""lm-eval itself and gloss eval on the same documents and the same server: equal, item by item.

lm-eval's own task files are used (gsm8k, mmlu), only their data come from examples/eval. Two
servers: gloss serve with the tiny model, for real log-likelihoods and generations; and a server
that answers by the question, some right, some wrong, some malformed, so that scores differ.
"""

import glob
import http.server
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import threading
import unittest

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
cache = tempfile.TemporaryDirectory()
os.environ["HF_HOME"] = cache.name

import lm_eval  # noqa: E402
import lm_eval.tasks  # noqa: E402
import pyarrow.parquet  # noqa: E402
from serve_util import GLOSS, Server  # noqa: E402

DATA = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", "examples", "eval"))
TASKS = os.path.dirname(lm_eval.tasks.__file__)
logging.disable(logging.WARNING)


def data(name):
    return os.path.join(DATA, name)


class Answers(http.server.ThreadingHTTPServer):
    """Chat answers that depend on nothing but the last question of the prompt."""
    TEXTS = ("So 3 * 4 = 12, less 5.\n#### 7", "It is 180 miles.", "#### $2,500.", "Perhaps 9",
             "#### 5 pieces\nQuestion: more?", "no number at all")

    def __init__(self):
        super().__init__(("127.0.0.1", 0), AnswersHandler)
        with open(data("gsm8k.jsonl")) as f:
            self.table = [(json.loads(x)["question"], t) for x, t in zip(f, self.TEXTS)]
        self.prompts = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class AnswersHandler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][-1]["content"]
        self.server.prompts.append(prompt)
        text = next(t for q, t in self.server.table if q in prompt.split("Question:")[-1])
        for stop in body.get("stop", []):
            text = text.split(stop)[0]
        out = json.dumps({"choices": [{"index": 0, "finish_reason": "stop",
                                       "message": {"role": "assistant", "content": text}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(out)))
        self.end_headers()
        self.wfile.write(out)


class LmEval(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = folder.name

    def task(self, name, include, text):
        """A task of lm-eval on our data. JSON is YAML."""
        with open(os.path.join(self.dir, name + ".yaml"), "w") as f:
            f.write(f"include: {TASKS}/{include}\ntask: {name}\ndataset_path: json\n"
                    "dataset_name: null\n" + text)

    def theirs(self, names, model, args, **kw):
        manager = lm_eval.tasks.TaskManager(include_path=self.dir, include_defaults=False)
        return lm_eval.simple_evaluate(model=model, model_args=args, tasks=names, log_samples=True,
                                       task_manager=manager, bootstrap_iters=0, **kw)

    def ours(self, task, file, *args):
        out = os.path.join(self.dir, "out")
        done = subprocess.run([GLOSS, "eval", task, "--data", file, "--json", "--out-dir", out,
                               "--no-resume", *args], capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        samples = []
        for path in sorted(glob.glob(out + "/*/samples_*.jsonl")):
            with open(path) as f:
                samples += [json.loads(x) for x in f]
            os.remove(path)
        return json.loads(done.stdout)[0], samples

    def gsm8k(self):
        self.task("gsm8k_here", "gsm8k/gsm8k.yaml", "dataset_kwargs:\n  data_files:\n"
                  f"    train: {data('gsm8k_train.jsonl')}\n    test: {data('gsm8k.jsonl')}\n")

    def compare_gsm8k(self, url, model):
        self.gsm8k()
        theirs = self.theirs(["gsm8k_here"], "local-chat-completions",
                             {"model": model, "base_url": url + "/chat/completions"},
                             apply_chat_template=True, fewshot_as_multiturn=False,
                             gen_kwargs="max_gen_toks=48")
        mine, samples = self.ours("gsm8k", data("gsm8k.jsonl"), "--fewshot-data",
                                  data("gsm8k_train.jsonl"), "--fewshot-random", "-n", "48",
                                  "--base-url", url, "-m", model)
        for kind in ("strict-match", "flexible-extract"):
            a = {s["doc_id"]: s for s in theirs["samples"]["gsm8k_here"] if s["filter"] == kind}
            b = {s["doc_id"]: s for s in samples if s["filter"] == kind}
            self.assertEqual((sorted(a), len(b)), (sorted(b), 6))
            for i in a:
                self.assertEqual(a[i]["resps"][0], b[i]["resps"][0])
                self.assertEqual(a[i]["filtered_resps"], b[i]["filtered_resps"])
                self.assertEqual(a[i]["exact_match"], b[i]["exact_match"])
            name = f"exact_match,{kind}"
            self.assertAlmostEqual(theirs["results"]["gsm8k_here"][name], mine["metrics"][name])
        return mine["metrics"]

    def test_gsm8k_of_answers(self):
        s = Answers()
        self.addCleanup(s.server_close)
        self.addCleanup(s.shutdown)
        metrics = self.compare_gsm8k(s.url, "any")
        self.assertEqual(metrics, {"exact_match,flexible-extract": 4 / 6,
                                   "exact_match,strict-match": 2 / 6})
        n = len(s.prompts) // 2  # the same prompts, examples drawn alike, in whatever order
        self.assertEqual(sorted(s.prompts[:n]), sorted(s.prompts[n:]))

    def test_parquet(self):
        """scripts/convert_dataset.py, with the pyarrow that lm-eval brings along."""
        with open(data("mmlu.jsonl")) as f:
            rows = [json.loads(x) for x in f]
        one, two, out = (os.path.join(self.dir, x) for x in ("1.parquet", "2.parquet", "x.jsonl"))
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows[:5]), one)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows[5:]), two)
        script = os.path.join(os.path.dirname(__file__), "..", "..", "scripts", "convert_dataset.py")
        subprocess.run([sys.executable, script, one, two, out], check=True, capture_output=True)
        with open(out) as f:
            self.assertEqual([json.loads(x) for x in f], rows)

    def test_gsm8k_of_gloss(self):
        with Server() as s:
            self.compare_gsm8k(s.url + "/v1", "tiny")

    def test_mmlu_of_gloss(self):
        names = []
        for subject in ("arithmetic", "everyday_science"):
            for kind in ("mmlu", "mmlu_dev"):
                with open(data(kind + ".jsonl")) as f, \
                        open(os.path.join(self.dir, f"{kind}_{subject}.jsonl"), "w") as out:
                    out.writelines(x for x in f if json.loads(x)["subject"] == subject)
            names.append("mmlu_" + subject + "_here")
            about = f"The following are multiple choice questions (with answers) about {subject}."
            self.task(names[-1], "mmlu/default/_default_template_yaml",
                      f"description: {json.dumps(about.replace('_', ' ') + chr(10) * 2)}\n"
                      f"dataset_kwargs:\n  data_files:\n    dev: {self.dir}/mmlu_dev_{subject}.jsonl\n"
                      f"    test: {self.dir}/mmlu_{subject}.jsonl\n")
        with Server() as s:
            theirs = self.theirs(names, "local-completions",
                                 {"model": "tiny", "base_url": s.url + "/v1/completions",
                                  "tokenizer_backend": "remote", "max_length": 2048}, num_fewshot=2)
            mine, samples = self.ours("mmlu", data("mmlu.jsonl"), "--fewshot-data",
                                      data("mmlu_dev.jsonl"), "--num-fewshot", "2",
                                      "--no-lm-final-prefix", "-m", "tiny")
        right = 0
        for name, mine_of in zip(names, (samples[:4], samples[4:])):
            a = sorted(theirs["samples"][name], key=lambda x: x["doc_id"])
            self.assertEqual(len(a), 4)
            for x, y in zip(a, mine_of):
                self.assertEqual(x["doc"]["question"], y["doc"]["question"])
                for i in range(4):
                    self.assertEqual(list(x["arguments"][i]) if isinstance(x["arguments"], list)
                                     else list(x["arguments"][f"gen_args_{i}"].values()),
                                     list(y["arguments"][f"gen_args_{i}"].values()))
                for (p,), (q,) in zip(x["resps"], y["resps"]):
                    self.assertAlmostEqual(float(p[0]), q[0], places=5)
                    self.assertEqual(str(p[1]), str(q[1]))
                self.assertEqual(x["acc"], y["acc"])
                right += x["acc"]
            metric = theirs["results"][name]["acc,none"]
            subject = re.sub("^mmlu_|_here$", "", name)
            self.assertAlmostEqual(metric, mine["groups"][subject]["score"])
        self.assertAlmostEqual(mine["score"], right / 8)


if __name__ == "__main__":
    unittest.main()
