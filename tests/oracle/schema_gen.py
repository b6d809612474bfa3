"""Random JSON Schemas of the subset that docs/structured-output.md states, and values that satisfy
them, written the way models write JSON."""
import json
from decimal import Decimal

WORDS = ["a", "id", "name", "kind", "value", "x y", "caf\u00e9", "\u65e5\u672c", "q\"t", "b\\s", "n\nl", "type", "_0", "\U0001f600"]
PATTERNS = [  # pattern, values that match
    ("^[a-z]+$", ["abc", "z"]),
    ("^[A-Z]{2,4}-\\d{1,3}$", ["AB-1", "WXYZ-123"]),
    ("^(foo|bar)+$", ["foo", "barfoo"]),
    ("ab?c", ["ac", "xxabcyy", "\u00e9ac\n"]),
    ("^\\w+@\\w+\\.(com|org)$", ["me@x.org"]),
    ("^[^\\s]*$", ["", "x\u00e9\u65e5"]),
    ("^\\u00e9{1,3}$", ["\u00e9\u00e9"]),
    ("^.{3,5}$", ["abc", "a\u65e5\"\\x"]),
    ("^(?:(?:a|b)*c){2}$", ["cc", "abcbac"]),
    ("^$|^x", ["", "xyz"]),
]
FORMATS = {
    "date": ["2024-02-29", "1999-12-31"],
    "time": ["10:20:30Z", "23:59:59.125+05:30"],
    "date-time": ["2025-01-31T00:00:00Z", "2000-02-29T12:00:00.5-08:00"],
    "duration": ["P3D", "PT1H30M", "P1Y2M", "P2W"],
    "uuid": ["123e4567-e89b-12d3-a456-426614174000"],
    "email": ["a.b+c@example.com"],
    "ipv4": ["192.168.0.1", "255.0.0.10"],
    "ipv6": ["::1", "fe80::1:2", "1:2:3:4:5:6:7:8"],
    "hostname": ["example.com", "a-b.c9"],
    "uri": ["https://example.com/a?b=c#d"],
}


def text(r, lo=0, hi=8):
    chars = "abcXYZ 09_-.,:{}[]\"\\/\n\t\u00e9\u65e5\U0001f600\u0000"
    return "".join(r.choice(chars) for _ in range(r.randint(lo, hi)))


def scalar(r):
    return r.choice([None, True, False, r.randint(-99, 999), text(r), r.randint(-500, 500) / 4])


def some_json(r, depth):
    k = r.random()
    if depth <= 0 or k < 0.6:
        return scalar(r)
    if k < 0.8:
        return [some_json(r, depth - 1) for _ in range(r.randint(0, 3))]
    return {text(r): some_json(r, depth - 1) for _ in range(r.randint(0, 3))}


def string_schema(r):
    k = r.random()
    s = {"type": "string"}
    if k < 0.3:
        lo = r.randint(0, 5)
        if r.random() < 0.7:
            s["minLength"] = lo
        if r.random() < 0.7:
            s["maxLength"] = lo + r.choice([0, 1, 3, 20, 600, 1500])
    elif k < 0.5:
        s["pattern"] = r.choice(PATTERNS)[0]
        if r.random() < 0.2:
            s["maxLength"] = 40
    elif k < 0.75:
        s["format"] = r.choice(list(FORMATS))
    return s


def number_schema(r):
    integer = r.random() < 0.6
    s = {"type": "integer" if integer else "number"}
    def bound():
        v = r.choice([0, 1, 7, 10, 99, 100, 12345]) * r.choice([1, -1])
        return v if integer or r.random() < 0.5 else v + r.choice([0.5, 0.25, 0.001, 0.125])
    k = r.random()
    if k < 0.2:
        a, b = sorted([bound(), bound()])
        s[r.choice(["minimum", "exclusiveMinimum"])] = a
        s[r.choice(["maximum", "exclusiveMaximum"])] = b + 2
    elif k < 0.4:
        s[r.choice(["minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"])] = bound()
    if r.random() < 0.15:
        s["multipleOf"] = r.choice([2, 3, 10, 7] if integer else [0.01, 0.5, 2, 0.25])
    return s


def schema(r, depth, defs):
    """defs: names usable in $ref (recursion possible), or none."""
    k = r.random()
    if depth <= 0 or k < 0.45:
        j = r.random()
        if j < 0.3:
            return string_schema(r)
        if j < 0.55:
            return number_schema(r)
        if j < 0.65:
            return {"type": "boolean"}
        if j < 0.7:
            return {"type": "null"}
        if j < 0.8:
            return {"const": r.choice([scalar(r), [1, "a"], {"k": None}])}
        if j < 0.92:
            return {"enum": [scalar(r) for _ in range(r.randint(1, 6))]}
        if j < 0.97:
            return {"type": r.sample(["string", "integer", "null", "boolean"], r.randint(1, 3))}
        return r.choice([{}, True])
    if k < 0.6:
        s = {"type": "array"}
        if r.random() < 0.8:
            s["items"] = schema(r, depth - 1, defs)
        if r.random() < 0.2:
            s["prefixItems"] = [schema(r, depth - 1, defs) for _ in range(r.randint(1, 3))]
        lo = r.randint(0, 2)
        if r.random() < 0.4:
            s["minItems"] = lo
        if r.random() < 0.4:
            s["maxItems"] = lo + r.randint(0, 3)
        return s
    if k < 0.85:
        return object_schema(r, depth, defs)
    if k < 0.9:
        return {"anyOf": [schema(r, depth - 1, defs) for _ in range(r.randint(1, 3))]}
    if k < 0.93:
        out = []
        for i in range(r.randint(1, 3)):
            s = object_schema(r, depth, defs)
            s["properties"] = {"kind": {"const": "k%d" % i}, **s.get("properties", {})}
            s["properties"]["kind"] = {"const": "k%d" % i}
            s["required"] = sorted({"kind", *s.get("required", [])})
            out.append(s)
        return {"oneOf": out}
    if k < 0.96:
        parts = []
        for _ in range(2):
            s = object_schema(r, depth - 1, defs)
            s.pop("additionalProperties", None)
            s.pop("maxProperties", None)
            parts.append(s)
        return {"allOf": parts}
    if defs:
        return {"$ref": "#/$defs/" + r.choice(defs)}
    return {"type": ["object", "null"], "properties": {"v": schema(r, depth - 1, defs)}, "required": ["v"],
            "additionalProperties": False}


def object_schema(r, depth, defs):
    names = r.sample(WORDS, r.randint(0, 4))
    s = {"type": "object"}
    if names or r.random() < 0.5:
        s["properties"] = {n: schema(r, depth - 1, defs) for n in names}
        s["required"] = [n for n in names if r.random() < 0.5]
    k = r.random()
    if k < 0.6:
        s["additionalProperties"] = False
    elif k < 0.7:
        s["additionalProperties"] = schema(r, 0, [])
    elif k < 0.8:
        s["additionalProperties"] = True
    if r.random() < 0.1:
        s["minProperties"] = len(s.get("required", []))
    if r.random() < 0.1:
        s["maxProperties"] = len(names) + r.randint(0, 1)
    return s


def consuming(r, defs):
    """A schema that is no $ref by itself: jsonschema follows those without end."""
    while True:
        s = schema(r, 2, defs)
        if isinstance(s, dict) and not {"$ref", "anyOf"} & set(s):
            return s


def root(r):
    defs = r.sample(["node", "leaf", "a/b~c"], r.randint(0, 2))
    s = schema(r, 3, [d.replace("~", "~0").replace("/", "~1") for d in defs])
    if isinstance(s, bool):
        s = {}
    if defs:
        s = dict(s)
        # a way out of every recursion
        s["$defs"] = {d: {"anyOf": [{"type": "null"}, consuming(r, [x.replace("~", "~0").replace("/", "~1") for x in defs])]}
                      for d in defs}
    return s


class No(Exception):
    """No value was found (the schema may have none)."""


def value(r, s, top, depth=0):
    """A value for s; may raise No. Not every value that comes out is valid: the caller checks."""
    if s is True or s == {} or set(s) == {"$defs"}:
        return some_json(r, 2)
    if s is False or depth > 12:
        raise No
    if "$ref" in s:
        at = top
        for part in s["$ref"].split("/")[1:]:
            at = at[part.replace("~1", "/").replace("~0", "~")]
        return value(r, at, top, depth + 1)
    for key in ("anyOf", "oneOf"):
        if key in s:
            branches = list(s[key])
            if depth < 6:
                r.shuffle(branches)
            for b in branches:
                try:
                    return value(r, b, top, depth + 1)
                except No:
                    pass
            raise No
    if "allOf" in s:
        out = {}
        for b in s["allOf"]:
            v = value(r, b, top, depth + 1)
            out.update({k: x for k, x in v.items() if k not in out})
        order = [p for b in s["allOf"] for p in b.get("properties", {})]
        if order:  # nothing is said of further properties: there are none
            return {k: out[k] for k in dict.fromkeys(order) if k in out}
        return out
    if "const" in s:
        return s["const"]
    if "enum" in s:
        return r.choice(s["enum"])
    t = s["type"]
    if isinstance(t, list):
        t = r.choice(t)
    if t == "null":
        return None
    if t == "boolean":
        return r.random() < 0.5
    if t in ("integer", "number"):
        for _ in range(60):
            v = r.choice([r.randint(-20, 20), r.randint(-200, 20000), r.choice([0, 1, 7, 10, 99, 100, 12345])])
            if t == "number" and r.random() < 0.6:
                v += r.choice([0.5, 0.25, 0.125, 0.75])
            step = s.get("multipleOf")
            if step:
                v = Decimal(str(v)) // Decimal(str(step)) * Decimal(str(step))
                v = int(v) if v == int(v) else float(v)
            if (s.get("minimum", v) <= v <= s.get("maximum", v) and s.get("exclusiveMinimum", v - 1) < v
                    and v < s.get("exclusiveMaximum", v + 1)):
                return v
        raise No
    if t == "string":
        if "pattern" in s:
            return r.choice(dict(PATTERNS)[s["pattern"]])
        if "format" in s:
            return r.choice(FORMATS[s["format"]])
        lo = s.get("minLength", 0)
        return text(r, lo, min(s.get("maxLength", lo + 10), lo + 10))
    if t == "array":
        pre = s.get("prefixItems", [])
        n = r.randint(s.get("minItems", 0), min(s.get("maxItems", 9), s.get("minItems", 0) + 3))
        return [value(r, pre[i] if i < len(pre) else s.get("items", True), top, depth + 1) for i in range(n)]
    out = {}
    for k, sub in s.get("properties", {}).items():
        if k in s.get("required", []) or r.random() < 0.6:
            try:
                out[k] = value(r, sub, top, depth + 1)
            except No:
                if k in s.get("required", []):
                    raise
    extra = s.get("additionalProperties", not s.get("properties"))
    if extra is not False:
        for _ in range(r.randint(0, 2)):
            k = text(r, 1, 5)
            if k not in s.get("properties", {}):
                out[k] = value(r, extra, top, depth + 1)
    return out


def written(r, v):
    """JSON in one of the layouts that are allowed."""
    style = r.choice([{"separators": (",", ":")}, {}, {"indent": 2}, {"indent": 4}, {"indent": "\t"}])
    return json.dumps(v, ensure_ascii=False, **style)
