"""Chat, completions and the small endpoints through OpenAI's own Python library, which validates
what it receives; over the tiny model and over scripts with every malformed harmony form."""

import json
import os
import tempfile
import threading
import time
import unittest

import openai
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types import Completion, Model
from pydantic import TypeAdapter

from forms import CONTROL_WORDS, FORMS
from serve_util import Case, Server, chat_bytes, events, read_all

FUNCTION = {"type": "function", "function": {
    "name": "f", "description": "Does f.",
    "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"],
                   "additionalProperties": False}}}
WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "The weather of a city.", "strict": True,
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}},
                   "required": ["city"], "additionalProperties": False}}}
HI = [{"role": "user", "content": "Hi"}]


def client(server, api_key="none", valid=True):
    """Closed by server.close_clients, so that descriptors can be counted."""
    api = openai.OpenAI(base_url=server.url + "/v1", api_key=api_key, max_retries=0,
                        _strict_response_validation=valid)
    server.clients.append(api)
    return api


def lenient(server):
    """For chunks of streamed completions: their finish_reason is null before the end, as OpenAI
    sends it, though the library's type has no null there."""
    return client(server, valid=False)


def strict(kind, value):
    """The library's own types, without its leniency."""
    return TypeAdapter(kind).validate_python(value.model_dump(), strict=False)


class Energy:
    """A folder like the kernel's powercap, whose counter goes on as at 50 W."""

    def __enter__(self):
        self.dir = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.dir.name, "intel-rapl:0")
        os.mkdir(self.path)
        for name, text in (("name", "package-0"), ("max_energy_range_uj", "262143328850")):
            with open(os.path.join(self.path, name), "w") as f:
                f.write(text + "\n")
        self.start, self.stop = time.monotonic(), threading.Event()
        self.tick()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self.dir.name

    def tick(self):
        with open(self.path + "/new", "w") as f:
            f.write(f"{1000 + int(50e6 * (time.monotonic() - self.start))}\n")
        os.replace(self.path + "/new", self.path + "/energy_uj")

    def run(self):
        while not self.stop.wait(0.005):
            self.tick()

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()
        self.dir.cleanup()


class Parts:
    """A streamed answer put together the way clients do."""

    def __init__(self, chunks):
        self.content = self.reasoning = ""
        self.calls, self.finish, self.usage, self.n = {}, None, None, 0
        for c in chunks:
            self.n += 1
            strict(ChatCompletionChunk, c)
            if not c.choices:
                self.usage = c.usage
                continue
            d = c.choices[0].delta
            self.content += d.content or ""
            extra = d.model_extra or {}
            assert extra.get("reasoning") == extra.get("reasoning_content")
            self.reasoning += extra.get("reasoning") or ""
            for t in d.tool_calls or []:
                call = self.calls.setdefault(t.index, {"name": "", "arguments": "", "id": t.id})
                call["name"] += t.function.name or ""
                call["arguments"] += t.function.arguments or ""
            self.finish = c.choices[0].finish_reason or self.finish

    def key(self):
        calls = [(c["name"], c["arguments"]) for _, c in sorted(self.calls.items())]
        return self.content, self.reasoning, calls, self.finish


def whole(answer):
    strict(ChatCompletion, answer)
    c = answer.choices[0]
    calls = [(t.function.name, t.function.arguments) for t in c.message.tool_calls or []]
    reasoning = (c.message.model_extra or {}).get("reasoning") or ""
    return c.message.content or "", reasoning, calls, c.finish_reason


class Tiny(Case):
    """The model itself."""

    def test_chat_whole_and_streamed_are_equal(self):
        api = client(self.server)
        for kw in ({}, {"reasoning_effort": "low"}, {"reasoning_effort": "none"}, {"stop": ["2"]},
                   {"tools": [WEATHER]}, {"n": 3}, {"logprobs": True, "top_logprobs": 3}):
            ask = dict(model="tiny", messages=[{"role": "user", "content": "What is 12 + 30?"}],
                       seed=5, max_tokens=200, **kw)
            answer = api.chat.completions.create(**ask)
            strict(ChatCompletion, answer)
            chunks = list(api.chat.completions.create(stream=True, stream_options={"include_usage": True}, **ask))
            for i in range(kw.get("n", 1)):
                mine = [c for c in chunks if not c.choices or c.choices[0].index == i]
                p = Parts(mine)
                c = answer.choices[i]
                self.assertEqual(p.content, c.message.content or "")
                self.assertEqual(p.finish, c.finish_reason)
            self.assertEqual(p.usage.completion_tokens, answer.usage.completion_tokens)
            self.assertEqual(p.usage.total_tokens, answer.usage.total_tokens)
            self.assertGreaterEqual(answer.usage.completion_tokens,
                                    answer.usage.completion_tokens_details.reasoning_tokens)
            if "logprobs" in kw:
                lp = [t for c in chunks if c.choices and c.choices[0].logprobs
                      for t in c.choices[0].logprobs.content]
                self.assertEqual([t.model_dump() for t in lp],
                                 [t.model_dump() for t in answer.choices[0].logprobs.content])
                said = b"".join(bytes(t.bytes) for t in lp).decode()
                self.assertEqual(said, answer.choices[0].message.content)
                for t in lp:
                    self.assertEqual(len(t.top_logprobs), 3)

    def test_effort_none_has_no_reasoning(self):
        a = client(self.server).chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "What is 2 + 2?"}], seed=3,
            reasoning_effort="none", max_tokens=100)
        self.assertEqual(whole(a)[1], "")
        self.assertEqual(a.usage.completion_tokens_details.reasoning_tokens, 0)

    def test_tool_choice(self):
        api = client(self.server)
        ask = dict(model="tiny", messages=[{"role": "user", "content": "What is the weather in Paris?"}],
                   seed=4, max_tokens=300, tools=[WEATHER, FUNCTION])
        for choice, names in (("required", {"get_weather", "f"}),
                              ({"type": "function", "function": {"name": "f"}}, {"f"}),
                              ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [
                                  {"type": "function", "function": {"name": "get_weather"}}]}}, {"get_weather"})):
            for stream in (False, True):
                a = api.chat.completions.create(tool_choice=choice, stream=stream, **ask)
                content, _, calls, finish = Parts(a).key() if stream else whole(a)
                self.assertEqual(finish, "tool_calls")
                self.assertIn(calls[0][0], names)
                json.loads(calls[0][1])
        a = api.chat.completions.create(tool_choice="none", **ask)
        self.assertEqual(whole(a)[2], [])

    def test_tool_round_keeps_the_thought(self):
        api = client(self.server)
        first = [{"role": "user", "content": "What is the weather in Paris?"}]
        ask = dict(model="tiny", seed=4, max_tokens=300, tools=[WEATHER], tool_choice="required")
        a = api.chat.completions.create(messages=first, **ask)
        m = a.choices[0].message
        call = {"id": m.tool_calls[0].id, "type": "function", "function": {
            "name": m.tool_calls[0].function.name, "arguments": m.tool_calls[0].function.arguments}}
        thought = m.model_extra["reasoning"]
        self.assertTrue(thought)
        sizes = []
        for extra in ({}, {"reasoning_content": thought}, {"reasoning": ""}):
            status, t = self.server.post("/tokenize", {"tools": [WEATHER], "messages": first + [
                {"role": "assistant", "content": None, "tool_calls": [call], **extra},
                {"role": "tool", "tool_call_id": call["id"], "content": "Sunny"}]})
            self.assertEqual(status, 200, t)
            sizes.append(t["count"])
        self.assertEqual(sizes[0], sizes[1])
        self.assertGreater(sizes[0], sizes[2])

    def test_structured_output(self):
        from pydantic import BaseModel

        class Point(BaseModel):
            x: int
            ok: bool

        api = client(self.server)
        ask = dict(model="tiny", messages=[{"role": "user", "content": "Give a point."}], seed=2,
                   max_tokens=400, reasoning_effort="low")
        p = api.chat.completions.parse(response_format=Point, **ask)
        self.assertIsInstance(p.choices[0].message.parsed, Point)
        a = api.chat.completions.create(response_format={"type": "json_object"}, **ask)
        if a.choices[0].finish_reason == "stop":
            self.assertIsInstance(json.loads(a.choices[0].message.content), dict)
        with api.chat.completions.stream(response_format=Point, **ask) as stream:
            for _ in stream:
                pass
            self.assertIsInstance(stream.get_final_completion().choices[0].message.parsed, Point)
        a = api.chat.completions.create(extra_body={"guided_choice": ["red", "green"]}, **ask)
        self.assertIn(a.choices[0].message.content, ("red", "green"))

    def test_seeds(self):
        api = client(self.server)
        ask = dict(model="tiny", messages=[{"role": "user", "content": "Tell me something."}],
                   max_tokens=60, temperature=2)
        one, two = (whole(api.chat.completions.create(seed=0, **ask)) for _ in range(2))
        self.assertEqual(one, two)
        many = {str(whole(api.chat.completions.create(**ask))) for _ in range(6)}
        self.assertGreater(len(many), 1)

    def test_cached_tokens(self):
        api = client(self.server)
        ask = dict(model="tiny", max_tokens=4, messages=[{"role": "user", "content": "word " * 200}])
        api.chat.completions.create(**ask)
        u = api.chat.completions.create(**ask).usage
        self.assertGreater(u.prompt_tokens_details.cached_tokens, 100)

    def test_continue_final_message(self):
        api = client(self.server)
        a = api.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "What is 2 + 2?"},
                                    {"role": "assistant", "content": "The answer is"}],
            max_tokens=20, seed=1, extra_body={"continue_final_message": True})
        content, reasoning, _, _ = whole(a)
        self.assertEqual(reasoning, "")
        self.assertFalse(content.startswith("The answer is"))
        self.assertTrue(content)

    def test_token_ids(self):
        ask = {"messages": HI, "max_tokens": 12, "seed": 3, "return_token_ids": True}
        status, a = self.server.post("/v1/chat/completions", ask)
        self.assertEqual(status, 200)
        self.assertEqual(len(a["prompt_token_ids"]), a["usage"]["prompt_tokens"])
        self.assertEqual(len(a["choices"][0]["token_ids"]), a["usage"]["completion_tokens"])
        _, _, data = self.server.ask("POST", "/v1/chat/completions", {**ask, "stream": True})
        ev = [e for e in events(data) if e]
        self.assertEqual(ev[0]["prompt_token_ids"], a["prompt_token_ids"])
        ids = [i for e in ev for c in e["choices"] for i in c.get("token_ids", [])]
        self.assertEqual(ids, a["choices"][0]["token_ids"])

    def test_completions(self):
        api = client(self.server)
        a = api.completions.create(model="tiny", prompt="Hello", max_tokens=8, seed=1)
        strict(Completion, a)
        b = lenient(self.server).completions.create(model="tiny", prompt="Hello", max_tokens=8, seed=1,
                                                    stream=True)
        self.assertEqual("".join(c.choices[0].text for c in b), a.choices[0].text)
        a = api.completions.create(model="tiny", prompt=["Hello", "World"], max_tokens=3, n=2, seed=1)
        self.assertEqual([c.index for c in a.choices], [0, 1, 2, 3])
        a = api.completions.create(model="tiny", prompt="Hello", max_tokens=0, echo=True)
        self.assertEqual(a.choices[0].text, "Hello")
        self.assertEqual(a.choices[0].finish_reason, "length")
        self.assertEqual(a.usage.completion_tokens, 0)

    def test_score_protocol(self):
        """What lm-eval does for log-likelihoods, against `gloss score`."""
        import subprocess
        from serve_util import BASE, GLOSS
        texts = ["What is 2 + 2? The answer is 4.", "Zwei und zwei sind vier: \u00e9\u4e16\u754c \U0001f600"]
        ids = [self.server.post("/tokenize", {"prompt": t})[1]["tokens"] for t in texts]
        out = subprocess.run([GLOSS, "score"], env=BASE, capture_output=True, check=True,
                             input="".join(json.dumps({"tokens": t}) + "\n" for t in ids).encode())
        want = [json.loads(line) for line in out.stdout.splitlines()]
        status, a = self.server.post("/v1/completions", {
            "model": "tiny", "prompt": ids, "temperature": 0, "max_tokens": 1, "logprobs": 1,
            "seed": 1234, "echo": True})
        self.assertEqual(status, 200, a)
        for i, w in enumerate(want):
            c = next(c for c in a["choices"] if c["index"] == i)
            lp = c["logprobs"]
            self.assertEqual(len(lp["token_logprobs"]), len(ids[i]) + 1)
            self.assertIsNone(lp["token_logprobs"][0])
            self.assertIsNone(lp["top_logprobs"][0])
            for k in range(1, len(ids[i])):
                self.assertAlmostEqual(lp["token_logprobs"][k], w["logprobs"][k], delta=2e-6)
                greedy = lp["token_logprobs"][k] == max(lp["top_logprobs"][k].values())
                self.assertEqual(greedy, w["greedy"][k] == ids[i][k])
            ours = sum(lp["token_logprobs"][1:-1])
            self.assertAlmostEqual(ours, w["sum"], delta=1e-5 * len(ids[i]))

    def test_generate(self):
        ask = {"input_ids": [72, 73, 74], "sampling_params": {"max_new_tokens": 9, "temperature": 0}}
        status, a = self.server.post("/generate", ask)
        self.assertEqual(status, 200, a)
        self.assertEqual(len(a["output_ids"]), a["meta_info"]["completion_tokens"])
        _, _, data = self.server.ask("POST", "/generate", {**ask, "stream": True})
        ids = [i for e in events(data) if e for i in e["output_ids"]]
        self.assertEqual(ids, a["output_ids"])

    def test_prompt_fields(self):
        """cache_prompt, truncate_prompt_tokens, add_generation_prompt: fields of other servers' dialects."""
        text, s = "word " * 100, self.server
        cached = [s.chat(text, max_tokens=1, **k)[1]["usage"]["prompt_tokens_details"]["cached_tokens"] for k in ({}, {}, {"cache_prompt": False}, {"cache-prompt": False})]
        self.assertGreater(cached[1], 200)
        self.assertEqual(cached[2:], [0, 0])
        self.assertEqual(s.chat(text, cache_prompt=1)[1]["error"]["param"], "cache_prompt")
        self.assertEqual(s.chat(text, max_tokens=1, truncate_prompt_tokens=20)[1]["usage"]["prompt_tokens"], 20)
        for prompt, n in ((text, 7), ([5] * 30, 7), ([text, "a", [5] * 9], 15)):
            code, a = s.post("/v1/completions", {"prompt": prompt, "max_tokens": 1, "truncate_prompt_tokens": 7})
            self.assertEqual((code, a["usage"]["prompt_tokens"]), (200, n), a)
        _, ids = s.post("/tokenize", {"messages": [{"role": "user", "content": "Hi"}]})
        _, cut = s.post("/tokenize", {"messages": [{"role": "user", "content": "Hi"}], "add_generation_prompt": False})
        whole = s.post("/detokenize", {"tokens": ids["tokens"]})[1]["prompt"]
        self.assertEqual(whole, s.post("/detokenize", {"tokens": cut["tokens"]})[1]["prompt"] + "<|start|>assistant")

    def test_error_text_is_cut_between_characters(self):
        code, answer = self.server.chat(model="x" * 99 + "\u00e9" * 30)
        self.assertEqual((code, answer["error"]["code"]), (404, "model_not_found"))

    def test_tokenizer(self):
        text = "Hello, <|end|> w\u00f6rld"
        _, t = self.server.post("/tokenize", {"prompt": text})
        _, back = self.server.post("/detokenize", {"tokens": t["tokens"]})
        self.assertEqual(back["prompt"], text)
        _, info = self.server.get("/tokenizer_info")
        self.assertEqual(info["eos_token"], "<|return|>")

    def test_models(self):
        api = client(self.server)
        models = list(api.models.list())
        self.assertEqual(models[0].id, "tiny")
        strict(Model, api.models.retrieve("tiny"))
        with self.assertRaises(openai.NotFoundError) as e:
            api.chat.completions.create(model="gpt-4o", messages=HI)
        self.assertEqual(e.exception.code, "model_not_found")
        self.assertTrue(e.exception.request_id)

    def test_errors(self):
        api = client(self.server)
        base = dict(model="tiny", messages=HI, max_tokens=4)
        bad = [({"temperature": 3}, "temperature"), ({"top_p": -1}, "top_p"), ({"n": 9}, "n"),
               ({"n": 0}, "n"), ({"max_tokens": 0}, "max_tokens"), ({"seed": -1}, "seed"),
               ({"top_logprobs": 3}, "top_logprobs"), ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
               ({"stop": ["a"] * 5}, "stop"), ({"logit_bias": {"x": 1}}, "logit_bias"),
               ({"logit_bias": {"5": 101}}, "logit_bias"), ({"tool_choice": "required"}, "tool_choice"),
               ({"tools": [FUNCTION, FUNCTION]}, "tools"), ({"response_format": {"type": "xml"}}, "response_format"),
               ({"reasoning_effort": "huge"}, "reasoning_effort"), ({"messages": []}, "messages"),
               ({"messages": [{"role": "tool", "tool_call_id": "no", "content": "x"}]}, "messages[0].tool_call_id"),
               ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/"}}]}]}, "messages[0].content[0].type"),
               ({"modalities": ["text", "audio"]}, "modalities")]
        for change, param in bad:
            with self.assertRaises(openai.BadRequestError, msg=change) as e:
                api.chat.completions.create(**{**base, **{k: v for k, v in change.items() if k != "x"}})
            self.assertEqual(e.exception.param, param, change)
        for field in ("prompt_embeds", "chat_template"):
            with self.assertRaises(openai.BadRequestError) as e:
                api.chat.completions.create(**base, extra_body={field: "x"})
            self.assertEqual(e.exception.code, "unsupported_parameter")
        with self.assertRaises(openai.BadRequestError) as e:
            api.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "word " * 200000}])
        self.assertEqual(e.exception.code, "context_length_exceeded")

    def test_request_ids(self):
        for sent, back in (("abc-123", "abc-123"), ("bad id\u00ff", None), ("x" * 200, None)):
            _, h, _ = self.server.ask("GET", "/v1/models", headers={"x-request-id": sent})
            self.assertEqual(h["x-request-id"] == sent, back is not None)
            self.assertTrue(h["x-request-id"])


class Scripted(unittest.TestCase):
    """Every malformed form: no 5xx, no lost text, no leaked control token; whole equals streamed."""

    def check(self, name, got, words, finish):
        content, reasoning, calls, reason = got
        everything = "\n".join([content, reasoning] + [n + "\n" + a for n, a in calls])
        for w in words:
            self.assertIn(w, everything, name)
        for w in CONTROL_WORDS:
            self.assertNotIn(w, everything, name)
        self.assertEqual(reason, finish, name)
        self.assertEqual(bool(calls), finish == "tool_calls", name)

    def test_forms(self):
        lines = [text for text, _, _ in FORMS.values()]
        tools = [FUNCTION, {"type": "function", "function": {"name": "g"}}]
        doubled = [line for line in lines for _ in (0, 1)]
        with Server(script=doubled) as server:
            api = client(server)
            for name, (_, words, finish) in FORMS.items():
                ask = dict(model="tiny", messages=HI, tools=tools)
                one = whole(api.chat.completions.create(**ask))
                two = Parts(api.chat.completions.create(stream=True, **ask)).key()
                self.check(name, one, words, finish)
                self.assertEqual(one, two, name)
            self.assertTrue(server.alive())

    def test_forms_cut_anywhere(self):
        """max_tokens at every length: an honest `length`, and a prefix of the text."""
        text = FORMS["well formed"][0]
        with Server(script=[text]) as server:
            _, t = server.post("/tokenize", {"prompt": text, "allow_special_tokens": True})
            full = None
            for n in range(t["count"], 0, -1):
                status, a = server.chat(max_tokens=n)
                self.assertEqual(status, 200)
                c = a["choices"][0]
                full = full or c
                self.assertEqual(c["finish_reason"], "stop" if n >= t["count"] else "length", n)
                self.assertTrue("Answer.".startswith(c["message"]["content"]), c)

    def test_invalid_utf8(self):
        """Bytes that are no characters, split over tokens."""
        with Server() as probe:
            _, emoji = probe.post("/tokenize", {"prompt": "\U0001f600\u4e16"})
            _, head = probe.post("/tokenize", {"prompt": "<|channel|>final<|message|>",
                                               "allow_special_tokens": True})
            _, tail = probe.post("/tokenize", {"prompt": "ok<|return|>", "allow_special_tokens": True})
        lines = []
        for cut in range(1, len(emoji["tokens"])):
            body = emoji["tokens"][:cut] + emoji["tokens"][cut + 1:]
            lines += [{"tokens": head["tokens"] + body + tail["tokens"]}] * 2
        if not lines:
            self.skipTest("the vocabulary has these characters whole")
        with Server(script=lines) as server:
            api = client(server)
            for _ in range(len(lines) // 2):
                one = whole(api.chat.completions.create(model="tiny", messages=HI))
                two = Parts(api.chat.completions.create(model="tiny", messages=HI, stream=True)).key()
                self.assertEqual(one, two)
                self.assertTrue(one[0].endswith("ok"))
                one[0].encode()

    def test_choices_take_lines_in_order(self):
        lines = [f"<|channel|>final<|message|>{w}<|return|>" for w in ("one", "two", "three")]
        with Server(script=lines) as server:
            a = client(server).chat.completions.create(model="tiny", messages=HI, n=2)
            self.assertEqual([c.message.content for c in a.choices], ["one", "two"])
            self.assertEqual(server.chat(temperature=9)[0], 400)  # takes no line
            _, b = server.chat()
            self.assertEqual(b["choices"][0]["message"]["content"], "three")

    def test_stop_texts(self):
        with Server(script=["<|channel|>final<|message|>one two three<|return|>"]) as server:
            for stop, want in (("two", "one "), (["zzz", " three"], "one two"), ("one", "")):
                for stream in (False, True):
                    a = client(server).chat.completions.create(model="tiny", messages=HI, stop=stop, stream=stream)
                    got = Parts(a).key() if stream else whole(a)
                    self.assertEqual((got[0], got[3]), (want, "stop"))

    def test_stream_interval(self):
        line = {"text": "<|channel|>final<|message|>" + "word " * 40 + "<|return|>", "delay_ms": 5}
        with Server("--stream-interval", "16", script=[line]) as server:
            s = server.socket()
            s.sendall(chat_bytes(stream=True))
            reads, data = 0, b""
            while b"[DONE]" not in data:
                more = s.recv(1 << 16)
                self.assertTrue(more)
                data, reads = data + more, reads + 1
            s.close()
            text = "".join(c["delta"].get("content", "") for line in data.split(b"\n") if line.startswith(b"data: {")
                           for c in json.loads(line[6:])["choices"])
            self.assertEqual(text, "word " * 40)
            self.assertLess(reads, data.count(b'"content":"') / 4)

    def test_old_functions(self):
        with Server(script=[FORMS["call"][0]]) as server:
            status, a = server.chat(functions=[FUNCTION["function"]], function_call="auto")
            self.assertEqual(status, 200, a)
            self.assertEqual(a["choices"][0]["finish_reason"], "function_call")
            self.assertEqual(a["choices"][0]["message"]["function_call"], {"name": "f", "arguments": "{\"x\":1}"})

    def test_ever_more_headers(self):
        """A hundred thousand beginnings of headers, and as many messages and calls as a context holds."""
        for one, n, finish in (("<|channel|>", 10 ** 5, "stop"), ("<|start|>", 10 ** 5, "stop"), ("<|channel|>final<|message|>x<|end|><|start|>assistant", 14000, "length"),
                               (" to=functions.f<|channel|>commentary<|message|>{}<|end|><|start|>assistant", 8000, "length")):
            with Server(script=[one * n + "<|channel|>final<|message|>end<|return|>"], checked=False) as server:
                code, a = server.chat(tools=[FUNCTION])
                self.assertEqual((code, a["choices"][0]["finish_reason"]), (200, finish), one)
                message = a["choices"][0]["message"]
                self.assertNotIn("<|", message["content"] or "")
                if finish == "stop":
                    self.assertEqual(message["content"], "end")
                else:
                    self.assertGreater(len(message["tool_calls"]) if "to=" in one else message["content"].count("x"), 7000)
                s = server.socket()
                s.sendall(chat_bytes(stream=True, tools=[FUNCTION], extra="Connection: close\r\n"))
                self.assertIn(b"data: [DONE]", read_all(s, 30)[-40:])
                s.close()

    def test_completions_hide_control_tokens(self):
        with Server(script=["<|channel|>final<|message|>Hi<|return|>"]) as server:
            for stream in (False, True):
                a = lenient(server).completions.create(model="tiny", prompt="x", stream=stream)
                text = "".join(c.choices[0].text for c in a) if stream else a.choices[0].text
                self.assertEqual(text, "finalHi")


class Keys(Case):
    args = ("--api-key", "right", "--api-key", "other", "--served-model-name", "mine", "-a", "two")
    key = "right"

    def test_keys(self):
        client(self.server, api_key="right").chat.completions.create(model="mine", messages=HI, max_tokens=2)
        bodies = set()
        for key in ("wrong", "righ", "rightx", "x" * 8000):
            with self.assertRaises(openai.AuthenticationError) as e:
                client(self.server, api_key=key).models.list()
            bodies.add(json.dumps(e.exception.body))
        status, h, data = self.server.ask("GET", "/v1/models")
        bodies.add(json.dumps(json.loads(data)["error"]))
        self.assertEqual((status, h["WWW-Authenticate"]), (401, "Bearer"))
        self.assertEqual(self.server.ask("GET", "/v1/models?api_key=right")[0], 401)
        self.assertEqual(self.server.ask("GET", "/v1/models", headers={"x-api-key": "right"})[0], 200)
        self.assertEqual(len(bodies), 1)
        self.assertEqual([m.id for m in client(self.server, api_key="other").models.list()], ["mine", "two"])

    def test_only_open_routes_answer(self):
        _, doc = 0, json.loads(self.server.ask("GET", "/openapi.json", headers={"Authorization": "Bearer right"})[2])
        for path, ops in doc["paths"].items():
            for method in ops:
                status = self.server.ask(method.upper(), path.replace("{id}", "x"), {} if method == "post" else None)[0]
                self.assertEqual(status, 200 if path in ("/health", "/") else 401, path)
        self.assertEqual(self.server.ask("GET", "/no/such/path")[0], 401)

    def test_tenants_do_not_share_a_cache(self):
        def cached(key):
            a = client(self.server, api_key=key).completions.create(
                model="mine", max_tokens=2, prompt="secret " * 100)
            return a.usage.prompt_tokens_details.cached_tokens

        self.assertEqual(cached("right"), 0)
        self.assertEqual(cached("other"), 0)
        self.assertGreater(cached("right"), 0)


class Measures(unittest.TestCase):
    def test_energy(self):
        line = {"text": "<|channel|>final<|message|>" + "word " * 100 + "<|return|>", "delay_ms": 5}
        with Energy() as folder, Server("--powercap", folder, script=[line]) as server:
            api = client(server)
            chat = api.chat.completions.create(model="tiny", messages=HI)
            e = chat.usage.energy
            self.assertEqual(e["source"], "rapl")
            self.assertGreater(e["joules"], 5)  # half a second at 50 W, on a machine however busy
            self.assertAlmostEqual(e["joules"], e["prefill_joules"] + e["decode_joules"], places=5)
            self.assertGreater(e["decode_joules"], e["prefill_joules"])
            two = api.responses.create(model="tiny", input="Hi")
            self.assertGreater(two.usage.energy["joules"], 5)
            self.assertGreater(server.metric('gloss:energy_joules_total{phase="decode"}'), 8)
        with tempfile.TemporaryDirectory() as nothing, Server("--powercap", nothing, "--device", "cpu") as server:
            usage = client(server).chat.completions.create(model="tiny", messages=HI, max_tokens=4).usage
            self.assertNotIn("energy", usage.model_dump())
            self.assertNotIn("energy_joules", server.ask("GET", "/metrics")[2].decode())

    def test_repairs_are_counted(self):
        def repairs(server):
            return [server.metric('gloss:harmony_repairs_total{kind="%s"}' % k) for k in ("header", "start", "end", "body")]

        for name, want in (("well formed", [0, 0, 0, 0]), ("call", [0, 0, 0, 0]), ("preamble", [0, 0, 0, 0]), ("unknown channel", [1, 0, 0, 0]),
                           ("double channel", [1, 0, 0, 0]), ("end without start", [0, 1, 0, 0]), ("missing end", [0, 0, 1, 0]),
                           ("constrain inside body", [0, 0, 0, 1]), ("text and return", [1, 0, 0, 0])):
            with Server(script=[FORMS[name][0]], checked=False) as server:
                server.chat()
                self.assertEqual(repairs(server), want, name)

    def test_stages_of_the_start(self):
        with Server() as server:
            stage = {s: server.metric('gloss:startup_seconds{stage="%s"}' % s) for s in ("listen", "model", "engine", "all")}
            self.assertGreater(min(stage.values()), 0)
            self.assertLessEqual(stage["listen"] + stage["model"] + stage["engine"], stage["all"] + 0.001)


if __name__ == "__main__":
    unittest.main()
