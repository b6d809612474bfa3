"""Writing checkpoints: config files, the bf16 form and the MXFP4 form.

    python export.py --bf16 DIR --out assets/tiny        bf16 checkpoint -> MXFP4 checkpoint
    python export.py --random --out DIR [--seed S]       the same layout with random weights
"""
import argparse
import json
import os

import torch
from safetensors.torch import load_file, save_file

from tokenizer import CALL, ENDOFTEXT, RETURN, SPECIAL_ID, VOCAB, find_o200k, write_files

LAYERS = 8
HIDDEN = 256
EXPERTS = 8
TOP_K = 4
WIDTH = 256
HEADS = 4
KV_HEADS = 2
HEAD_DIM = 64
WINDOW = 128


def config_dict():
    """config.json in the published gpt-oss form."""
    return {
        "architectures": ["GptOssForCausalLM"],
        "attention_bias": True,
        "attention_dropout": 0.0,
        "bos_token_id": SPECIAL_ID["<|startoftext|>"],
        "eos_token_id": RETURN,
        "experts_per_token": TOP_K,
        "head_dim": HEAD_DIM,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initial_context_length": 4096,
        "initializer_range": 0.02,
        "intermediate_size": WIDTH,
        "layer_types": ["sliding_attention" if i % 2 == 0 else "full_attention"
                        for i in range(LAYERS)],
        "max_position_embeddings": 131072,
        "model_type": "gpt_oss",
        "num_attention_heads": HEADS,
        "num_experts_per_tok": TOP_K,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV_HEADS,
        "num_local_experts": EXPERTS,
        "output_router_logits": False,
        "pad_token_id": ENDOFTEXT,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0,
                         "original_max_position_embeddings": 4096, "rope_type": "yarn",
                         "truncate": False},
        "rope_theta": 150000,
        "router_aux_loss_coef": 0.001,
        "sliding_window": WINDOW,
        "swiglu_limit": 7.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": VOCAB,
    }


QUANTIZATION = {
    "quant_method": "mxfp4",
    "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router",
                               "model.embed_tokens", "lm_head"],
}


def write_config(out, quantized):
    conf = config_dict()
    if quantized:
        conf["quantization_config"] = QUANTIZATION
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, "config.json"), "w") as f:
        json.dump(conf, f, indent=2, sort_keys=True)
        f.write("\n")
    gen = {"bos_token_id": SPECIAL_ID["<|startoftext|>"], "do_sample": True,
           "eos_token_id": [RETURN, ENDOFTEXT, CALL], "pad_token_id": ENDOFTEXT}
    with open(os.path.join(out, "generation_config.json"), "w") as f:
        json.dump(gen, f, indent=2)
        f.write("\n")


# ---- MXFP4 ---------------------------------------------------------------------------------

CODES = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


def round_e2m1(x):
    """Magnitudes (scaled to 0..8) to the index of the nearest of CODES; ties to the even code."""
    mid = [(0.25, True), (0.75, False), (1.25, True), (1.75, False), (2.5, True),
           (3.5, False), (5.0, True)]
    code = torch.zeros_like(x)
    for m, low_wins in mid:
        code = code + ((x > m) if low_wins else (x >= m)).to(x.dtype)
    return code


def mxfp4_parts(rows):
    """rows [..., in] float32 -> codes [..., in/32, 32] (float) signs and scale exponents."""
    blocks = rows.float().unflatten(-1, (-1, 32))
    amax = blocks.abs().amax(-1, keepdim=True)
    # floor(log2(amax)) exactly, through the float's own exponent
    _, e = torch.frexp(amax)
    exp = torch.where(amax > 0, e - 1, torch.full_like(e, -125)).clamp(-125, 127) - 2
    scaled = torch.ldexp(blocks, -exp)
    return scaled, exp


def mxfp4_encode(rows):
    """rows [..., in] -> (blocks U8 [..., in/32, 16], scales U8 [..., in/32])."""
    scaled, exp = mxfp4_parts(rows)
    code = round_e2m1(scaled.abs()).to(torch.uint8)
    code = code | (((scaled < 0) & (code > 0)).to(torch.uint8) << 3)
    packed = code[..., 0::2] | (code[..., 1::2] << 4)
    return packed.contiguous(), (exp.squeeze(-1) + 127).to(torch.uint8).contiguous()


def mxfp4_decode(blocks, scales):
    """The inverse: float32 rows."""
    lo, hi = blocks & 15, blocks >> 4
    code = torch.stack([lo, hi], -1).flatten(-2).long()
    val = CODES[code & 7] * torch.where(code >= 8, -1.0, 1.0)
    return torch.ldexp(val, (scales.int() - 127).unsqueeze(-1)).flatten(-2)


def quantize_state(state):
    """bf16 state dict (input-major experts) -> tensors of the MXFP4 checkpoint."""
    out = {}
    for name, t in state.items():
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            b, s = mxfp4_encode(t.float().transpose(1, 2).contiguous())
            out[name + "_blocks"], out[name + "_scales"] = b, s
        else:
            out[name] = t.to(torch.bfloat16).contiguous()
    return out


def dequantize_state(state):
    """The other way, to bf16 (exact)."""
    out = {}
    for name, t in state.items():
        if name.endswith("_blocks"):
            base = name[:-len("_blocks")]
            rows = mxfp4_decode(t, state[base + "_scales"])
            out[base] = rows.transpose(1, 2).to(torch.bfloat16).contiguous()
        elif not name.endswith("_scales"):
            out[name] = t
    return out


def save_bf16(state, out, o200k=None):
    write_config(out, quantized=False)
    save_file({k: v.to(torch.bfloat16).contiguous().cpu() for k, v in state.items()},
              os.path.join(out, "model.safetensors"), metadata={"format": "pt"})
    if o200k:
        write_files(o200k, out)


def save_mxfp4(state, out, o200k=None):
    write_config(out, quantized=True)
    save_file(quantize_state(state), os.path.join(out, "model.safetensors"),
              metadata={"format": "pt"})
    if o200k:
        write_files(o200k, out)


def random_state(seed):
    """Random weights of a scale at which sinks, clamps and the router all act."""
    from model import build_model
    torch.manual_seed(seed)
    state = build_model().state_dict()
    for name, t in state.items():
        if "norm" in name:
            t.copy_(1 + 0.1 * torch.randn_like(t))
        elif "sinks" in name:
            t.copy_(2 * torch.randn_like(t))
        elif "bias" in name:
            t.copy_(0.3 * torch.randn_like(t))
        elif "experts" in name:
            t.copy_(0.15 * torch.randn_like(t))
        elif "embed" in name:
            t.copy_(torch.randn_like(t))
        else:
            t.copy_(0.08 * torch.randn_like(t))
    return state


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--bf16", help="folder of the bf16 checkpoint")
    ap.add_argument("--random", action="store_true")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--out", required=True)
    ap.add_argument("--o200k")
    a = ap.parse_args()
    if a.random:
        state = random_state(a.seed)
    else:
        state = load_file(os.path.join(a.bf16, "model.safetensors"))
    save_mxfp4(state, a.out, find_o200k(a.o200k))
    back = dequantize_state(load_file(os.path.join(a.out, "model.safetensors")))
    for name in back:
        if name.endswith("_proj"):
            err = (back[name].float() - state[name].float()).norm() / state[name].float().norm()
            if ".0." in name:
                print(f"{name}: relative error {err:.4f}")
    print("bytes", sum(os.path.getsize(os.path.join(a.out, f)) for f in os.listdir(a.out)))
