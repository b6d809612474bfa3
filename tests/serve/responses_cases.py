"""The Responses interface through OpenAI's own Python library in its strict mode."""

import json
import threading
import unittest

import openai
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from chat_cases import client, strict
from forms import CONTROL_WORDS, FORMS
from serve_util import Case, Server, eventually

F = {"type": "function", "name": "f", "description": "Does f.", "strict": False,
     "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}}
G = {"type": "function", "name": "g", "parameters": {"type": "object", "properties": {}}, "strict": False}

# Keys that the Open Responses suite demands in every response object.
ALWAYS = ("id object created_at completed_at status incomplete_details model previous_response_id instructions "
          "output error tools tool_choice truncation parallel_tool_calls text top_p presence_penalty "
          "frequency_penalty top_logprobs temperature reasoning usage max_output_tokens max_tool_calls store "
          "background service_tier metadata safety_identifier prompt_cache_key").split()


def check_events(case, stream, summary=False):
    """Order, numbers and ids of a stream; returns its last response."""
    kind = TypeAdapter(ResponseStreamEvent)
    seq, open_item, text, final, types = 0, None, {}, None, []
    for e in stream:
        kind.validate_python(e.model_dump())
        case.assertEqual(e.sequence_number, seq)
        seq += 1
        types.append(e.type)
        if e.type == "response.output_item.added":
            case.assertIsNone(open_item)
            open_item = (e.item.id, e.output_index)
        elif e.type == "response.output_item.done":
            case.assertEqual((e.item.id, e.output_index), open_item)
            said = text.get(e.item.id, "")
            if e.item.type == "message":
                case.assertEqual(e.item.content[0].text, said)
            elif e.item.type == "reasoning":
                case.assertEqual(e.item.content[0].text, said)
                case.assertTrue(said)
                case.assertEqual([s.text for s in e.item.summary], [said] if summary else [])
            else:
                case.assertEqual(e.item.arguments, said or "{}")
            open_item = None
        elif hasattr(e, "item_id"):
            case.assertEqual((e.item_id, e.output_index), open_item)
            if e.type.endswith(".delta") and "summary" not in e.type:
                text[e.item_id] = text.get(e.item_id, "") + e.delta
        elif e.type in ("response.completed", "response.incomplete", "response.failed"):
            final = e.response
    case.assertEqual(types[:2], ["response.created", "response.in_progress"])
    case.assertIsNone(open_item)
    case.assertIsNotNone(final)
    case.assertEqual(any("summary" in t for t in types), summary and any(o.type == "reasoning" for o in final.output))
    return final


def parts(r):
    out = []
    for o in r.output:
        if o.type == "reasoning":
            out.append(("reasoning", "".join(c.text for c in o.content)))
        elif o.type == "message":
            out.append((o.model_dump().get("phase"), o.content[0].text))
        else:
            out.append((o.name, o.arguments))
    return out


class Tiny(Case):
    def test_whole_and_streamed_are_equal(self):
        api = client(self.server)
        for kw in ({}, {"reasoning": {"effort": "low"}}, {"reasoning": {"effort": "none"}},
                   {"reasoning": {"effort": "low", "summary": "auto"}}, {"tools": [F]}, {"max_output_tokens": 10},
                   {"instructions": "Be brief."}, {"include": ["message.output_text.logprobs"], "top_logprobs": 2}):
            ask = dict(model="tiny", input="What is 12 + 30?", extra_body={"seed": 5}, **kw)
            one = api.responses.create(**ask)
            strict(Response, one)
            for key in ALWAYS:
                self.assertIn(key, one.model_dump(), key)
            two = check_events(self, api.responses.create(stream=True, **ask), "summary" in kw.get("reasoning", {}))
            strict(Response, two)
            self.assertEqual(parts(one), parts(two))
            self.assertEqual(one.status, "incomplete" if "max_output_tokens" in kw else "completed")
            self.assertEqual(one.usage.output_tokens, two.usage.output_tokens)
            if kw.get("reasoning") == {"effort": "none"}:
                self.assertNotIn("reasoning", [p[0] for p in parts(one)])
            if "include" in kw:
                lp = one.output[-1].content[0].logprobs
                self.assertEqual("".join(t.token for t in lp), one.output_text)
                self.assertEqual(len(lp[0].top_logprobs), 2)

    def test_stream_helper(self):
        api = client(self.server)
        with api.responses.stream(model="tiny", input="What is 2 + 2?", extra_body={"seed": 5}) as s:
            for _ in s:
                pass
            self.assertEqual(s.get_final_response().status, "completed")

    def test_state(self):
        api = client(self.server)
        one = api.responses.create(model="tiny", input="What is 12 + 30?", extra_body={"seed": 5})
        got = api.responses.retrieve(one.id)
        strict(Response, got)
        self.assertEqual(parts(got), parts(one))
        two = api.responses.create(model="tiny", input="And plus 1?", previous_response_id=one.id, extra_body={"seed": 5})
        self.assertEqual(two.previous_response_id, one.id)
        items = api.responses.input_items.list(one.id)
        self.assertEqual([i.content[0].text for i in items.data], ["What is 12 + 30?"])
        # the same conversation sent in full has the same prompt
        full = [{"role": "user", "content": "What is 12 + 30?"}] + [o.model_dump() for o in one.output] + [
            {"role": "user", "content": "And plus 1?"}]
        n = api.responses.input_tokens.count(model="tiny", input=full).input_tokens
        self.assertEqual(n, two.usage.input_tokens)
        self.assertGreater(two.usage.input_tokens_details.cached_tokens, 0)
        api.responses.delete(one.id)
        with self.assertRaises(openai.NotFoundError):
            api.responses.retrieve(one.id)
        for bad in (one.id, "resp_nosuch"):
            with self.assertRaises(openai.BadRequestError) as e:
                api.responses.create(model="tiny", input="x", previous_response_id=bad)
            self.assertEqual(e.exception.param, "previous_response_id")
        gone = api.responses.create(model="tiny", input="Hi", store=False, max_output_tokens=4)
        with self.assertRaises(openai.NotFoundError):
            api.responses.retrieve(gone.id)

    def test_item_reference(self):
        api = client(self.server)
        one = api.responses.create(model="tiny", input="What is 12 + 30?", extra_body={"seed": 5})
        last = one.output[-1]
        a = api.responses.input_tokens.count(model="tiny", input=[{"type": "item_reference", "id": last.id}, {"role": "user", "content": "x"}])
        b = api.responses.input_tokens.count(model="tiny", input=[last.model_dump(), {"role": "user", "content": "x"}])
        self.assertEqual(a.input_tokens, b.input_tokens)

    def test_tool_round(self):
        api = client(self.server)
        one = api.responses.create(model="tiny", input="Call f.", tools=[F], tool_choice="required", extra_body={"seed": 4})
        call = one.output[-1]
        self.assertEqual(call.type, "function_call")
        json.loads(call.arguments)
        out = {"type": "function_call_output", "call_id": call.call_id, "output": "42"}
        two = api.responses.create(model="tiny", input=[out], previous_response_id=one.id, tools=[F], max_output_tokens=30)
        strict(Response, two)
        with self.assertRaises(openai.BadRequestError) as e:
            api.responses.create(model="tiny", input=[{**out, "call_id": "call_nosuch"}])
        self.assertEqual(e.exception.param, "input")
        skipped = api.responses.create(model="tiny", input="Hi", tools=[{"type": "web_search"}, F], max_output_tokens=4)
        self.assertEqual([t.type for t in skipped.tools], ["function"])

    def test_sealed_thoughts(self):
        api = client(self.server)
        one = api.responses.create(model="tiny", input="Call f.", tools=[F], tool_choice="required", store=False,
                                   include=["reasoning.encrypted_content"], extra_body={"seed": 4})
        plain, call = one.output[0].model_dump(), one.output[-1].model_dump()
        self.assertEqual(plain["type"], "reasoning")
        sealed = {"type": "reasoning", "summary": [], "encrypted_content": plain["encrypted_content"]}
        rest = [call, {"type": "function_call_output", "call_id": call["call_id"], "output": "42"}]

        def count(item):
            return api.responses.input_tokens.count(model="tiny", tools=[F], input=[{"role": "user", "content": "Call f."}] + item + rest).input_tokens

        plain.pop("encrypted_content")
        self.assertEqual(count([sealed]), count([plain]))
        s = sealed["encrypted_content"]
        for forged in (s[:-8] + "AAAAAAA=", "AAAA" + s[4:], "x", ""):
            with self.assertRaises(openai.BadRequestError):
                count([{**sealed, "encrypted_content": forged}])

    def test_structured(self):
        from pydantic import BaseModel

        class Point(BaseModel):
            x: int
            ok: bool

        r = client(self.server).responses.parse(model="tiny", input="Give a point.", text_format=Point,
                                                reasoning={"effort": "low"}, extra_body={"seed": 2})
        self.assertIsInstance(r.output_parsed, Point)

    def test_errors(self):
        api = client(self.server)
        for change, param in (({"conversation": "c"}, "conversation"), ({"background": True}, "background"),
                              ({"truncation": "x"}, "truncation"), ({"max_output_tokens": 0}, "max_output_tokens"),
                              ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input[0].content"),
                              ({"input": []}, "input"), ({"text": {"format": {"type": "xml"}}}, "text.format"),
                              ({"top_logprobs": 21}, "top_logprobs"), ({"tools": [F, F]}, "tools")):
            with self.assertRaises(openai.BadRequestError, msg=change) as e:
                api.responses.create(**{"model": "tiny", "input": "x", **change})
            self.assertEqual(e.exception.param, param, change)


class Slow(unittest.TestCase):
    def test_cancel(self):
        with Server(script=[{"text": "<|channel|>final<|message|>" + "word " * 400 + "<|return|>", "delay_ms": 10}]) as server:
            api = client(server)
            stream = api.responses.create(model="tiny", input="x", stream=True)
            first = next(stream)
            self.assertEqual(api.responses.retrieve(first.response.id).status, "in_progress")
            done = api.responses.cancel(first.response.id)
            self.assertEqual(done.status, "cancelled")
            last = [e for e in stream][-1]
            self.assertEqual(last.response.status, "cancelled")
            eventually(lambda: api.responses.retrieve(first.response.id).status == "cancelled", 3)
            eventually(lambda: server.metric("gloss:num_requests_running") == 0, 3)
            self.assertEqual(api.responses.cancel(first.response.id).status, "cancelled")
            with self.assertRaises(openai.NotFoundError):
                api.responses.cancel("resp_nosuch")


class Forms(unittest.TestCase):
    def test_forms(self):
        doubled = [text for text, _, _ in FORMS.values() for _ in (0, 1)]
        with Server(script=doubled) as server:
            api = client(server)
            for name, (_, words, finish) in FORMS.items():
                ask = dict(model="tiny", input="Hi", tools=[F, G])
                one = api.responses.create(**ask)
                strict(Response, one)
                two = check_events(self, api.responses.create(stream=True, **ask))
                self.assertEqual(parts(one), parts(two), name)
                everything = "\n\n".join(x for p in parts(one) for x in p if x)
                for w in words:
                    for piece in w.split("\n\n"):
                        self.assertIn(piece, everything, name)
                for w in CONTROL_WORDS:
                    self.assertNotIn(w, everything, name)
                self.assertEqual("function_call" in [o.type for o in one.output], finish == "tool_calls", name)
                self.assertEqual(one.status, "completed", name)

    def test_preamble_is_commentary(self):
        with Server(script=[FORMS["preamble"][0]]) as server:
            r = client(server).responses.create(model="tiny", input="Hi")
            self.assertEqual(parts(r), [("commentary", "First I look."), ("final_answer", "Answer.")])


    def test_preamble_comes_back_as_commentary(self):
        """A commentary message sent again without a call behind it stays one in the prompt."""
        def prompt(phase):
            item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "First I look."}]}
            return {"model": "tiny", "input": [{"role": "user", "content": "Hi"}, {**item, **phase}, {"role": "user", "content": "And?"}]}

        with Server() as server:
            _, plain = server.post("/v1/responses/input_tokens", prompt({}))
            _, final = server.post("/v1/responses/input_tokens", prompt({"phase": "final_answer"}))
            self.assertEqual(plain, final)
            for phase in ("final_answer", "commentary"):
                code, t = server.post("/tokenize", {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "First I look.", "phase": phase},
                                                                 {"role": "user", "content": "And?"}]})
                self.assertEqual(code, 200)
                text = server.post("/detokenize", {"tokens": t["tokens"]})[1]["prompt"]
                self.assertIn("First I look.", text)
                self.assertEqual("<|channel|>commentary<|message|>First I look." in text, phase == "commentary")
                _, n = server.post("/v1/responses/input_tokens", prompt({"phase": phase}))
                self.assertEqual(n["input_tokens"], len(t["tokens"]))


class Durable(unittest.TestCase):
    def test_store_file(self):
        import os
        import tempfile
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "responses.db")
            with Server("--response-store", path, "--api-key", "k", key="k") as server:
                one = client(server, api_key="k").responses.create(model="tiny", input="Hi", max_output_tokens=8,
                                                                   include=["reasoning.encrypted_content"])
            with Server("--response-store", path, "--api-key", "k", "--api-key", "other", key="k") as server:
                got = client(server, api_key="k").responses.retrieve(one.id)
                self.assertEqual(parts(got), parts(one))
                with self.assertRaises(openai.NotFoundError):
                    client(server, api_key="other").responses.retrieve(one.id)
                with self.assertRaises(openai.NotFoundError):
                    client(server, api_key="other").responses.delete(one.id)


if __name__ == "__main__":
    unittest.main()
