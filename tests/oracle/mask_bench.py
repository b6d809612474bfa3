"""Time of masks at the full vocabulary along realistic documents: CPU time of the sampling thread,
first with every cache empty (each schema in one layout), then again in three layouts.

usage: mask_bench.py DRIVER"""
import json
import sys

from schema_check import Driver

S, I, N, B = {"type": "string"}, {"type": "integer"}, {"type": "number"}, {"type": "boolean"}


def obj(**p):
    return {"type": "object", "properties": p, "required": list(p), "additionalProperties": False}


def arr(x, **k):
    return {"type": "array", "items": x, **k}


CASES = [
    (obj(city=S, unit={"enum": ["celsius", "fahrenheit"]}), {"city": "San Francisco, CA", "unit": "celsius"}),
    (obj(name={"type": "string", "minLength": 1, "maxLength": 80}, age={"type": "integer", "minimum": 0, "maximum": 150},
         email={"type": "string", "format": "email"}, tags=arr(S, maxItems=5)),
     {"name": "Ada Lovelace", "age": 36, "email": "ada@example.org", "tags": ["mathematics", "analytical engine"]}),
    (obj(invoice=obj(number={"type": "string", "pattern": "^INV-[0-9]{4,8}$"}, date={"type": "string", "format": "date"}),
         lines=arr(obj(sku=S, text=S, quantity={"type": "integer", "minimum": 1}, price={"type": "number", "minimum": 0})),
         total=N, paid=B),
     {"invoice": {"number": "INV-20391", "date": "2026-03-14"},
      "lines": [{"sku": "A-%d" % i, "text": "A rather long description of article %d, with commas, and \"quotes\"." % i,
                 "quantity": i + 1, "price": 19.95 * (i + 1)} for i in range(6)], "total": 418.95, "paid": False}),
    (obj(steps=arr(obj(explanation=S, output=S)), answer=S),
     {"steps": [{"explanation": "Subtract 7 from both sides of the equation to isolate the term with x.", "output": "8x = -30"},
                {"explanation": "Divide both sides by 8 and simplify the fraction.", "output": "x = -15/4"}], "answer": "x = -15/4"}),
    ({"$defs": {"node": obj(label=S, children=arr({"$ref": "#/$defs/node"}))}, "$ref": "#/$defs/node"},
     {"label": "root", "children": [{"label": "left", "children": [{"label": "leaf \u65e5\u672c", "children": []}]}, {"label": "right", "children": []}]}),
    (obj(action={"anyOf": [obj(type={"const": "search"}, query=S, limit={"type": "integer", "minimum": 1, "maximum": 100}),
                           obj(type={"const": "open"}, url={"type": "string", "format": "uri"}),
                           obj(type={"const": "finish"}, summary={"type": "string", "maxLength": 2000})]}, reason=S),
     {"action": {"type": "finish", "summary": "The library rejects overlong forms and surrogates; nothing else was found. " * 3},
      "reason": "All three pages agree, so no further search is needed."}),
    ({}, {"anything": [1, 2.5, None, {"nested": "text of some length, as models write it"}], "more": "\u00e9t\u00e9"}),
    (obj(label={"enum": ["positive", "neutral", "negative"]}, confidence={"type": "number", "minimum": 0, "maximum": 1}),
     {"label": "neutral", "confidence": 0.875}),
    (obj(path=S, content=S), {"path": "src/main.py", "content": "import sys\n\n\ndef main():\n    print(\"hello\", sys.argv)\n\n\nmain()\n" * 4}),
]


def main():
    d = Driver(sys.argv[1])
    for what in ("empty cache", "again"):
        compile_us = []
        for schema, value in CASES:
            for style in ({"separators": (",", ":")}, {}, {"indent": 2})[:1 if what == "empty cache" else 3]:
                c = d("schema", schema=json.dumps(schema))
                compile_us.append(c["us"])
                text = json.dumps(value, ensure_ascii=False, **style)
                if not d("accepts", hex=text.encode().hex(), bytes=False)["ok"]:
                    sys.exit("refused: " + text)
        s = d("stats")
        print("%s: %d masks, us mean %.1f, p50 %.1f, p99 %.1f, max %.0f; compile us max %d" %
              (what, s["masks"], *s["us"], max(compile_us)))


if __name__ == "__main__":
    main()
