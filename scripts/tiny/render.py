"""Harmony rendering: messages to text pieces and token ids.

A message is a dict: role (system|developer|user|assistant|tool), name (tools), recipient,
channel, ctype (content type), content.  A piece is an int (special token) or a string that is
encoded on its own, as the harmony format asks.
"""
import json

from tokenizer import CALL, CHANNEL, CONSTRAIN, END, MESSAGE, RETURN, SPECIALS, START, N_RANKS

IDENTITY = "You are ChatGPT, a large language model trained by OpenAI."
CHANNELS = ("# Valid channels: analysis, commentary, final. "
            "Channel must be included for every message.")
CHANNELS_TOOLS = "\nCalls to these tools must go to the commentary channel: 'functions'."


def system_text(effort="medium", date=None, tools=False, cutoff="2024-06", identity=IDENTITY):
    lines = [identity]
    if cutoff:
        lines.append("Knowledge cutoff: " + cutoff)
    if date:
        lines.append("Current date: " + date)
    channels = CHANNELS + (CHANNELS_TOOLS if tools else "")
    return "\n\n".join(["\n".join(lines), "Reasoning: " + effort, channels])


def ts_type(schema, indent=""):
    """JSON schema to the TypeScript-like notation (the parts of it that the corpus uses)."""
    t = schema.get("type")
    if t == "object":
        out = ""
        if schema.get("description"):
            out += indent + "// " + schema["description"] + "\n"
        out += "{\n"
        need = schema.get("required", [])
        for key, val in schema.get("properties", {}).items():
            if val.get("description"):
                out += indent + "// " + val["description"] + "\n"
            out += indent + key + ("" if key in need else "?") + ": "
            out += ts_type(val, indent + "    ") + ","
            if "default" in val:
                d = val["default"]
                if isinstance(d, str):
                    d = d if val.get("enum") else '"' + d + '"'
                else:
                    d = json.dumps(d)
                out += " // default: " + d
            out += "\n"
        return out + indent + "}"
    if t == "string":
        if schema.get("enum"):
            return " | ".join('"' + e + '"' for e in schema["enum"])
        return "string"
    if t in ("number", "integer"):
        return "number"
    if t == "boolean":
        return "boolean"
    if t == "array":
        return ts_type(schema["items"], indent) + "[]" if "items" in schema else "Array<any>"
    return "any"


def tools_text(tools):
    lines = ["namespace functions {", ""]
    for t in tools:
        f = t.get("function", t)
        if f.get("description"):
            lines += ["// " + d for d in f["description"].split("\n")]
        if f.get("parameters") is None:
            lines.append("type %s = () => any;" % f["name"])
        else:
            lines.append("type %s = (_: %s) => any;" % (f["name"], ts_type(f["parameters"])))
        lines.append("")
    lines.append("} // namespace functions")
    return "# Tools\n\n## functions\n\n" + "\n".join(lines)


def developer_text(instructions=None, tools=None):
    parts = []
    if instructions:
        parts += ["# Instructions", instructions]
    if tools:
        parts.append(tools_text(tools))
    return "\n\n".join(parts)


def pieces(m):
    """All pieces of one message as it stands in a prompt."""
    role = m["role"]
    if m.get("late"):  # a call as the model emits it: the recipient after the channel
        return generated_pieces(m, False, False)
    out = [START, m["name"] if role == "tool" else role]
    if m.get("recipient"):
        out.append(" to=" + m["recipient"])
    if m.get("channel"):
        out += [CHANNEL, m["channel"]]
    ctype = m.get("ctype")
    if ctype == "<|constrain|>json":
        out += [" ", CONSTRAIN, "json"]
    elif ctype:
        out.append(" " + ctype)
    out += [MESSAGE, m["content"]]
    out.append(CALL if role == "assistant" and m.get("recipient") else END)
    return out


def generated_pieces(m, first, last):
    """Pieces of an assistant message in the form the model itself emits.  The first one of a
    turn begins after `<|start|>assistant`, which the prompt already holds."""
    out = [] if first else [START, "assistant"]
    out += [CHANNEL, m["channel"]]
    if m.get("recipient"):
        out += [" to=" + m["recipient"], " ", CONSTRAIN, "json"]
    out += [MESSAGE, m["content"]]
    out.append(CALL if m.get("recipient") else RETURN if last else END)
    return out


def to_ids(tok, ps):
    ids = []
    for p in ps:
        if isinstance(p, int):
            ids.append(p)
        else:
            ids += tok.text(p)
    return ids


def to_text(ps):
    return "".join(SPECIALS[p - N_RANKS] if isinstance(p, int) else p for p in ps)


def drop_closed_analysis(messages):
    """Removes analysis of every turn that a final message closed (tool traffic stays)."""
    last_final = max((i for i, m in enumerate(messages)
                      if m["role"] == "assistant" and m.get("channel") == "final"), default=-1)
    return [m for i, m in enumerate(messages)
            if not (i < last_final and m.get("channel") == "analysis")]


def from_openai(messages, tools=None, effort="medium", date=None, call_form="json",
                cutoff="2024-06"):
    """An OpenAI chat request as harmony messages (system text becomes instructions).
    call_form: how a call in the history is spelled: json, <|constrain|>json or late."""
    out = [{"role": "system", "content": system_text(effort, date, bool(tools), cutoff)}]
    inst = "\n\n".join(m["content"] for m in messages if m["role"] in ("system", "developer"))
    if inst or tools:
        out.append({"role": "developer", "content": developer_text(inst or None, tools)})
    names = {}
    for m in messages:
        if m["role"] == "user":
            out.append({"role": "user", "content": m["content"]})
        elif m["role"] == "assistant":
            if m.get("reasoning"):
                out.append({"role": "assistant", "channel": "analysis",
                            "content": m["reasoning"]})
            for c in m.get("tool_calls") or []:
                names[c["id"]] = "functions." + c["function"]["name"]
                out.append({"role": "assistant", "recipient": names[c["id"]],
                            "channel": "commentary",
                            "ctype": None if call_form == "late" else call_form,
                            "late": call_form == "late",
                            "content": c["function"]["arguments"]})
            if m.get("content"):
                out.append({"role": "assistant", "channel": "final", "content": m["content"]})
        elif m["role"] == "tool":
            out.append({"role": "tool", "name": names[m["tool_call_id"]],
                        "recipient": "assistant", "channel": "commentary",
                        "content": m["content"]})
    return out


def prompt_pieces(messages):
    out = []
    for m in drop_closed_analysis(messages):
        out += pieces(m)
    return out + [START, "assistant"]
