#!/usr/bin/env python3
"""Makes tests/golden/logits: logits of transformers' GptOss (eager, float32) for small models of
many shapes, and compares larger ones on the spot.

    python tests/oracle/logits_fixtures.py                 write the fixtures
    python tests/oracle/logits_fixtures.py --wide GLOSS     full-width layers, `GLOSS logits` against
                                                            transformers, not stored

Needs requirements-fixtures.txt. The weights come from the Philox generator of src/base/rng.c by a
rule that tests/fixture.h repeats in C, so a fixture holds only the configuration, the
number of tokens and the expected rows: NAME.json and NAME.f32 (rows x vocabulary, little-endian).
Checkpoints real_* are what transformers' save_pretrained wrote and are committed whole.

The rule. Tensor number t (its place in the list of `tensors`) has the random words
w_i = philox(seed, stream t, i / 4)[i % 4]. A float element is m + sigma/147.8 * (the sum of the
word's four bytes - 510), in float32, then rounded to the file's type. MXFP4 blocks are the bytes
of the words; a scale is base + word % 3. Tokens: philox(seed, stream 2^32, i)[0] % vocabulary.

Why these sizes: biases, sinks and clamps must really act, or an error in them would not show. Each
fixture also records how far transformers' own bfloat16 run is from its float32 run (rms and
maximum over the stored rows): a backend with bf16 arithmetic is judged by that.
"""
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, GptOssConfig, GptOssForCausalLM, Mxfp4Config

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "..", "golden", "logits")
TOKEN_STREAM = 1 << 32
SIGMA_UNIT = 147.8  # standard deviation of a sum of four random bytes


def philox(seed, stream, n_block):
    """uint32 [n_block, 4]: blocks 0 .. n_block-1 of a stream (rng_block)."""
    u32, u64 = np.uint32, np.uint64
    pos = np.arange(n_block, dtype=u64)
    c0, c1 = (pos & 0xFFFFFFFF).astype(u64), pos >> u64(32)
    c2 = np.full(n_block, stream & 0xFFFFFFFF, u64)
    c3 = np.full(n_block, stream >> 32, u64)
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    low = u64(0xFFFFFFFF)
    for _ in range(10):
        p0, p1 = c0 * u64(0xD2511F53), c2 * u64(0xCD9E8D57)
        c0, c1, c2, c3 = (p1 >> u64(32)) ^ c1 ^ u64(k0), p1 & low, (p0 >> u64(32)) ^ c3 ^ u64(k1), p0 & low
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], 1).astype(u32)


def words(seed, stream, n):
    return philox(seed, stream, (n + 3) // 4).reshape(-1)[:n]


def floats(seed, stream, shape, mean, sigma):
    w = words(seed, stream, math.prod(shape))
    total = w.view(np.uint8).reshape(-1, 4).astype(np.int32).sum(1) - 510
    unit = np.float32(sigma / SIGMA_UNIT)
    return (np.float32(mean) + unit * total.astype(np.float32)).reshape(shape)


def tokens(seed, n, n_vocab):
    return (philox(seed, TOKEN_STREAM, n)[:, 0] % np.uint32(n_vocab)).astype(np.int64)


def tensors(f):
    """[(name, kind, shape, mean, sigma)] in canonical order; experts are output-major."""
    c = f["shape"]
    h, i, e, v = c["hidden_size"], c["intermediate_size"], c["num_local_experts"], c["vocab_size"]
    q, kv = c["num_attention_heads"] * c["head_dim"], c["num_key_value_heads"] * c["head_dim"]
    linear = lambda n_in: 1.2 / math.sqrt(n_in)
    expert = lambda n_in: 4.8 / math.sqrt(n_in)
    out = [("embed", "dense", (v, h), 0, 3.0)]
    for n in range(c["num_hidden_layers"]):
        p = f"{n}."
        out += [(p + "attn_norm", "dense", (h,), 1, 0.1)]
        for x, rows in (("q", q), ("k", kv), ("v", kv)):
            out += [(p + x, "dense", (rows, h), 0, linear(h)), (p + x + "_bias", "dense", (rows,), 0, 0.3)]
        out += [
            (p + "sinks", "dense", (c["num_attention_heads"],), 0, 2.0),
            (p + "o", "dense", (h, q), 0, linear(q)),
            (p + "o_bias", "dense", (h,), 0, 0.3),
            (p + "mlp_norm", "dense", (h,), 1, 0.1),
            (p + "router", "dense", (e, h), 0, linear(h)),
            (p + "router_bias", "dense", (e,), 0, 0.3),
            (p + "gate_up", "expert", (e, 2 * i, h), 0, expert(h)),
            (p + "gate_up_bias", "dense", (e, 2 * i), 0, 0.3),
            (p + "down", "expert", (e, h, i), 0, expert(i)),
            (p + "down_bias", "dense", (e, h), 0, 0.3),
        ]
    out += [("norm", "dense", (h,), 1, 0.1)]
    if not c.get("tie_word_embeddings"):
        out += [("unembed", "dense", (v, h), 0, linear(h))]
    return out


HF = {"embed": "model.embed_tokens.weight", "norm": "model.norm.weight", "unembed": "lm_head.weight"}
HF_LAYER = {"attn_norm": "input_layernorm.weight", "mlp_norm": "post_attention_layernorm.weight",
            "sinks": "self_attn.sinks", "router": "mlp.router.weight", "router_bias": "mlp.router.bias"}


def hf_name(name):
    if name in HF:
        return HF[name]
    n, part = name.split(".")
    p = f"model.layers.{n}."
    if part in HF_LAYER:
        return p + HF_LAYER[part]
    base = part.removesuffix("_bias")
    if base in "qkvo":
        return p + f"self_attn.{base}_proj." + ("bias" if base != part else "weight")
    return p + "mlp.experts." + base + "_proj" + ("_bias" if base != part else "")


DTYPE = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def write_hf(f, folder):
    """The checkpoint as transformers reads it: one file, Hugging Face layout."""
    state = {}
    mx = f["experts"] == "mxfp4"
    dtype = DTYPE[f["dtype"]]
    for t, (name, kind, shape, mean, sigma) in enumerate(tensors(f)):
        key = hf_name(name)
        if kind == "expert" and mx:
            blocks = words(f["seed"], 2 * t, math.prod(shape) // 8).view(np.uint8)
            base = 126 + math.floor(math.log2(sigma / 2.93))
            scales = base + words(f["seed"], 2 * t + 1, math.prod(shape) // 32) % 3
            state[key + "_blocks"] = torch.from_numpy(blocks.reshape(*shape[:2], -1, 16).copy())
            state[key + "_scales"] = torch.from_numpy(scales.astype(np.uint8).reshape(*shape[:2], -1))
            continue
        x = torch.from_numpy(floats(f["seed"], 2 * t, shape, mean, sigma)).to(dtype)
        if kind == "expert":
            x = x.transpose(1, 2)
        state[key] = x.contiguous()
    config = GptOssConfig(**f["shape"], **f["rope"]).to_dict()
    config["architectures"] = ["GptOssForCausalLM"]
    if mx:
        config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": [
            "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]}
    os.makedirs(folder)
    save_file(state, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    with open(os.path.join(folder, "config.json"), "w") as out:
        json.dump(config, out)


def logits(folder, dtype, ids, rows):
    config = json.load(open(os.path.join(folder, "config.json")))
    kw = {"quantization_config": Mxfp4Config(dequantize=True)} if "quantization_config" in config else {}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager", **kw)
    model = model.eval().to(dtype)
    with torch.no_grad():
        hidden = model.model(torch.from_numpy(ids)[None]).last_hidden_state[0, rows]
        return model.lm_head(hidden).float().numpy()


def errors(a, b):
    """b - a: rms and maximum over all, and the median of the rows' rms. In bf16 a row whose router
    is nearly tied may take another expert and be far off; the median doesn't see those."""
    d = b.astype(np.float64) - a
    return dict(bf16_rms=float(np.sqrt((d * d).mean())), bf16_max=float(np.abs(d).max()),
                bf16_row_median=float(np.median(np.sqrt((d * d).mean(1)))))


YARN = {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
        "original_max_position_embeddings": 4096}


def shape(layers, hidden, inter, q, kv, d, experts, active, window, vocab, **more):
    return dict(num_hidden_layers=layers, hidden_size=hidden, intermediate_size=inter,
                num_attention_heads=q, num_key_value_heads=kv, head_dim=d, num_local_experts=experts,
                num_experts_per_tok=active, sliding_window=window, vocab_size=vocab, **more)


def yarn(**kw):
    return {"rope_parameters": {**YARN, "rope_theta": 150000.0, **kw}}


# layout: hf, original, each (one tensor per expert); spelling: the configuration the file carries.
CASES = [
    dict(name="base_f32", shape=shape(4, 96, 64, 4, 2, 64, 8, 4, 16, 256), rope=yarn(),
         dtype="f32", experts="f32", layout="hf", spelling="new", n_tok=70),
    dict(name="mqa_mxfp4", shape=shape(3, 128, 96, 8, 1, 32, 16, 2, 4, 256), rope=yarn(),
         dtype="bf16", experts="mxfp4", layout="hf", spelling="old", n_tok=100),
    dict(name="original_mxfp4", shape=shape(2, 64, 160, 4, 4, 64, 4, 4, 128, 200), rope=yarn(),
         dtype="bf16", experts="mxfp4", layout="original", spelling="original", n_tok=200),
    dict(name="original_bf16", shape=shape(6, 64, 32, 6, 3, 32, 4, 1, 16, 256), rope=yarn(),
         dtype="bf16", experts="bf16", layout="original", spelling="original", n_tok=60),
    dict(name="head128_f16", shape=shape(1, 96, 64, 2, 1, 128, 32, 4, 16, 300), rope=yarn(),
         dtype="f16", experts="f16", layout="hf", spelling="new", n_tok=50),
    dict(name="plain_rope_sharded", shape=shape(
        3, 64, 128, 4, 2, 64, 8, 4, 16, 256,
        layer_types=["full_attention", "sliding_attention", "sliding_attention"]),
         rope={"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
         dtype="bf16", experts="bf16", layout="hf", spelling="new", shards=3, n_tok=80),
    dict(name="truncate_f32", shape=shape(3, 64, 96, 4, 1, 64, 5, 3, 16, 256,
                                           max_position_embeddings=512, rms_norm_eps=1e-6,
                                           swiglu_limit=3.0),
         rope=yarn(factor=8.0, truncate=True, original_max_position_embeddings=64,
                   attention_factor=1.1, rope_theta=5000.0),
         dtype="f32", experts="f32", layout="hf", spelling="new", n_tok=150),
    dict(name="long_mxfp4", shape=shape(2, 64, 64, 2, 1, 64, 4, 2, 128, 256), rope=yarn(),
         dtype="bf16", experts="mxfp4", layout="hf", spelling="old", shards=2, n_tok=5000),
    dict(name="each_bf16", shape=shape(2, 64, 96, 3, 1, 32, 6, 3, 4, 301), rope=yarn(),
         dtype="bf16", experts="bf16", layout="each", spelling="old", n_tok=40),
    dict(name="tied_f32", shape=shape(2, 96, 32, 4, 2, 32, 12, 4, 16, 200, tie_word_embeddings=True),
         rope=yarn(), dtype="f32", experts="f32", layout="hf", spelling="new", n_tok=64),
]


def file_config(f, config):
    """config.json in the spelling the fixture's checkpoint carries."""
    s, r = f["shape"], f["rope"]["rope_parameters"]
    if f["spelling"] == "original":
        return {"num_hidden_layers": s["num_hidden_layers"], "num_experts": s["num_local_experts"],
                "experts_per_token": s["num_experts_per_tok"], "vocab_size": s["vocab_size"],
                "hidden_size": s["hidden_size"], "intermediate_size": s["intermediate_size"],
                "swiglu_limit": 7.0, "head_dim": s["head_dim"],
                "num_attention_heads": s["num_attention_heads"],
                "num_key_value_heads": s["num_key_value_heads"], "sliding_window": s["sliding_window"],
                "initial_context_length": 4096, "rope_theta": r["rope_theta"],
                "rope_scaling_factor": r["factor"], "rope_ntk_alpha": r["beta_slow"],
                "rope_ntk_beta": r["beta_fast"]}
    if f["spelling"] == "new":
        return config
    old = {k: v for k, v in config.items() if k not in ("rope_parameters", "dtype", "swiglu_alpha",
                                                        "layer_types")}
    old.update(torch_dtype="bfloat16", rope_theta=150000, initial_context_length=4096,
               experts_per_token=s["num_experts_per_tok"],
               rope_scaling={k: v for k, v in r.items() if k not in ("rope_theta", "truncate")})
    return old


def stored_rows(n_tok):
    """The last eight rows, and up to sixteen spread over the rest of a short prompt."""
    rows = set(range(max(0, n_tok - 8), n_tok))
    if n_tok <= 512:
        rows |= {n_tok * k // 16 for k in range(16)}
    return sorted(rows)


def store(name, record, rows):
    with open(os.path.join(OUT, name + ".json"), "w") as out:
        json.dump(record, out, indent=1)
        out.write("\n")
    rows.astype("<f4").tofile(os.path.join(OUT, name + ".f32"))


def make(f, seed):
    f["seed"] = seed
    with tempfile.TemporaryDirectory() as tmp:
        folder = os.path.join(tmp, "hf")
        write_hf(f, folder)
        config = json.load(open(os.path.join(folder, "config.json")))
        ids = tokens(seed, f["n_tok"], f["shape"]["vocab_size"])
        rows = stored_rows(f["n_tok"])
        exact = logits(folder, torch.float32, ids, rows)
        bf16 = errors(exact, logits(folder, torch.bfloat16, ids, rows))
    record = dict(seed=seed, dtype=f["dtype"], experts=f["experts"], layout=f["layout"],
                  shards=f.get("shards", 1), n_tok=f["n_tok"], rows=rows,
                  scale=float(np.abs(exact).max()), **bf16, config=file_config(f, config))
    store(f["name"], record, exact)
    print(f"{f['name']}: scale {record['scale']:.3f}, {bf16}")


def make_real(name, layers, dtype, seed, **save):
    """A checkpoint exactly as save_pretrained writes it."""
    torch.manual_seed(seed)
    s = shape(layers, 32, 64, 2, 1, 32, 4, 2, 8, 96)
    model = GptOssForCausalLM(GptOssConfig(**s, attn_implementation="eager")).eval()
    with torch.no_grad():
        for key, p in model.named_parameters():
            sigma = (0.3 if "bias" in key else 0.5 if "experts" in key else 2.0 if "sinks" in key
                     else 3.0 if "embed" in key else 0.1 if "norm" in key else 0.12)
            p.normal_(1.0 if "norm" in key else 0.0, sigma)
    folder = os.path.join(OUT, name)
    shutil.rmtree(folder, ignore_errors=True)
    model.to(dtype).save_pretrained(folder, **save)
    for file in os.listdir(folder):
        os.chmod(os.path.join(folder, file), 0o644)
    ids = tokens(seed, 40, 96)
    rows = stored_rows(40)
    exact = logits(folder, torch.float32, ids, rows)
    bf16 = errors(exact, logits(folder, torch.bfloat16, ids, rows))
    store(name, dict(seed=seed, n_tok=40, tokens=ids.tolist(), rows=rows, scale=float(np.abs(exact).max()),
                     **bf16, config=None), exact)
    print(f"{name}: {os.listdir(folder)} {bf16}")


# Layers as wide as the released models, with a small vocabulary: `gloss synth` makes them.
WIDE = [
    ("one 20b layer, MXFP4", dict(layers=1, vocab=512), 100),
    ("the same in bf16, 8 experts", dict(layers=1, experts=8, vocab=512, bf16=None), 100),
    ("narrow and deep", dict(layers=24, hidden=256, intermediate=256, heads=8, kv_heads=2, experts=16,
                             vocab=512), 200),
    ("past 4096 tokens", dict(layers=2, hidden=256, intermediate=128, heads=4, kv_heads=2, experts=8,
                              vocab=512), 4600),
]


def wide(gloss):
    for seed, (title, flags, n_tok) in enumerate(WIDE):
        with tempfile.TemporaryDirectory() as tmp:
            folder = os.path.join(tmp, "hf")
            args = [x for k, v in flags.items()
                    for x in ("--" + k.replace("_", "-"), str(v))[:1 if v is None else 2]]
            subprocess.check_call([gloss, "synth", "-q", "--like", "gpt-oss-20b", "--out", folder,
                                   "--seed", str(seed), *args])
            ids = tokens(5000 + seed, n_tok, 512)
            rows = list(range(max(0, n_tok - 100), n_tok))
            want = logits(folder, torch.float32, ids, rows)
            scale = np.abs(want).max()
            print(f"{title}: {n_tok} tokens, scale {scale:.2f}; errors of the scale:")
            tell = lambda who, e: print(f"  {who:18} rms {e['bf16_rms'] / scale:.1e}  median row "
                                        f"{e['bf16_row_median'] / scale:.1e}  max "
                                        f"{e['bf16_max'] / scale:.1e}", flush=True)
            tell("transformers bf16", errors(want, logits(folder, torch.bfloat16, ids, rows)))
            with open(os.path.join(tmp, "ids.json"), "w") as out:
                json.dump(ids.tolist(), out)
            for how in (["--reference"], ["--arith", "f32"], ["--arith", "bf16"]):
                out = os.path.join(tmp, "out.npy")
                subprocess.check_call([gloss, "logits", "-m", folder, "--tokens-file",
                                       os.path.join(tmp, "ids.json"), "--out", out, *how])
                tell("gloss " + how[-1].strip("-"), errors(want, np.load(out)[rows]))


def main():
    if sys.argv[1:2] == ["--wide"]:
        wide(sys.argv[2])
        return
    os.makedirs(OUT, exist_ok=True)
    for i, f in enumerate(CASES):
        make(f, 1000 + i)
    make_real("real_bf16_sharded", 2, torch.bfloat16, 1, max_shard_size="64KB")
    make_real("real_f32", 1, torch.float32, 2)


if __name__ == "__main__":
    main()
