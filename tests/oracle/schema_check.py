"""Random schemas through the compiler and the masks, against jsonschema:
  - random walks through the masks end in JSON that the schema allows;
  - values made from the schema, written in the allowed layouts, are accepted;
  - whatever is accepted is allowed by the schema.

usage: schema_check.py DRIVER TOKENIZER.JSON [N_TINY N_O200K [SEED]]"""
import datetime
import ipaddress
import json
import random
import re
import subprocess
import sys
import uuid
from decimal import Decimal

import jsonschema

import schema_gen as gen

checker = jsonschema.FormatChecker(formats=[])


def fmt(name):
    def add(f):
        checker.checks(name, raises=Exception)(lambda v: not isinstance(v, str) or bool(f(v)))
        return f
    return add


fmt("date")(lambda v: len(v) == 10 and datetime.date.fromisoformat(v))


@fmt("time")
def is_time(v):
    m = re.fullmatch(r"(\d\d):(\d\d):(\d\d)(\.\d+)?(Z|[+-](\d\d):(\d\d))", v, re.ASCII)
    return int(m[1]) < 24 and int(m[2]) < 60 and int(m[3]) < 60 and (m[5] == "Z" or int(m[6]) < 24 and int(m[7]) < 60)


fmt("date-time")(lambda v: v[10] == "T" and datetime.date.fromisoformat(v[:10]) and is_time(v[11:]))
fmt("duration")(lambda v: re.fullmatch(r"P(?=.)(\d+W|(\d+Y)?(\d+M)?(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+S)?)?)", v))
fmt("uuid")(lambda v: v[8] == v[13] == v[18] == v[23] == "-" and uuid.UUID(v))
fmt("email")(lambda v: re.fullmatch(r"[^\s@.]+(\.[^\s@.]+)*@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", v))
fmt("ipv4")(lambda v: ipaddress.IPv4Address(v))
fmt("ipv6")(lambda v: ipaddress.IPv6Address(v))
fmt("hostname")(lambda v: len(v) < 254 and all(re.fullmatch(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)", p) for p in v.split(".")))
fmt("uri")(lambda v: re.match(r"[A-Za-z][A-Za-z0-9+.-]*:\S", v))


class Driver:
    def __init__(self, path):
        self.p = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, op, **k):
        self.p.stdin.write(json.dumps({"op": op, **k}) + "\n")
        self.p.stdin.flush()
        return json.loads(self.p.stdout.readline())


def number(s):
    """Exact; 1.0 is an integer, which jsonschema knows of floats only."""
    d = Decimal(s)
    return int(d) if d == d.to_integral_value() else d


def loads(s):
    return json.loads(s, parse_float=number)


def validator(schema):
    return jsonschema.Draft202012Validator(loads(json.dumps(schema)), format_checker=checker)


def fail(what, schema, *more):
    print("FAILED:", what, "\n schema", json.dumps(schema), *more, sep="\n ")
    sys.exit(1)


def closed(s, merged=False):
    """The schema with our reading of objects that say nothing of further properties: none."""
    if isinstance(s, list):
        return [closed(x, merged) for x in s]
    if not isinstance(s, dict):
        return s
    out = {}
    for k, v in s.items():
        if k in ("properties", "$defs"):
            out[k] = {n: closed(x) for n, x in v.items()}
        elif k in ("anyOf", "oneOf", "allOf", "items", "prefixItems", "additionalProperties"):
            out[k] = closed(v, k == "allOf")
        else:
            out[k] = v
    if s.get("properties") and "additionalProperties" not in s and not merged:
        out["additionalProperties"] = False
    return out


def check_one(d, r, schema, count):
    ok, narrow = validator(schema), validator(closed(schema))
    c = d("schema", schema=json.dumps(schema))
    values = []
    for _ in range(6):
        try:
            v = gen.value(r, schema, schema)
            if narrow.is_valid(loads(json.dumps(v))):
                values.append(v)
        except gen.No:
            pass
    if "error" in c:
        # only a schema without values may be refused here: the generator stays in the subset
        if values or not c["error"].startswith("nothing satisfies"):
            fail("refused: " + c["error"], schema, values)
        count["unsatisfiable"] += 1
        return
    count["compiled"] += 1
    count["us"].append(c["us"])
    for _ in range(2):
        w = d("walk", seed=r.getrandbits(60), max=1500)
        text = bytes.fromhex(w["hex"]).decode(errors="strict" if w["done"] else "replace")
        if not w["done"]:
            if text.startswith("masked-in"):
                fail(text, schema)
            count["cut"] += 1
            continue
        count["walks"] += 1
        try:
            v = loads(text)
        except ValueError as e:
            fail("not JSON: %s" % e, schema, text)
        errors = [e.message for e in ok.iter_errors(v)]
        if errors:
            fail("walk not valid", schema, text, errors)
    for v in values:
        text = gen.written(r, v)
        a = d("accepts", hex=text.encode().hex(), bytes=r.random() < 0.3)
        if not a["ok"]:
            fail("valid value refused at token %d" % a["at"], schema, text)
        count["positive"] += 1
    for _ in range(4):
        try:
            v = r.choice([gen.some_json(r, 2), gen.value(r, gen.schema(r, 2, []), {})])
        except (gen.No, KeyError):
            continue
        if values and r.random() < 0.6:  # a near miss
            v = json.loads(json.dumps(r.choice(values)))
            if isinstance(v, dict) and v:
                v[r.choice(list(v))] = gen.scalar(r)
            elif isinstance(v, str):
                v = v[:-1] + r.choice("aZ0\u00e9")
        text = json.dumps(v, ensure_ascii=False)
        if d("accepts", hex=text.encode().hex(), bytes=False)["ok"]:
            if not ok.is_valid(loads(text)):
                fail("invalid value accepted", schema, text)
            count["also"] += 1
        else:
            count["refused"] += 1


def main():
    driver, tiny = sys.argv[1:3]
    n_tiny, n_o200k = (int(sys.argv[3]), int(sys.argv[4])) if len(sys.argv) > 4 else (1500, 500)
    seed = int(sys.argv[5]) if len(sys.argv) > 5 else 5
    print("seed", seed)
    r = random.Random(seed)
    d = Driver(driver)
    for name, n in (("o200k", n_o200k), ("tiny", n_tiny)):
        if name == "tiny":
            d("tiny", path=tiny)
        count = dict.fromkeys(["compiled", "unsatisfiable", "walks", "cut", "positive", "also", "refused"], 0)
        count["us"] = []
        for _ in range(n):
            check_one(d, r, gen.root(r), count)
        us = sorted(count.pop("us"))
        if us:
            print(name, count, "compile us: p50 %d, p99 %d, max %d" % (us[len(us) // 2], us[len(us) * 99 // 100], us[-1]))
        print(name, d("stats"))
        if n and (count["compiled"] < n * 0.8 or count["cut"] > n * 0.2):
            fail("too few schemas came through", {}, count)


if __name__ == "__main__":
    main()
