"""gloss bench latency, memory, energy, ablation, serve, unify, ape, governance, study; gloss report.

Columns are compared with the study's contract, written out here; numbers with what is known: a
scripted model with known pauses, a card with known power, the model's own bytes. Times have exact
lower bounds; the upper ones may need another attempt on a busy machine."""

import csv
import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../serve"))

from cli_util import BASE, GLOSS, Case, main  # noqa: E402
from serve_util import Server  # noqa: E402

LATENCY = ("model model_type prompt_tokens gen_tokens TTFT_ms p50_ms p95_ms p99_ms TPOT_tokps").split()
MEMORY = ("model device_name context_length gen_tokens total_tokens baseline_alloc_mb "
          "baseline_reserved_mb after_tokenize_alloc_mb after_tokenize_reserved_mb "
          "after_generate_alloc_mb after_generate_reserved_mb peak_alloc_mb peak_reserved_mb "
          "tokenize_delta_alloc_mb generate_delta_alloc_mb total_delta_alloc_mb kv_cache_alloc_mb "
          "kv_cache_reserved_mb memory_per_token_alloc_mb memory_per_token_reserved_mb "
          "util_after_percent_alloc util_peak_percent_alloc util_peak_percent_reserved "
          "total_gpu_memory_mb").split()
ENERGY = ("model device gpu_index context_length gen_tokens num_runs ttft_ms ttft_joules "
          "decode_tokens_per_second total_tokens_per_second avg_gpu_power_watts "
          "baseline_gpu_power_watts avg_gpu_utilization_percent avg_memory_utilization_percent "
          "baseline_gpu_utilization_percent baseline_memory_utilization_percent "
          "energy_per_decoded_token_joules energy_per_1k_decoded_tokens_joules "
          "energy_per_total_token_joules").split()
UNIFIED_LATENCY = ["model_short"] + LATENCY + ["context_length", "ttft_ms"]
UNIFIED_MEMORY = ["model_short"] + MEMORY + ["peak_memory_mb", "memory_efficiency"]
UNIFIED_ENERGY = ("model_short model context_length gen_tokens ttft_ms ttft_joules "
                  "decode_tokens_per_second total_tokens_per_second avg_gpu_power_watts "
                  "baseline_gpu_power_watts avg_gpu_utilization_percent "
                  "avg_memory_utilization_percent energy_per_decoded_token_joules "
                  "energy_per_1k_decoded_tokens_joules energy_per_total_token_joules "
                  "tokens_per_watt energy_per_1k_joules TPOT_tokps").split()
APE = ("model_id model_name architecture organization context_length total_params_B active_params_B "
       "ttft_ms tpot_tokps peak_memory_GB energy_per_1k_joules tokens_per_watt "
       "throughput_per_activeB_tokps_per_B inv_ttft_per_activeB_tokps_per_B "
       "tokens_per_watt_per_activeB tokens_per_GB_tokps_per_GB").split()
RUNS = ["max_new_tokens", "mean_new_tokens", "mean_time_s", "mean_tokps", "model",
        "p50_new_tokens", "p50_time_s", "p50_tokps", "p95_time_s", "p95_tokps", "runs",
        "throughput_scope"]
ABLATIONS = {"decoding_parameters": ["decoding_method"], "quantization_effects": ["precision", "error"],
             "context_scaling": ["target_context_length", "measured_context_tokens"],
             "server_comparison": ["framework", "error"]}
OVERVIEW = ("id name organization license license_class usage_policy governance release_date "
            "model_card sources.license sources.usage_policy sources.model_card "
            "sources.governance").split()
VLLM = ("date endpoint_type backend label model_id tokenizer_id num_prompts request_rate burstiness "
        "max_concurrency duration completed failed total_input_tokens total_output_tokens "
        "request_throughput request_goodput output_throughput total_token_throughput "
        "max_output_tokens_per_s max_concurrent_requests input_lens output_lens ttfts itls "
        "generated_texts errors").split()
MB = 1 << 20
FAKE = os.path.join(os.environ["GLOSS_BUILD"], "tests", "fake")


def rows(text):
    """CSV text (or the path of a file) as its header and a list of dicts; numbers as floats."""
    if isinstance(text, str) and "\n" not in text:
        with open(text, newline="") as f:
            text = f.read()
    table = list(csv.reader(io.StringIO(text)))

    def value(s):
        try:
            return float(s)
        except ValueError:
            return s
    return table[0], [dict(zip(table[0], map(value, r))) for r in table[1:]]


def linear(values, q):
    """The usual percentile: between the two nearest values."""
    v = sorted(values)
    at = q * (len(v) - 1)
    low = int(at)
    return v[low] + (at - low) * (v[min(low + 1, len(v) - 1)] - v[low])


class Study(Case):
    def table(self, *args, **kw):
        return rows(self.ok("bench", *args, **kw).text)

    def script(self, lines):
        return self.write("script.jsonl", "".join(json.dumps(v) + "\n" for v in lines))

    def attempts(self, check, n=4):
        """`check` must succeed once."""
        for i in range(n):
            try:
                return check()
            except AssertionError:
                if i == n - 1:
                    raise

    def near(self, got, want):
        """Within 2 % above; never below what the pauses alone take (rounding aside)."""
        self.assertGreaterEqual(got, want * 0.999)
        self.assertLessEqual(got, want * 1.02)

    def around(self, got, want):
        """Within 2 % on both sides: a gap whose beginning came late is shorter."""
        self.assertAlmostEqual(got, want, delta=0.02 * want)

    def rate_near(self, got, want):
        self.assertLessEqual(got, want * 1.001)
        self.assertGreaterEqual(got, want / 1.02)


class Latency(Study):
    def test_columns_and_counts(self):
        head, r = self.table("latency", "--prompt_tokens", "40,130", "--gen_tokens", "5,9",
                             "--num_requests", "2")
        self.assertEqual(head, LATENCY)
        self.assertEqual([(v["prompt_tokens"], v["gen_tokens"]) for v in r],
                         [(40, 5), (40, 9), (130, 5), (130, 9)])
        for v in r:
            self.assertEqual((v["model"], v["model_type"]), ("tiny", "chat_template"))
            self.assertTrue(0 < v["TTFT_ms"] and 0 < v["p50_ms"] <= v["p95_ms"] <= v["p99_ms"])
        same, again = rows(self.ok("benchmark_latency_universal", "--model", "tiny",
                                   "--prompt-tokens", "16", "--gen-tokens", "3", "--num-requests",
                                   "1", "--output", self.path("l.csv"), "--name", "org/Name").text
                           or self.path("l.csv"))
        self.assertEqual(same, LATENCY)
        self.assertEqual(again[0]["model"], "org/Name")

    def test_known_pauses(self):
        """Five requests of four tokens, 20 to 100 ms a token; the first token alone 100 ms."""
        def line(ms):
            return {"tokens": [11, 12, 13, 14, 15], "delay_ms": ms}
        path = self.script([line(1)] + [line(ms) for ms in (60, 20, 100, 40, 80)] + [line(100)] * 5)

        def check():
            head, r = self.table("latency", "--scripted", path, "--prompt-tokens", "64",
                                 "--gen-tokens", "4", "--num-requests", "5", "--extended", "-q")
            v = r[0]
            self.assertEqual(head[:len(LATENCY)], LATENCY)
            self.assertEqual((v["mean_new_tokens"], v["requests"]), (4, 5))
            self.near(v["TTFT_ms"], 100)
            self.near(v["p50_ms"], 240)
            self.near(v["p95_ms"], 400)  # ceil(0.95 * 4) = 4: the last
            self.near(v["p99_ms"], 400)
            self.rate_near(v["TPOT_tokps"], 4 / 0.240)
            self.near(v["std_p95_ms"], 320 + 0.8 * 80)
            self.near(v["mean_ms"], 240)
            self.near(v["min_ms"], 80)
            self.around(v["tpot_ms"], 60)
            self.around(v["decode_only_tokps"], 1 / 0.060)
            self.near(v["ttft_first_token_ms"], 60)
        self.attempts(check)

    def test_when_thinking_and_answering_begin(self):
        text = "<|channel|>analysis<|message|>12<|end|><|start|>assistant<|channel|>final<|message|>7"
        n = len(json.loads(self.ok("tokenize", "-m", "tiny", "--special", "allow", text).out))
        head = len(json.loads(self.ok("tokenize", "-m", "tiny", "--special", "allow",
                                      "<|channel|>analysis<|message|>").out))
        path = self.script([{"text": text, "delay_ms": 30}])

        def check():
            v = self.table("latency", "--scripted", path, "--prompt-tokens", "128", "--gen-tokens",
                           str(n), "--num-requests", "2", "--extended", "-q")[1][0]
            self.near(v["ttft_first_token_ms"], 30)
            self.near(v["ttft_first_reasoning_ms"], 30 * (head + 1))
            self.near(v["ttft_first_final_ms"], 30 * n)
        self.attempts(check)

    def test_stopped_and_gone_on(self):
        path = self.script([{"tokens": list(range(20)), "delay_ms": 12}])
        out = self.path("slow.csv")
        args = ["bench", "latency", "--scripted", path, "--prompt-tokens", "20,21,22",
                "--gen-tokens", "6", "--num-requests", "3", "--output", out]
        p = subprocess.Popen([GLOSS, *args], env=BASE, stderr=subprocess.PIPE)
        for _ in range(1000):
            if os.path.exists(out + ".part") and self.read("slow.csv.part").count(b"\n") >= 3:
                break
            time.sleep(0.01)
        p.send_signal(signal.SIGINT)
        p.communicate(timeout=30)
        self.assertEqual(p.returncode, 130)
        self.assertFalse(os.path.exists(out))
        kept = self.read("slow.csv.part").splitlines()[2:]
        self.assertTrue(1 <= len(kept) < 3)
        r = self.ok(*args)
        self.assertIn("finished rows", r.errors)
        self.assertFalse(os.path.exists(out + ".part"))
        lines = self.read("slow.csv").splitlines()
        self.assertEqual(len(lines), 4)
        self.assertEqual(lines[1:1 + len(kept)], kept)

    def test_refusals(self):
        self.fails(2, "bench", "latency", "--prompt-tokens", "12,x", says="--prompt-tokens '12,x'")
        self.fails(2, "bench", "latency", "--gen-tokens", "0", says="numbers from 1")
        self.fails(3, "bench", "latency", "-m", "nowhere", says="nowhere")
        self.fails(3, "report", self.path("none"), says="holds no results")
        self.fails(3, "bench", "unify", self.dir, says="no tables")
        self.fails(2, "bench", "study", "--parts", "latency,speed", says="--parts")
        self.fails(2, "bench", "ablation", "--tests", "all,more", says="--tests")
        self.fails(5, "bench", "serve", "--base-url", "http://127.0.0.1:9/v1", "-q",
                   "--concurrency", "1", "--prompt-tokens", "8", "--gen-tokens", "2",
                   says="127.0.0.1")


class Memory(Study):
    def test_equal_to_the_allocators(self):
        info = self.ok("info", "--json").json()
        kv = info["kv_bytes_per_token"]
        head, r = self.table("memory", "--context_lengths", "100,300,700", "--gen_tokens", "30")
        self.assertEqual(head[:len(MEMORY)], MEMORY)
        for v, n in zip(r, (100, 300, 700)):
            self.assertEqual(v["context_length"], n)
            self.assertEqual(v["total_tokens"], n + 30)
            self.assertAlmostEqual(v["weights_mb"] * MB, info["bytes"]["total"], delta=1)
            # the last token is never fed back: its keys are not kept
            pages = math.ceil((n + 30 - 1) / 32)
            full = pages * 32 * kv["full_layers"]
            window = v["kv_pages_mb"] * MB - full
            page = 32 * kv["window_layers"]
            self.assertAlmostEqual(window / page, round(window / page), places=6)
            self.assertTrue(info["shape"]["window"] / 32 <= window / page <= pages or n == 100)
            self.assertAlmostEqual(v["kv_exact_mb"] * MB, kv["full_layers"] * (n + 30) +
                                   kv["window_layers"] * min(128, n + 30), delta=1)
            fixed = v["weights_mb"] + v["work_mb"]
            self.assertAlmostEqual(v["baseline_alloc_mb"], fixed)
            self.assertAlmostEqual(v["after_tokenize_alloc_mb"], fixed)
            self.assertAlmostEqual(v["baseline_reserved_mb"], fixed + v["kv_pool_mb"])
            self.assertAlmostEqual(v["peak_alloc_mb"], fixed + v["kv_pages_mb"])
            self.assertAlmostEqual(v["kv_cache_alloc_mb"], v["kv_pages_mb"])
            self.assertAlmostEqual(v["memory_per_token_alloc_mb"], v["kv_pages_mb"] / (n + 30))
            self.assertTrue(fixed < v["after_generate_alloc_mb"] <= v["peak_alloc_mb"])
            self.assertLessEqual(v["kv_pages_mb"], v["kv_pool_mb"])
            self.assertAlmostEqual(v["util_peak_percent_alloc"],
                                   100 * v["peak_alloc_mb"] / v["total_gpu_memory_mb"])
            self.assertGreater(v["process_peak_rss_mb"], v["kv_pages_mb"])
            self.assertEqual(v["device_used_mb"], "")


class Energy(Study):
    def test_a_card_of_known_power(self):
        env = {"LD_LIBRARY_PATH": FAKE, "FAKE_NVML_MW": "300000"}
        zone = self.path("powercap", "intel-rapl:0")
        os.makedirs(zone)
        for name, text in (("name", "package-0"), ("max_energy_range_uj", "900000"),
                           ("energy_uj", "000000")):
            with open(os.path.join(zone, name), "w") as f:
                f.write(text + "\n")
        stop = threading.Event()

        def burn():
            """50 W, wrapping every 18 ms' worth of it."""
            fd = os.open(os.path.join(zone, "energy_uj"), os.O_WRONLY)
            while not stop.wait(0.002):
                os.pwrite(fd, b"%06d" % (int(time.monotonic() * 50e6) % 900000), 0)
            os.close(fd)
        burner = threading.Thread(target=burn)
        burner.start()
        try:
            head, r = self.table("energy", "--context_lengths", "20,50", "--gen_tokens", "8",
                                 "--num_runs", "3", "--power_poll_hz", "200", "--min-seconds", "0.3",
                                 "--gpu-index", "0", "--powercap", self.path("powercap"), env=env)
        finally:
            stop.set()
            burner.join()
        self.assertEqual(head[:len(ENERGY)], ENERGY)
        for v, n in zip(r, (20, 50)):
            self.assertEqual((v["gpu_index"], v["context_length"], v["gen_tokens"]), (0, n, 8))
            self.assertGreaterEqual(v["num_runs"], 3)
            self.assertAlmostEqual(v["avg_gpu_power_watts"], 300)
            self.assertEqual(v["baseline_gpu_power_watts"], 300)
            self.assertAlmostEqual(v["avg_gpu_utilization_percent"], 73)
            self.assertAlmostEqual(v["avg_memory_utilization_percent"], 41)
            self.assertAlmostEqual(v["ttft_joules"], 0.3 * v["ttft_ms"], places=6)
            per_token = 300 / v["decode_tokens_per_second"]
            self.assertAlmostEqual(v["energy_per_decoded_token_joules"] / per_token, 1, places=6)
            self.assertAlmostEqual(v["energy_per_1k_decoded_tokens_joules"] / per_token, 1e3, places=3)
            self.assertAlmostEqual(v["energy_per_total_token_joules"] * (n + 8), per_token * 8,
                                   places=6)
            self.assertAlmostEqual(v["total_tokens_per_second"] / v["decode_tokens_per_second"],
                                   (n + 8) / 8)
            self.assertAlmostEqual(v["wh_per_1k_decoded_tokens"], per_token / 3.6, places=6)
            self.assertAlmostEqual(v["gpu_sampled_joules"], 300 * v["span_seconds"], places=3)
            self.assertAlmostEqual(v["counter_to_sampled_ratio"], 1, delta=0.05)
            self.assertEqual(v["power_source"], "nvml+rapl")
            self.assertGreater(v["power_samples"], 2)
            self.assertGreater(v["cpu_joules"], 0)

    def test_no_source_no_number(self):
        head, r = self.table("energy", "--context-lengths", "20", "--gen-tokens",
                             "4", "--num-runs", "1", "--powercap", self.dir)
        v = r[0]
        self.assertEqual(v["power_source"], "none")
        for name in head:
            if "watt" in name or "joule" in name or "utilization" in name or name == "gpu_index":
                self.assertEqual(v[name], "", name)
        self.assertGreater(v["decode_tokens_per_second"], 0)


class Ablation(Study):
    def test_files(self):
        out = self.path("a")
        small = self.path("small")
        self.ok("synth", "--layers", "2", "--experts", "4", "--hidden", "64", "--intermediate", "64",
                "--heads", "4", "--kv-heads", "2", "--vocab", "300", "--out", small, "-q")
        self.ok("ablation_studies", "--model", small, "--name", "org/small", "--num_runs", "2",
                "--max_new_tokens", "4", "--context_lengths", "64,90", "--tests",
                "decoding,quantization,context", "--precisions", "mxfp4,bf16,fp32,q8",
                "--output_dir", out, "-q")
        self.check(out, "org_small", ["decoding_parameters", "quantization_effects",
                                      "context_scaling"])
        v = rows(f"{out}/ablation_quantization_effects_org_small.csv")[1]
        self.assertEqual([r["precision"] for r in v], ["mxfp4", "bf16", "fp32", "q8"])
        self.assertTrue(all(r["p50_tokps"] > 0 for r in v if r["error"] == ""))
        self.assertEqual([r["error"] for r in v][:3], ["", "", ""])
        self.assertFalse([n for n in os.listdir(out) if "checkpoint" in n])
        v = rows(f"{out}/ablation_context_scaling_org_small.csv")[1]
        self.assertEqual([(r["target_context_length"], r["measured_context_tokens"]) for r in v],
                         [(64, 64), (90, 90)])

    def test_servers_and_failures(self):
        out = self.path("b")
        self.ok("bench", "ablation", "--num-runs", "2", "--max-new-tokens", "4", "--tests",
                "server,quantization", "--precisions", "bf16", "--base-url", "http://127.0.0.1:9/v1",
                "--output-dir", out, "-q")
        self.check(out, "tiny", ["quantization_effects", "server_comparison"])
        v = rows(f"{out}/ablation_quantization_effects_tiny.csv")[1]
        self.assertIn("no files", v[0]["error"])
        v = rows(f"{out}/ablation_server_comparison_tiny.csv")[1]
        self.assertEqual([r["framework"] for r in v],
                         ["gloss", "gloss serve", "http://127.0.0.1:9/v1"])
        self.assertEqual([r["mean_new_tokens"] for r in v], [4, 4, ""])
        self.assertIn("127.0.0.1", v[2]["error"])

    def check(self, out, tag, names):
        with open(f"{out}/ablation_all_{tag}.json") as f:
            everything = json.load(f)
        self.assertEqual(list(everything), names)
        for name in names:
            head, r = rows(f"{out}/ablation_{name}_{tag}.csv")
            self.assertEqual(head, sorted(RUNS + ABLATIONS[name]))
            self.assertEqual(len(r), len(everything[name]))
            for v in r:
                if v.get("error", "") == "":
                    self.assertEqual((v["runs"], v["mean_new_tokens"], v["max_new_tokens"]), (2, 4, 4))


class Load(Study):
    def test_known_pauses(self):
        """Raw completions: the first token after 400 ms, then one each 60 ms."""
        path = self.script([{"text": "1 2 3 4 5 6", "first_delay_ms": 400, "delay_ms": 60}])
        n = 6

        def check():
            r = self.table("serve", "--scripted", path, "--endpoint", "completions",
                           "--concurrency", "1,4", "--prompt-tokens", "21", "--gen-tokens", str(n),
                           "--num-requests", "4", "-q", "--result-dir", self.path("v"))[1]
            for v, at_once in zip(r, (1, 4)):
                self.assertEqual((v["concurrency"], v["requests"], v["failed"]), (at_once, 4, 0))
                self.assertEqual((v["mean_prompt_tokens"], v["mean_output_tokens"]), (21, n))
                self.near(v["ttft_p50_ms"], 400)
                self.around(v["s_per_token_p50"], 0.060)
                self.around(v["itl_p50_ms"], 60)
                self.near(v["e2e_p50_ms"], 400 + 60 * (n - 1))
                self.rate_near(v["requests_per_s"], at_once / (0.400 + 0.060 * (n - 1)))
                self.rate_near(v["output_tokens_per_s"], n * at_once / (0.400 + 0.060 * (n - 1)))
            return r
        r = self.attempts(check)
        names = sorted(os.listdir(self.path("v")))
        self.assertEqual(names, [f"openai-infqps-concurrency{c}-in21-out{n}-tiny.json" for c in (1, 4)])
        for name, row, at_once in zip(names, r, (1, 4)):
            with open(self.path("v", name)) as f:
                v = json.load(f)
            metrics = [f"{s}_{m}_ms" for m in ("ttft", "tpot", "itl", "e2el")
                       for s in ("mean", "median", "std", "p99")]
            self.assertEqual(list(v), VLLM + metrics)
            self.assertEqual((v["completed"], v["total_input_tokens"], v["total_output_tokens"]),
                             (4, 84, 4 * n))
            self.assertEqual(v["max_concurrent_requests"], at_once)
            for key, values in (("ttft", v["ttfts"]), ("itl", sum(v["itls"], []))):
                for q in 50, 95, 99:
                    self.assertAlmostEqual(row[f"{key}_p{q}_ms"], 1e3 * linear(values, q / 100), places=4)
                self.assertAlmostEqual(v[f"p99_{key}_ms"], row[f"{key}_p99_ms"], places=6)
                self.assertAlmostEqual(v[f"mean_{key}_ms"], 1e3 * sum(values) / len(values), places=6)

    def test_reasoning_and_answer(self):
        text = "<|channel|>analysis<|message|>1 2 3<|end|><|start|>assistant<|channel|>final<|message|>4 5"
        ids = json.loads(self.ok("tokenize", "-m", "tiny", "--special", "allow", text).out)
        last = json.loads(self.ok("tokenize", "-m", "tiny", "4 5").out)
        head = ids.index(json.loads(self.ok("tokenize", "-m", "tiny", "1").out)[0])
        path = self.script([{"text": text, "delay_ms": 25}])

        def check():
            v = self.table("serve", "--scripted", path, "--concurrency", "1", "--prompt-tokens", "8",
                           "--gen-tokens", str(len(ids)), "--num-requests", "2", "-q")[1][0]
            self.near(v["ttft_p50_ms"], 25 * (head + 1))
            self.near(v["ttft_reasoning_p50_ms"], 25 * (head + 1))
            self.near(v["ttft_final_p50_ms"], 25 * (len(ids) - len(last) + 1))
            self.assertEqual(v["mean_output_tokens"], len(ids))
            self.assertGreater(v["mean_reasoning_tokens"], 0)
        self.attempts(check)

    def test_another_server_and_text(self):
        with Server("-m", "tiny") as server:
            r = self.ok("bench", "serve", "--base-url", server.url + "/v1", "--concurrency", "2",
                        "--prompt-tokens", "10", "--gen-tokens", "6", "--num-requests", "3",
                        "--text", "-q", "-m", "tiny", "--output", self.path("s.csv"))
            # nothing is said of the model: the server is asked, prompts are o200k_harmony's
            v = self.table("serve", "--base-url", server.url + "/v1", "--concurrency", "1",
                           "--prompt-tokens", "30", "--gen-tokens", "3", "--num-requests", "1")[1][0]
            self.assertEqual((v["model"], v["failed"], v["mean_output_tokens"]), ("tiny", 0, 3))
            self.assertGreater(v["mean_prompt_tokens"], 30)
        for label in ("Successful requests:                     3",
                      "Failed requests:                         0",
                      "Total generated tokens:                  18",
                      "Maximum request concurrency:             2",
                      "Mean TTFT (ms):", "P99 TPOT (ms):", "Median ITL (ms):",
                      "-----Time per Output Token (excl. 1st token)------",
                      "---------------Time to First Token----------------",
                      "============ Serving Benchmark Result ============", "=" * 50):
            self.assertIn(label, r.text)
        v = rows(self.path("s.csv"))[1][0]
        self.assertEqual((v["requests"], v["mean_output_tokens"], v["endpoint"]), (3, 6, "chat"))


class Together(Study):
    def published(self, folder):
        """The study's own rows at context 2048, in its files' form."""
        for kind, name, head in (("latency", "latency_%s_universal.csv", LATENCY),
                                 ("memeory", "memory_%s_v2.csv", MEMORY),
                                 ("energy", "energy_%s_fixed.csv", ENERGY)):
            os.makedirs(os.path.join(folder, kind), exist_ok=True)
            for model, tag, ttft, tpot, peak, watts, kj in (
                    ("openai/gpt-oss-20b", "gptoss20b", 475.8, 31.1, 43480, 305.3, 9764),
                    ("Qwen/Qwen3-32B", "qwen3-32b", 389.2, 23.4, 63650, 312.2, 13155)):
                v = {"model": model, "prompt_tokens": 2048, "context_length": 2048, "gen_tokens": 64,
                     "TTFT_ms": ttft, "ttft_ms": ttft, "TPOT_tokps": tpot, "p50_ms": 2057,
                     "total_tokens": 2112, "peak_alloc_mb": peak, "avg_gpu_power_watts": watts,
                     "decode_tokens_per_second": 1000 * watts / kj,
                     "energy_per_1k_decoded_tokens_joules": kj}
                with open(os.path.join(folder, kind, name % tag), "w") as f:
                    w = csv.DictWriter(f, head, extrasaction="ignore", lineterminator="\r\n")
                    w.writeheader()
                    w.writerow(v)

    def test_unify_and_ape(self):
        folder = self.path("new_results")
        self.published(folder)
        self.ok("create_unified_from_new_results", folder)
        head, r = rows(folder + "/unified_latency_comparison.csv")
        self.assertEqual(head, UNIFIED_LATENCY)
        self.assertEqual([v["model_short"] for v in r], ["gpt-oss-20b", "qwen3-32b"])
        self.assertEqual((r[0]["context_length"], r[0]["ttft_ms"]), (2048, 475.8))
        head, r = rows(folder + "/unified_memory_comparison_fixed.csv")
        self.assertEqual(head, UNIFIED_MEMORY)
        self.assertEqual(r[0]["peak_memory_mb"], 43480)
        self.assertAlmostEqual(r[0]["memory_efficiency"], 2112 / 43480)
        head, r = rows(folder + "/unified_energy_comparison_fixed.csv")
        self.assertEqual(head, UNIFIED_ENERGY)
        self.assertAlmostEqual(r[0]["tokens_per_watt"], 1000 / 9764)
        self.assertEqual((r[0]["energy_per_1k_joules"], r[0]["TPOT_tokps"]),
                         (9764, r[0]["decode_tokens_per_second"]))
        self.ok("ape_analysis", folder)
        head, r = rows(folder + "/ape/ape_analysis.csv")
        self.assertEqual(head, APE)
        self.assertEqual([(v["model_id"], v["active_params_B"]) for v in r],
                         [("gpt-oss-20b", 3.61), ("qwen3-32b", 32)])
        self.assertAlmostEqual(r[0]["throughput_per_activeB_tokps_per_B"], 31.1 / 3.61)
        self.assertAlmostEqual(r[0]["inv_ttft_per_activeB_tokps_per_B"], 1000 / 475.8 / 3.61)
        self.assertAlmostEqual(r[0]["tokens_per_watt_per_activeB"], 1000 / 9764 / 3.61)
        self.assertAlmostEqual(r[0]["peak_memory_GB"], 43480 / 1024)
        self.assertAlmostEqual(r[0]["tokens_per_GB_tokps_per_GB"], 31.1 * 1024 / 43480)
        with open(folder + "/ape/ape_analysis.json") as f:
            v = json.load(f)
        self.assertEqual(list(v), ["ape_results", "model_specs"])
        self.assertEqual(len(v["ape_results"]), 2)
        specs = self.write("specs.json", json.dumps({"gpt-oss-20b": {"total_params": 20e9,
                                                                     "active_params": 3.6e9}}))
        self.ok("bench", "ape", folder, "--specs", specs)
        v = rows(folder + "/ape/ape_analysis.csv")[1][0]
        self.assertAlmostEqual(v["throughput_per_activeB_tokps_per_B"], 31.1 / 3.6)  # the paper's 8.64
        results = self.write("e.json", json.dumps({"results": {"mmlu": {"alias": "mmlu", "acc,none": 0.722}}}))
        self.ok("bench", "ape", folder, "--eval", "gpt-oss-20b=" + results)
        head, r = rows(folder + "/ape/ape_analysis.csv")
        self.assertEqual(head, APE + ["accuracy", "accuracy_per_activeB"])
        self.assertAlmostEqual(r[0]["accuracy_per_activeB"], 0.722 / 3.61)
        self.assertEqual(r[1]["accuracy"], "")
        self.fails(1, "bench", "ape", folder, "--eval", "gpt-oss-20b=" + specs, says="no accuracy")
        self.ok("bench", "unify", folder, "--map", "Qwen/Qwen3-32B=other")
        r = rows(folder + "/unified_latency_comparison.csv")[1]
        self.assertEqual(r[1]["model_short"], "other")

    def test_governance(self):
        meta = self.write("m.json", json.dumps([{"id": "mine", "license": "MIT", "organization": "We"},
                                                {"id": "yi-34b", "sources": {"governance": "u"}}]))
        out = self.path("safety")
        self.ok("safety_governance_analysis", "--metadata", meta, "--output_dir", out)
        head, r = rows(out + "/safety_governance_overview.csv")
        self.assertEqual(head, OVERVIEW)
        by_id = {v["id"]: v for v in r}
        self.assertEqual(by_id["gpt-oss-20b"]["license"], "Apache-2.0")
        self.assertEqual(by_id["gpt-oss-20b"]["release_date"], "2025-08-05")
        self.assertEqual((by_id["mine"]["license"], by_id["yi-34b"]["sources.governance"]), ("MIT", "u"))
        with open(out + "/safety_governance_summary.json") as f:
            v = json.load(f)
        self.assertEqual(list(v), ["analysis_date", "environment", "models", "comparative_analysis",
                                   "key_findings", "recommendations"])
        self.assertEqual(list(v["comparative_analysis"]),
                         ["license_classes", "has_usage_policy", "has_model_card_link"])
        self.assertEqual(sum(v["comparative_analysis"]["license_classes"].values()), len(r))
        with open(out + "/safety_evaluation.json") as f:
            self.assertEqual(list(json.load(f)["models"]), list(v["models"]))
        with open(out + "/safety_governance_report.md") as f:
            self.assertIn("### gpt-oss-20b", f.read())

    ARGS = ["--prompt-tokens", "24,48", "--gen-tokens", "4", "--num-requests", "2",
            "--context-lengths", "24,48", "--num-runs", "1", "--min-seconds", "0",
            "--load-prompt-tokens", "16", "--load-gen-tokens", "4", "--load-requests", "2",
            "--concurrency", "1,2", "--ablation-contexts", "24", "--max-new-tokens", "4"]

    def test_a_part_that_fails(self):
        """The others are run and reported all the same."""
        out = self.path("s")
        r = self.fails(1, "bench", "study", "--outdir", out, *self.ARGS, "-q", "--metadata",
                       self.write("m.json", "[1]"), "--parts", "governance,latency",
                       says="governance: --metadata")
        self.assertEqual(r.out, b"")
        self.assertTrue(os.path.exists(out + "/report.html"))
        self.ok("bench", "study", "--outdir", out, *self.ARGS, "--parts", "governance")

    def test_study_and_report(self):
        out = self.path("st<u>dy")
        env = {"LD_LIBRARY_PATH": FAKE, "FAKE_NVML_MW": "250000"}
        first = self.ok("bench", "study", "--outdir", out, *self.ARGS, "--parts", "latency,memory")
        r = self.ok("bench", "study", "--outdir", out, *self.ARGS, env=env)
        self.assertEqual(r.errors.count("done before"), 2)
        self.assertNotIn("done before", first.errors)
        again = self.ok("bench", "study", "--outdir", out, *self.ARGS, env=env)
        self.assertEqual(again.errors.count("done before"), 6)
        for name in ("new_results/latency/latency_tiny_universal.csv",
                     "new_results/latency/serving_tiny.csv",
                     "new_results/memeory/memory_tiny_v2.csv",
                     "new_results/energy/energy_tiny_fixed.csv",
                     "new_results/ablations/ablation_all_tiny.json",
                     "new_results/safety/safety_evaluation.json",
                     "new_results/ape/ape_analysis.json",
                     "new_results/unified_energy_comparison_fixed.csv",
                     "results/model_specs/commands_tiny.jsonl", "report.html"):
            self.assertTrue(os.path.exists(os.path.join(out, name)), name)
        self.assertEqual(rows(out + "/new_results/latency/latency_tiny_universal.csv")[0][:9], LATENCY)
        with open(out + "/results/model_specs/commands_tiny.jsonl") as f:
            log = [json.loads(line) for line in f]
        self.assertEqual(sorted(v["part"] for v in log),
                         ["ablation", "energy", "governance", "latency", "memory", "serve"])
        fresh = self.ok("bench", "study", "--outdir", out, *self.ARGS, "--parts", "memory", "--fresh",
                        env=env)
        self.assertNotIn("done before", fresh.errors)
        self.published(out + "/new_results")
        done = self.ok("report", out)
        self.assertIn("report.html", done.errors)
        with open(out + "/report.html") as f:
            page = f.read()
        for text in ("qwen3-32b, here, context 2048", "475.8", "13155", "0.1024",
                     "least squares", "gloss bench study", "Licences and policies"):
            self.assertTrue(text in page, text)
        self.assertEqual(page.count("<tr><td>memory<td>20"), 1)  # of two runs the later
        self.assertFalse(re.findall(r'<script|(?<!:)\b(?:src|href)="(?:https?:)?//|@import|<link', page))
        self.assertTrue("st&lt;u&gt;dy" in page and "st<u>dy" not in page)
        if shutil.which("gnuplot"):
            figures = sorted(os.listdir(out + "/figs"))
            for name in ("latency_ttft", "latency_p50", "latency_tpot", "memory_peak", "memory_kv",
                         "energy_per_1k", "ape_throughput", "serving_throughput_tiny"):
                self.assertIn(name + ".svg", figures)
                with open(f"{out}/figs/{name}.png", "rb") as f:
                    self.assertEqual(f.read(4), b"\x89PNG")
            self.assertFalse([n for n in figures if n.endswith(".gp")])
            self.assertGreaterEqual(page.count("<svg"), 8)
        self.ok("report", out, env={"PATH": self.dir})  # no gnuplot: everything else


if __name__ == "__main__":
    main()
