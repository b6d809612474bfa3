"""Evaluation of a checkpoint folder on the held-out set.

    python evaluate.py --model DIR                      through transformers (CPU or GPU)
    python evaluate.py --model DIR --fast               through the decoder of model.py
    python evaluate.py --model DIR --gloss PATH         by calling the gloss program
    python evaluate.py --model DIR --ask "What is 2+2?" [--effort low]

Prints a table per skill, the validity of tool calls and the mean length of the analysis for
each effort; --json FILE writes the same.  Greedy decoding (temperature 0) throughout.
"""
import argparse
import json
import os
import subprocess
import tempfile
import time

from judge import Score, split_turn
from render import from_openai, prompt_pieces, to_ids
from tokenizer import ENDOFTEXT, STOPS, Tokenizer, find_o200k

HERE = os.path.dirname(os.path.abspath(__file__))


def load_fast(path):
    """The checkpoint (bf16 or MXFP4) in the class of model.py, float32."""
    from safetensors.torch import load_file
    import export
    import model as M
    hf = M.build_model()
    state = load_file(os.path.join(path, "model.safetensors"))
    if any(k.endswith("_blocks") for k in state):
        state = export.dequantize_state(state)
    hf.load_state_dict({k: v.float() for k, v in state.items()})
    return hf.eval()


def run_fast(path, prompts, max_new):
    import torch
    import model as M
    hf = load_fast(path)
    dtype = torch.float32
    if torch.cuda.is_available():
        hf.cuda()
        dtype = torch.bfloat16
    return M.greedy(hf, prompts, STOPS, max_new, dtype=dtype, pad=ENDOFTEXT)


def run_transformers(path, prompts, max_new, batch=64):
    """transformers' own model and generate(), left-padded batches of similar length."""
    import torch
    from transformers import AutoModelForCausalLM, Mxfp4Config
    conf = json.load(open(os.path.join(path, "config.json")))
    kw = {}
    if "quantization_config" in conf:
        kw["quantization_config"] = Mxfp4Config(dequantize=True)
    cuda = torch.cuda.is_available()
    m = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.bfloat16, attn_implementation="eager", **kw)
    m = m.cuda() if cuda else m.float()
    m.eval()
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    out = [None] * len(prompts)
    for s in range(0, len(order), batch):
        part = order[s:s + batch]
        width = max(len(prompts[i]) for i in part)
        ids = torch.full((len(part), width), ENDOFTEXT)
        mask = torch.zeros((len(part), width), dtype=torch.long)
        for r, i in enumerate(part):
            n = len(prompts[i])
            ids[r, width - n:] = torch.tensor(prompts[i])
            mask[r, width - n:] = 1
        if cuda:
            ids, mask = ids.cuda(), mask.cuda()
        with torch.no_grad():
            g = m.generate(input_ids=ids, attention_mask=mask, do_sample=False,
                           max_new_tokens=max_new, eos_token_id=list(STOPS),
                           pad_token_id=ENDOFTEXT, temperature=None, top_p=None)
        for r, i in enumerate(part):
            new = g[r, width:].tolist()
            k = next((n + 1 for n, t in enumerate(new) if t in STOPS), len(new))
            out[i] = new[:k]
    return out


def run_gloss(binary, path, rows, max_new, date):
    """The batch mode of `gloss infer`; answers in the form of split_turn."""
    with tempfile.TemporaryDirectory() as tmp:
        asked, answered = os.path.join(tmp, "in.jsonl"), os.path.join(tmp, "out.jsonl")
        with open(asked, "w") as f:
            for row in rows:
                body = {"messages": row["messages"], "reasoning_effort": row["effort"]}
                if row.get("tools"):
                    body["tools"] = row["tools"]
                f.write(json.dumps(body) + "\n")
        subprocess.run([binary, "infer", "-m", path, "--input-path", asked, "--output-path",
                        answered, "--temperature", "0", "-n", str(max_new), "--date", date,
                        "--parallel", "16"], check=True)
        with open(answered) as f:
            answers = [json.loads(line) for line in f]
    if len(answers) != len(rows):
        raise SystemExit(f"{len(answers)} answers to {len(rows)} prompts")
    return [turn_of(r) for r in answers]


def turn_of(r):
    """One answer of gloss as a turn."""
    turn = {"analysis": r["analysis"], "final": None, "call": None,
            "ok": r["finish_reason"] in ("stop", "tool_calls"),
            "analysis_tokens": r["usage"]["reasoning_tokens"]}
    if r.get("tool_calls"):
        fn = r["tool_calls"][0]["function"]
        turn["call"] = (fn["name"], fn["arguments"])
    else:
        turn["final"] = r["response"]
    return turn


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--model", required=True)
    ap.add_argument("--o200k")
    ap.add_argument("--heldout", default=os.path.join(HERE, "heldout.jsonl"))
    ap.add_argument("--limit", type=int, default=0, help="use every n-th prompt only")
    ap.add_argument("--fast", action="store_true")
    ap.add_argument("--gloss", help="path of the gloss program")
    ap.add_argument("--date", default="2026-11-21")
    ap.add_argument("--max-new", type=int, default=420)
    ap.add_argument("--batch", type=int, default=64, help="prompts at once (transformers)")
    ap.add_argument("--json", help="write the summary here")
    ap.add_argument("--fails", action="store_true", help="print what went wrong")
    ap.add_argument("--ask", action="append", help="ask this instead")
    ap.add_argument("--effort", default="medium")
    a = ap.parse_args()
    tok = None if a.gloss else Tokenizer(find_o200k(a.o200k))
    if a.ask:
        prompts = [to_ids(tok, prompt_pieces(from_openai(
            [{"role": "user", "content": q}], None, a.effort, a.date))) for q in a.ask]
        for q, ids in zip(a.ask, run_fast(a.model, prompts, a.max_new)):
            print(f"> {q}\n  {tok.decode(ids)}")
        return
    rows = [json.loads(l) for l in open(a.heldout)]
    if a.limit:
        rows = rows[::a.limit]
    t = time.time()
    if a.gloss:
        turns = run_gloss(a.gloss, a.model, rows, a.max_new, a.date)
    else:
        prompts = [to_ids(tok, prompt_pieces(from_openai(
            r["messages"], r.get("tools"), r["effort"], a.date))) for r in rows]
        outs = run_fast(a.model, prompts, a.max_new) if a.fast else \
            run_transformers(a.model, prompts, a.max_new, a.batch)
        turns = [split_turn(tok, ids) for ids in outs]
    score = Score()
    for row, turn in zip(rows, turns):
        if not score.add(row, turn) and a.fails:
            print(f"[{row['skill']}/{row['effort']}] {row['messages'][-1]['content']!r} "
                  f"want {json.dumps(row['check'])}\n    got {turn}")
    print(score.table())
    print(f"{time.time() - t:.0f} s")
    if a.json:
        with open(a.json, "w") as f:
            json.dump(score.summary(), f, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
