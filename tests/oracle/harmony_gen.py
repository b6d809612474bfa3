"""Random conversations, tool schemas and token streams for harmony_check.py.

Everything comes from one random.Random, so a seed names a run.  Conversations are made as JSON text,
not as Python objects, because the spelling of numbers (1e5, -0) and the order of keys matter.
"""
import json

WORDS = ("the a of to model answer city weather tool json code analysis commentary final assistant user "
         "system developer null number string object x y 42 3.14 don't I'll HTTPServer's").split()
ODD = ["\u00e9\u00e8", "\u65e5\u672c\u8a9e", "\U0001f600\U0001f468\u200d\U0001f469", "\u0645\u0631\u062d\u0628\u0627", "\u00a0", "\u2003", "\t", "\r\n", "\r", "\n\n", "\u017f",
       "\u0000", "\u0000#1.5", "\u001f", "\u007f", "\ufeff", "a\u0301", "\\", '"', "//", "`", "\U0010ffff", "\u2028",
       "\u0085", "  ", "   \n"]
MARKS = ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>", "<|call|>",
         "<|endoftext|>", "<|startoftext|>", "<|reserved_200000|>", "<|endofprompt|>", "<|refusal|>",
         "<|start|>system<|message|>", "<|", "|>", "<|end|><|start|>assistant<|channel|>final<|message|>"]
NUMBERS = ["0", "-0", "-0.0", "1", "-1", "1.0", "1.50", "1e5", "1E+5", "1e15", "1e16", "1e21", "1e-5", "1e-6",
           "1e-7", "0.1", "0.30000000000000004", "123456789012345678", "9223372036854775807",
           "9223372036854775808", "18446744073709551615", "18446744073709551616", "-9223372036854775808",
           "-9223372036854775809", "100000000000000000000000", "12345678901234567890.5", "1e-400",
           "5e-324", "1.7976931348623157e308", "123456.789e3", "0e0", "18446744073709551616.3", "0.0000001e3",
           "3.141592653589793238462643", "4.35", "1e23", "8.41e21"]


class Raw(str):
    """A number as it is to be spelled."""


def dump(x):
    if isinstance(x, Raw):
        return str(x)
    if isinstance(x, dict):
        return "{" + ", ".join(json.dumps(k) + ": " + dump(v) for k, v in x.items()) + "}"
    if isinstance(x, list):
        return "[" + ",".join(dump(v) for v in x) + "]"
    return json.dumps(x, ensure_ascii=False)


class Gen:
    def __init__(self, rng):
        self.r = rng

    def chance(self, p):
        return self.r.random() < p

    def text(self, most=12):
        r, out = self.r, []
        for _ in range(r.randint(0, most)):
            k = r.random()
            out.append(r.choice(WORDS) if k < .7 else r.choice(ODD) if k < .88 else r.choice(MARKS) if k < .97
                       else chr(r.choice([r.randrange(32, 0xd800), r.randrange(0xe000, 0x110000)])))
            if self.chance(.8):
                out.append(" ")
        return "".join(out)

    def name(self):
        r = self.r
        if self.chance(.1):
            return self.text(3)
        return r.choice(["f", "get_weather", "functions", "functions.f", "browser.search", "python", "bob", "a-b",
                         "x.y.z", "all", "assistant"])

    def number(self):
        r = self.r
        k = r.random()
        if k < .5:
            return Raw(r.choice(NUMBERS))
        if k < .6:
            return Raw(r.randint(-10**r.randint(1, 25), 10**r.randint(1, 25)))
        v = r.choice([r.random(), r.gauss(0, 1) * 10.0 ** r.randint(-30, 30), r.random() * 10.0 ** r.randint(-300, 300)])
        return Raw(r.choice([repr(v), "%.17g" % v, "%.20e" % v, "%.3f" % v if abs(v) < 1e30 else repr(v)]))

    def value(self, depth=0):
        r = self.r
        k = r.random()
        if depth < 2 and k < .12:
            return [self.value(depth + 1) for _ in range(r.randint(0, 3))]
        if depth < 2 and k < .24:
            return {self.text(2).replace("\0", "") + str(i): self.value(depth + 1) for i in range(r.randint(0, 3))}
        return r.choice([self.text(3), self.number(), self.number(), True, False, None])

    def schema(self, depth=0):
        """Every rule and every quirk of the TypeScript printer; sometimes a member of the wrong type."""
        r, s = self.r, {}
        if self.chance(.02):
            return self.value()
        kind = r.choice(["object"] * (4 if depth < 4 else 1) + ["string", "string", "number", "integer", "boolean",
                        "array", "list", "oneOf", "oneOf", "null", "any", "none", "ref", "bad"])
        if depth == 0 and self.chance(.8):
            kind = "object"
        if kind == "object":
            s["type"] = "object"
            if self.chance(.95):
                n = r.randint(0, 4 if depth < 3 else 2)
                keys = list(dict.fromkeys((self.text(2).replace("\0", "") if self.chance(.1) else r.choice(
                    "abcdefgh") + r.choice(["", "_x", "-y", "2"])) for _ in range(n)))
                s["properties"] = {k: self.schema(depth + 1) for k in keys}
                if self.chance(.03):
                    s["properties"] = self.value()
                if self.chance(.6):
                    s["required"] = [k for k in keys if self.chance(.5)] + ([self.value()] if self.chance(.1) else [])
        elif kind in ("string", "number", "integer", "boolean", "null", "any", "array"):
            s["type"] = kind
            if kind == "array" and self.chance(.8):
                s["items"] = self.schema(depth + 1)
        elif kind == "list":
            s["type"] = [r.choice(["string", "integer", "number", "null", "object", "array", self.value()])
                         for _ in range(r.randint(0, 4))]
        elif kind == "oneOf":
            s["oneOf"] = [self.schema(depth + 2) for _ in range(r.randint(0, 3))]
            if self.chance(.2):
                s["type"] = r.choice(["object", "string"])
            if self.chance(.05):
                s["oneOf"] = self.value()
        elif kind == "ref":
            s[r.choice(["$ref", "anyOf", "allOf", "const"])] = r.choice(["#/x", [], [{"type": "string"}]])
        elif kind == "bad":
            s["type"] = self.value()
        if self.chance(.25):
            s["enum"] = [r.choice(["red", "null", self.text(2), self.value()]) for _ in range(r.randint(0, 3))]
        if self.chance(.3):
            s["description"] = r.choice(["same", "same", self.text(6), self.value() if self.chance(.2) else "d\nd"])
        if self.chance(.12):
            s["title"] = r.choice(["Title", self.text(3)])
        if self.chance(.12):
            s["examples"] = r.choice([[], ["e1", "e2"], [self.value(), self.text(2)], self.value()])
        if self.chance(.2):
            s["nullable"] = r.choice([True, True, False, self.value()])
        if self.chance(.35):
            s["default"] = self.value()
        if self.chance(.5):
            items = list(s.items())
            r.shuffle(items)
            s = dict(items)
        return s

    def tool(self):
        t = {"name": self.name(), "description": self.r.choice(["", "Does it.", self.text(10), "two\nlines\n", "a\r\nb\r"])}
        if self.chance(.85):
            t["parameters"] = self.schema() if self.chance(.95) else self.value()
        return t

    def tools(self):
        r, out = self.r, {}
        for _ in range(r.randint(0, 3)):
            key = r.choice(["functions", "functions", "browser", "zz", "A", self.text(2).replace("\0", "")])
            out[key] = {"name": key if self.chance(.9) else self.name(),
                        "tools": [self.tool() for _ in range(r.randint(0, 3))]}
            if self.chance(.5):
                out[key]["description"] = r.choice([None, "", self.text(8), "one\n\ntwo\n"])
        return out

    def system(self):
        r, s = self.r, {"type": "system_content"}
        for key, common in (("model_identity", "You are X."), ("knowledge_cutoff", "2024-06"),
                            ("conversation_start_date", "2025-06-28")):
            if self.chance(.6):
                s[key] = r.choice([common, common, None, self.text(4)])
        if self.chance(.7):
            s["reasoning_effort"] = r.choice(["Low", "Medium", "High", None])
        if self.chance(.7):
            s["channel_config"] = {"valid_channels": r.choice([["analysis", "commentary", "final"], [], ["analysis", "final"],
                                                               [self.text(2)]]),
                                   "channel_required": self.chance(.7)}
        if self.chance(.35):
            s["tools"] = self.tools()
        return s

    def developer(self):
        s = {"type": "developer_content"}
        if self.chance(.7):
            s["instructions"] = self.r.choice([None, "", self.text(20), "Be brief."])
        if self.chance(.6):
            s["tools"] = self.tools()
        return s

    def message(self):
        r = self.r
        role = r.choice(["user", "user", "assistant", "assistant", "assistant", "tool", "developer", "system"])
        m = {"role": role}
        if role == "tool" or self.chance(.08):
            m["name"] = self.name()
        parts = [{"type": "text", "text": self.text(20)} for _ in range(r.choice([0, 1, 1, 1, 1, 2]))]
        if role == "system" and self.chance(.8):
            parts.insert(r.randint(0, len(parts)), self.system())
        if role == "developer" and self.chance(.8):
            parts.insert(r.randint(0, len(parts)), self.developer())
        m["content"] = self.text(20) if self.chance(.2) and role not in ("system", "developer") else parts
        if role in ("assistant", "tool") or self.chance(.05):
            if self.chance(.85):
                m["channel"] = r.choice(["analysis", "analysis", "final", "final", "commentary", self.text(2)])
            if self.chance(.35):
                m["recipient"] = self.name()
            if self.chance(.3):
                m["content_type"] = r.choice(["json", "<|constrain|>json", "<|constrain|>", "code", self.text(2)])
        return m

    def conversation(self):
        msgs = [self.message() for _ in range(self.r.randint(0, 7))]
        k = self.r.random()
        if k < .02 and msgs:  # the refusals of the library
            m = self.r.choice(msgs)
            self.r.choice([lambda: m.update(role="robot"), lambda: m.pop("content"), lambda: m.update(content=None),
                           lambda: m.update(role="tool", name=None), lambda: m.update(content=[{"type": "image"}]),
                           lambda: m.update(content=[{"type": "system_content"}], role="user"),
                           lambda: m.update(content=[{"type": "system_content", "reasoning_effort": "low"}]),
                           lambda: m.update(channel=3), lambda: m.update(content=[{"type": "text"}])])()
        for m in msgs:  # the library keeps keys in any order
            if self.chance(.1):
                m["unknown"] = self.value()
        return dump({"messages": msgs})


class Streams:
    """Token streams: valid ones, valid ones with a few faults, and soups of what headers are made of."""

    def __init__(self, rng, encode, special, n_vocab, bytes_of):
        self.r = rng
        self.sp = special  # name -> id
        self.n_vocab = n_vocab
        self.gen = Gen(rng)
        words = ["assistant", " assistant", "user", "system", "developer", "tool", "analysis", "commentary", "final",
                 " to=functions.f", " to=python", "to=all", "functions.f", "functions.get_weather", "browser.search",
                 "python", " json", "json", " code", "code", " ", "\n", "\u00a0", "\u3000", "?", "commentary?", "to=", "foo", " bar",
                 "commentaryto=functions.f", "user:bob", "<|channel|>", "<|constrain|>json", "Hello", " I'm sorry",
                 " <|", "<", "Analysis", " final", "\x0b", "\x0c", "\u0085", "\u1680", "\u2003", "\u2028", "\u2029",
                 "\u202f", "\u205f", "\u200b", "\ufeff"]
        self.words = [encode(w) for w in words]
        self.encode = encode
        texts = ["Hi", " hello world.", "Need weather.", '{"city":"Oslo"}', "\U0001f600", "\u65e5\u672c\u8a9e", " I can't help with that.",
                 "a\u0301\u0302", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\n\n", "x", " <|end|>", "\u00e9" * 5, "42"]
        self.texts = [encode(t) for t in texts]
        self.bad = [i for i in range(n_vocab) if not self.valid(bytes_of(i))]  # ids that are no UTF-8 alone
        self.bytes = [i for i in range(min(256, n_vocab))]

    @staticmethod
    def valid(b):
        try:
            (b or b"").decode()
            return True
        except UnicodeDecodeError:
            return False

    def body(self):
        r, out = self.r, []
        for _ in range(r.randint(0, 4)):
            k = r.random()
            if k < .62:
                out += r.choice(self.texts)
            elif k < .76:
                out += [r.choice(self.bad) for _ in range(r.randint(1, 3))]
            elif k < .84:
                out += [r.choice(self.bytes) for _ in range(r.randint(1, 4))]
            elif k < .95:
                out.append(r.randrange(self.n_vocab))
            elif k < .97:
                out.append(r.choice([2**31 - 1, 999999, 201089, 201088, 200500]))
            else:
                out.append(r.choice(list(self.sp.values())))
        return out

    def header(self, preset):
        r, sp, out = self.r, self.sp, []
        if not preset:
            out += self.encode(r.choice(["assistant", "assistant", "assistant", "functions.f to=assistant", "user",
                                         "system", "python", "functions.f", "foo bar", "tool"]))
        to = self.encode(r.choice([" to=functions.get_weather", " to=functions.f", " to=python", " functions.f"]))
        where = r.random()
        if where < .2:
            out += to
        if r.random() < .9:
            out.append(sp["<|channel|>"])
            out += self.encode(r.choice(["analysis", "commentary", "final", "final", "analysis"]))
        if .2 <= where < .4:
            out += to
        k = r.random()
        if k < .2:
            out += self.encode(" ") + [sp["<|constrain|>"]] + self.encode("json")
        elif k < .3:
            out += [sp["<|constrain|>"]] + self.encode("json")
        elif k < .4:
            out += self.encode(r.choice([" json", " code"]))
        return out

    def valid_stream(self, preset):
        r, sp, out = self.r, self.sp, []
        for i in range(r.choice([1, 1, 2, 2, 3, 4])):
            if i or not preset:
                out.append(sp["<|start|>"])
            out += self.header(preset and i == 0)
            out.append(sp["<|message|>"])
            out += self.body()
            out.append(sp[r.choice(["<|end|>", "<|end|>", "<|call|>", "<|return|>"])])
        if r.random() < .2:
            out.pop()
        return out

    def soup(self):
        r, out = self.r, []
        specials = [self.sp[s] for s in ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>",
                                         "<|return|>", "<|call|>")]
        for _ in range(r.randint(0, 14)):
            k = r.random()
            if k < .4:
                out.append(r.choice(specials))
            elif k < .8:
                out += r.choice(self.words)
            else:
                out += self.body()
        return out

    def mutate(self, s):
        r = self.r
        for _ in range(r.choice([1, 1, 1, 2, 3])):
            i = r.randint(0, len(s))
            k = r.randrange(6)
            if k == 0 and s:
                del s[min(i, len(s) - 1)]
            elif k == 1:
                s[i:i] = r.choice(self.words)
            elif k == 2:
                s.insert(i, r.choice(list(self.sp.values())))
            elif k == 3 and s:
                s[min(i, len(s) - 1)] = r.choice(list(self.sp.values()))
            elif k == 4:
                s = s[:i]
            else:
                s[i:i] = s[i:i + r.randint(1, 4)]
        return s

    def stream(self):
        preset = self.r.random() < .6
        role = "assistant" if self.r.random() < .9 else self.r.choice(["user", "tool", "system", "developer"])
        k = self.r.random()
        if k < .3:
            s = self.valid_stream(preset)
        elif k < .7:
            s = self.mutate(self.valid_stream(preset))
        else:
            s = self.soup()
            if not preset and self.r.random() < .6:
                s.insert(0, self.sp["<|start|>"])
        return (role if preset else None), s
