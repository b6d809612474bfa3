"""Training: Muon for the matrices, AdamW for the rest, data made while it trains.

    python train.py --o200k FILE --out DIR --minutes 25

The schedule runs on the clock: warm-up, constant, linear decay to zero over the last part.
From --qat on, the experts' weights are rounded to MXFP4 in the forward pass (straight-through
gradients), so that the final conversion costs nothing.
"""
import argparse
import json
import math
import multiprocessing as mp
import os
import random
import time

import numpy as np

import corpus
from tokenizer import ENDOFTEXT, STOPS, Tokenizer


def worker(o200k, seed, length, rows, weights, queue):
    """One generator process."""
    os.nice(5)
    tok = Tokenizer(o200k)
    corpus.load_words(o200k)
    corpus.set_weights(weights)
    packer = corpus.Packer(tok, seed, length)
    while True:
        queue.put(packer.rows(rows))


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--o200k")
    ap.add_argument("--out", required=True)
    ap.add_argument("--init", help="bf16 checkpoint folder (or file) to start from")
    ap.add_argument("--heldout", default=os.path.join(os.path.dirname(__file__), "heldout.jsonl"))
    ap.add_argument("--minutes", type=float, default=25)
    ap.add_argument("--max-steps", type=int, default=10 ** 9)
    ap.add_argument("--rows", type=int, default=32, help="rows a step")
    ap.add_argument("--length", type=int, default=1024)
    ap.add_argument("--workers", type=int, default=12)
    ap.add_argument("--muon-lr", type=float, default=0.01)
    ap.add_argument("--adam-lr", type=float, default=2e-3)
    ap.add_argument("--adam-only", action="store_true")
    ap.add_argument("--warmup", type=int, default=200)
    ap.add_argument("--decay", type=float, default=0.4, help="part of the time spent decaying")
    ap.add_argument("--qat", type=float, default=0.6,
                    help="part of the time after which QAT begins")
    ap.add_argument("--balance", type=float, default=0.01)
    ap.add_argument("--eval-every", type=float, default=240, help="seconds")
    ap.add_argument("--save-every", type=float, default=420, help="seconds")
    ap.add_argument("--dense", action="store_true", help="plain attention instead of flex")
    ap.add_argument("--no-compile", action="store_true")
    ap.add_argument("--no-eval", action="store_true")
    ap.add_argument("--weights", default="{}", help="JSON: changes of the skill mixture")
    ap.add_argument("--seed", type=int, default=1)
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)
    o200k = corpus.find_o200k(a.o200k)
    o200k_words = corpus.load_words(o200k)

    ctx = mp.get_context("fork")
    queue = ctx.Queue(maxsize=64)
    weights = json.loads(a.weights)
    block = max(a.rows, 32)
    for i in range(a.workers):
        ctx.Process(target=worker, args=(o200k, a.seed * 1000 + i, a.length, block, weights, queue),
                    daemon=True).start()

    import torch
    import torch.nn.functional as F
    import export
    import model as M
    from judge import Score, split_turn
    torch.manual_seed(a.seed)
    dev = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = True
    hf = M.build_model()
    if a.init:
        from safetensors.torch import load_file
        path = a.init if os.path.isfile(a.init) else os.path.join(a.init, "model.safetensors")
        hf.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    hf.to(dev)
    wt = M.Weights(hf)
    cos, sin = wt.rope(a.length, dev)
    n_par = sum(p.numel() for p in hf.parameters())
    print(f"{n_par} parameters, {len(o200k_words)} words, device {dev}", flush=True)

    # ---- loss
    def loss_dense(x, y, d, qat):
        full, win = M.dense_masks(d, wt.window)
        return loss_with(x, y, M.dense_attend(full, win), qat)

    def loss_with(x, y, attend, qat):
        logits, balance = M.forward(wt, x, cos, sin, attend, torch.bfloat16, qat)
        ce = F.cross_entropy(logits.view(-1, logits.shape[-1]), y.view(-1), ignore_index=-100)
        return ce, balance

    def loss_flex(x, y, bf, bw, qat):
        return loss_with(x, y, M.flex_attend(bf, bw), qat)

    if a.no_compile:
        masks = lambda d: M.flex_masks(d, wt.window)
    else:
        loss_dense, loss_flex = torch.compile(loss_dense), torch.compile(loss_flex)
        masks = torch.compile(lambda d: M.flex_masks(d, wt.window))

    # ---- optimisers
    muon, adam = [], []
    for name, p in hf.named_parameters():
        is_matrix = "proj" in name and "bias" not in name
        (muon if is_matrix and not a.adam_only else adam).append(p)
    opt = torch.optim.AdamW([
        {"params": [p for p in adam if p.ndim >= 2], "weight_decay": 0.01},
        {"params": [p for p in adam if p.ndim < 2], "weight_decay": 0.0}],
        lr=a.adam_lr, betas=(0.9, 0.98), eps=1e-10, fused=dev == "cuda")
    groups = {}
    for p in muon:
        groups.setdefault(tuple(p.shape[-2:]) + (p.ndim,), []).append(p)
    state = {k: [torch.zeros_like(p) for p in ps] for k, ps in groups.items()}

    def orthogonal(g):
        """Newton-Schulz iteration to the nearest semi-orthogonal matrices of a batch."""
        x = g.bfloat16()
        flip = x.shape[-2] > x.shape[-1]
        if flip:
            x = x.transpose(-1, -2)
        x = x / (x.float().norm(dim=(-2, -1), keepdim=True) + 1e-7).bfloat16()
        for _ in range(5):
            s = x @ x.transpose(-1, -2)
            x = 3.4445 * x + (-4.7750 * s + 2.0315 * s @ s) @ x
        return (x.transpose(-1, -2) if flip else x).float()

    def muon_group(ps, gs, ms, lr, mu, scale):
        upd = []
        for g, m in zip(gs, ms):
            m.lerp_(g, 1 - mu)
            upd.append((g.lerp(m, mu)).reshape(-1, *g.shape[-2:]))
        sizes = [u.shape[0] for u in upd]
        o = orthogonal(torch.cat(upd))
        for p, u in zip(ps, o.split(sizes)):
            p.mul_(1 - lr * 0.05).sub_(u.view_as(p) * (lr * scale))

    if not a.no_compile:
        muon_group = torch.compile(muon_group)

    @torch.no_grad()
    def muon_step(lr, mu):
        lr_t = torch.tensor(lr, device=dev)
        mu_t = torch.tensor(mu, device=dev)
        for key, ps in groups.items():
            out_in = key[0] / key[1] if key[2] == 2 else key[1] / key[0]
            muon_group(ps, [p.grad for p in ps], state[key], lr_t, mu_t,
                       max(1.0, out_in) ** 0.5)

    # ---- evaluation
    tok = Tokenizer(o200k)
    held = []
    if not a.no_eval:
        from render import from_openai, prompt_pieces, to_ids
        held = [json.loads(l) for l in open(a.heldout)]
        prompts = [to_ids(tok, prompt_pieces(from_openai(
            r["messages"], r.get("tools"), r["effort"], "2026-11-21"))) for r in held]

    def evaluate(quant):
        t = time.time()
        outs = M.greedy(hf, prompts, STOPS, max_new=420,
                        dtype=torch.bfloat16 if dev == "cuda" else torch.float32, qat=quant,
                        pad=ENDOFTEXT)
        score = Score()
        fails = []
        for row, ids in zip(held, outs):
            if not score.add(row, split_turn(tok, ids)):
                fails.append((row, ids))
        print(f"--- eval{' (MXFP4 experts)' if quant else ''} {time.time() - t:.1f} s")
        print(score.table(), flush=True)
        with open(os.path.join(a.out, "fails.txt"), "w") as f:
            for row, ids in fails:
                f.write(f"[{row['skill']}/{row['effort']}] {row['messages'][-1]['content']!r} "
                        f"{json.dumps(row['check'])}\n    {tok.decode(ids)!r}\n")
        return score.summary()

    def save(name):
        s = {k: v.detach().to(torch.bfloat16) for k, v in hf.state_dict().items()}
        export.save_bf16(s, os.path.join(a.out, name))
        print("saved", name, flush=True)

    # ---- the loop
    pend = []

    def batch():
        while not pend:
            x, y, d = queue.get()
            for i in range(0, len(x) - a.rows + 1, a.rows):
                pend.append((x[i:i + a.rows], y[i:i + a.rows], d[i:i + a.rows]))
        x, y, d = pend.pop()
        y = y.astype(np.int64)
        y[y == corpus.IGNORE] = -100
        t = [torch.from_numpy(x.astype(np.int64)), torch.from_numpy(y),
             torch.from_numpy(d.astype(np.int32))]
        return [v.pin_memory().to(dev, non_blocking=True) if dev == "cuda" else v for v in t]

    begin = time.time()
    clock = None            # starts after compilation
    step = tokens = 0
    last_eval = last_save = last_log = time.time()
    acc, acc_n = torch.zeros((), device=dev), 0
    flag = torch.zeros((), device=dev)
    qat_on = False
    while True:
        now = time.time()
        if step == 3:
            if dev == "cuda":
                torch.cuda.synchronize()
            clock = time.time()
            print(f"started after {clock - begin:.1f} s", flush=True)
            last_eval = last_save = clock
        part = (now - clock) / (a.minutes * 60) if clock else 0.0
        if a.max_steps < 10 ** 9:
            part = step / a.max_steps
        if part >= 1 or step >= a.max_steps:
            break
        if part >= a.qat and not qat_on:
            qat_on = True
            flag.fill_(1.0)
            print(f"rounding of the experts begins at step {step}", flush=True)
        f = min(1.0, (step + 1) / a.warmup) * min(1.0, (1 - part) / a.decay)
        x, y, d = batch()
        if a.dense:
            ce, bal = loss_dense(x, y, d, flag)
        else:
            bf, bw = masks(d)
            ce, bal = loss_flex(x, y, bf, bw, flag)
        (ce + a.balance * bal).backward()
        torch.nn.utils.clip_grad_norm_(adam, 1.0, foreach=True)
        for g in opt.param_groups:
            g["lr"] = a.adam_lr * f
        opt.step()
        if groups:
            muon_step(a.muon_lr * f, min(0.95, 0.85 + 0.1 * step / 300))
        for p in hf.parameters():
            p.grad = None
        acc += ce.detach()
        acc_n += 1
        step += 1
        tokens += x.numel()
        if step in (1, 3, 10, 50) or step % 250 == 0 or dev == "cpu":
            loss = acc.item() / acc_n
            acc.zero_()
            t = time.time()
            print(f"step {step} loss {loss:.4f} balance {bal.item():.3f} lr x{f:.3f} "
                  f"{acc_n * x.numel() / (t - last_log):.0f} tokens/s "
                  f"{t - begin:.0f} s part {part:.3f} queue {queue.qsize()}", flush=True)
            acc_n, last_log = 0, t
            if not math.isfinite(loss):
                raise SystemExit("loss is not finite")
        if held and clock and time.time() - last_eval > a.eval_every:
            evaluate(qat_on)
            last_eval = last_log = time.time()
        if clock and time.time() - last_save > a.save_every:
            save("last")
            last_save = last_log = time.time()
    print(f"end: {step} steps, {tokens} tokens, {time.time() - begin:.0f} s", flush=True)
    save("final")
    if held:
        evaluate(False)
        res = evaluate(True)
        res.update(steps=step, tokens=tokens, seconds=time.time() - begin)
        with open(os.path.join(a.out, "result.json"), "w") as f:
            json.dump(res, f, indent=1)
    open(os.path.join(a.out, "done"), "w").close()


if __name__ == "__main__":
    main()
