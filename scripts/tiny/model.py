"""The model: transformers' GptOssForCausalLM for weights and configuration, with a fast
forward of our own for training and a small batched greedy decoder for evaluation.

The fast forward computes the same function as transformers' eager code (`python model.py`
checks it):
  * experts: the gate/up matrices of all experts are one matrix product, the activations of
    experts that the router did not choose are multiplied by zero, and one second product adds
    the experts up.  With 8 experts of which 4 are used this costs twice the arithmetic and
    saves all gathering;
  * attention: flex_attention over packed rows (documents, causal, window), the sink applied
    through the log-sum-exp: out * sigmoid(lse - sink).
"""
import torch
import torch.nn.functional as F

import export


def build_model():
    """GptOssForCausalLM in float32 with this model's configuration."""
    from transformers import GptOssConfig, GptOssForCausalLM
    conf = export.config_dict()
    for k in ("architectures", "torch_dtype", "model_type", "initial_context_length",
              "experts_per_token"):
        conf.pop(k)
    config = GptOssConfig(**conf, attn_implementation="eager")
    return GptOssForCausalLM(config).float()


class Weights:
    """The parameters of the model by short names, and the rotary tables."""

    def __init__(self, hf):
        c = hf.config
        self.hf = hf
        self.eps = c.rms_norm_eps
        self.top_k = c.num_experts_per_tok
        self.heads, self.kv_heads = c.num_attention_heads, c.num_key_value_heads
        self.window = c.sliding_window
        self.sliding = [t == "sliding_attention" for t in c.layer_types]

    def rope(self, n, device):
        """cos, sin [n, head_dim/2] with the YaRN scale in them."""
        rot = self.hf.model.rotary_emb
        x = torch.zeros(1, 1, device=device)
        cos, sin = rot(x, torch.arange(n, device=device)[None])
        half = cos.shape[-1] if cos.shape[-1] == 32 else cos.shape[-1] // 2
        return cos[0, :, :half].float(), sin[0, :, :half].float()


def rms(x, w, eps):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * w


def rotate(x, cos, sin):
    """x [..., T, D]; half-split rotation."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def round_experts(w):
    """MXFP4 rounding along the input axis of [E, in, out] weights."""
    rows = w.transpose(1, 2)
    blocks = rows.unflatten(-1, (-1, 32))
    amax = blocks.abs().amax(-1, keepdim=True).clamp_min(1e-30)
    scale = torch.exp2(torch.floor(torch.log2(amax)) - 2)
    x = (blocks / scale).abs()
    step = torch.where(x < 2, 0.5, torch.where(x < 4, 1.0, 2.0))
    q = torch.clamp(torch.round(x / step) * step, max=6.0)
    return (torch.sign(blocks) * q * scale).flatten(-2).transpose(1, 2)


def moe(layer, x, top_k, dtype, qat):
    """x [T, H] float32 (already normalised) -> (y [T, H], balance loss)."""
    m = layer.mlp
    logits = F.linear(x, m.router.weight, m.router.bias).float()
    val, idx = logits.topk(top_k, dim=-1)
    gate_w = torch.zeros_like(logits).scatter(-1, idx, torch.softmax(val, -1))
    ex = m.experts
    w1, w2 = ex.gate_up_proj, ex.down_proj
    if qat is not None:  # 0 or 1, a tensor: switching it on needs no new compilation
        w1 = w1 + qat * (round_experts(w1.detach()) - w1.detach())
        w2 = w2 + qat * (round_experts(w2.detach()) - w2.detach())
    n_e, hid, two_i = w1.shape
    xb = x.to(dtype)
    # [H, E, I] for the gates and the ups: the halves are de-interleaved in the weights
    wg = w1[:, :, 0::2].permute(1, 0, 2).reshape(hid, -1).to(dtype)
    wu = w1[:, :, 1::2].permute(1, 0, 2).reshape(hid, -1).to(dtype)
    g = (xb @ wg).float() + ex.gate_up_proj_bias[:, 0::2].reshape(-1)
    u = (xb @ wu).float() + ex.gate_up_proj_bias[:, 1::2].reshape(-1)
    g = g.clamp(max=7.0)
    u = u.clamp(-7.0, 7.0)
    a = g * torch.sigmoid(1.702 * g) * (u + 1)
    a = (a.view(-1, n_e, two_i // 2) * gate_w[:, :, None]).view(-1, n_e * (two_i // 2))
    y = a.to(dtype) @ w2.reshape(-1, hid).to(dtype)
    y = y.float() + gate_w @ ex.down_proj_bias
    prob = torch.softmax(logits, -1).mean(0)
    used = (gate_w > 0).float().mean(0)
    return y, n_e * (prob * used).sum()


def qkv(layer, x, dtype):
    a = layer.self_attn
    w = torch.cat([a.q_proj.weight, a.k_proj.weight, a.v_proj.weight]).to(dtype)
    b = torch.cat([a.q_proj.bias, a.k_proj.bias, a.v_proj.bias]).to(dtype)
    return F.linear(x.to(dtype), w, b)


def forward(wt, tokens, cos, sin, attend, dtype=torch.bfloat16, qat=None):
    """Logits [B, T, V] float32 and the mean balance loss.  attend(q, k, v, sinks, sliding)."""
    core = wt.hf.model
    x = core.embed_tokens.weight[tokens].float()
    n_b, n_t, hid = x.shape
    balance = 0.0
    nq, nkv = wt.heads, wt.kv_heads
    for i, layer in enumerate(core.layers):
        n = rms(x, layer.input_layernorm.weight, wt.eps)
        h = qkv(layer, n, dtype).view(n_b, n_t, nq + 2 * nkv, -1).transpose(1, 2)
        q, k, v = h.split([nq, nkv, nkv], 1)
        q = rotate(q.float(), cos, sin).to(dtype)
        k = rotate(k.float(), cos, sin).to(dtype)
        o = attend(q, k, v, layer.self_attn.sinks, wt.sliding[i])
        o = o.transpose(1, 2).reshape(n_b, n_t, -1).to(dtype)
        op = layer.self_attn.o_proj
        x = x + F.linear(o, op.weight.to(dtype), op.bias.to(dtype)).float()
        n = rms(x, layer.post_attention_layernorm.weight, wt.eps)
        y, bal = moe(layer, n.view(-1, hid), wt.top_k, dtype, qat)
        x = x + y.view(n_b, n_t, hid)
        balance = balance + bal
    x = rms(x, core.norm.weight, wt.eps)
    logits = F.linear(x.to(dtype), wt.hf.lm_head.weight.to(dtype))
    return logits.float(), balance / len(core.layers)


def dense_attend(mask_full, mask_window):
    """Plain attention with the sink as one more column; masks are boolean [B, 1, T, T]."""
    def attend(q, k, v, sinks, sliding):
        rep = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(rep, 1), v.repeat_interleave(rep, 1)
        s = (q @ k.transpose(-1, -2)).float() / q.shape[-1] ** 0.5
        s = s.masked_fill(~(mask_window if sliding else mask_full), float("-inf"))
        col = sinks.float()[None, :, None, None].expand(s.shape[0], -1, s.shape[2], 1)
        p = torch.softmax(torch.cat([s, col], -1), -1)[..., :-1]
        return p.to(v.dtype) @ v
    return attend


def dense_masks(doc, window):
    """Masks from document numbers [B, T]."""
    t = doc.shape[1]
    pos = torch.arange(t, device=doc.device)
    same = doc[:, None, :, None] == doc[:, None, None, :]
    diff = pos[:, None] - pos[None, :]
    full = same & (diff >= 0)
    return full, full & (diff < window)


def flex_attend(block_full, block_window):
    """flex_attention with the sink through the log-sum-exp."""
    from torch.nn.attention.flex_attention import AuxRequest, flex_attention

    def attend(q, k, v, sinks, sliding):
        o, aux = flex_attention(q, k, v, block_mask=block_window if sliding else block_full,
                                enable_gqa=True, return_aux=AuxRequest(lse=True))
        return o.float() * torch.sigmoid(aux.lse - sinks.float()[None, :, None])[..., None]
    return attend


def flex_masks(doc, window):
    from torch.nn.attention.flex_attention import create_block_mask
    n_b, n_t = doc.shape

    def full(b, h, i, j):
        return (doc[b, i] == doc[b, j]) & (i >= j)

    def windowed(b, h, i, j):
        return (doc[b, i] == doc[b, j]) & (i >= j) & (i - j < window)

    return (create_block_mask(full, n_b, None, n_t, n_t, device=doc.device),
            create_block_mask(windowed, n_b, None, n_t, n_t, device=doc.device))


@torch.no_grad()
def greedy(hf, prompts, stops, max_new=400, max_len=1024, dtype=torch.bfloat16, qat=False,
           pad=0):
    """Greedy continuation of a batch of prompts, one position a step for all rows together
    (prompt tokens are fed the same way, so rows of any length share the batch)."""
    wt = Weights(hf)
    dev = next(hf.parameters()).device
    n_b = len(prompts)
    lens = torch.tensor([len(p) for p in prompts], device=dev)
    total = min(max(len(p) for p in prompts) + max_new, max_len)
    toks = torch.full((n_b, total + 1), pad, dtype=torch.long)
    for i, p in enumerate(prompts):
        toks[i, :len(p)] = torch.tensor(p)
    toks = toks.to(dev)
    cos, sin = wt.rope(total, dev)
    core, nq, nkv = hf.model, wt.heads, wt.kv_heads
    # weights prepared once
    prep = []
    for layer in core.layers:
        a, ex = layer.self_attn, layer.mlp.experts
        w1, w2 = ex.gate_up_proj, ex.down_proj
        if qat:
            w1, w2 = round_experts(w1), round_experts(w2)
        prep.append(dict(
            wqkv=torch.cat([a.q_proj.weight, a.k_proj.weight, a.v_proj.weight]).to(dtype),
            bqkv=torch.cat([a.q_proj.bias, a.k_proj.bias, a.v_proj.bias]).to(dtype),
            wo=a.o_proj.weight.to(dtype), bo=a.o_proj.bias.to(dtype),
            w1=torch.cat([w1[:, :, 0::2].permute(1, 0, 2).reshape(w1.shape[1], -1),
                          w1[:, :, 1::2].permute(1, 0, 2).reshape(w1.shape[1], -1)], 1).to(dtype),
            b1=torch.cat([ex.gate_up_proj_bias[:, 0::2].reshape(-1),
                          ex.gate_up_proj_bias[:, 1::2].reshape(-1)]).float(),
            w2=w2.reshape(-1, w2.shape[2]).to(dtype), b2=ex.down_proj_bias.float()))
    kc = [torch.zeros(n_b, nkv, total, 64, device=dev, dtype=dtype) for _ in prep]
    vc = [torch.zeros_like(k) for k in kc]
    stop = torch.tensor(stops, device=dev)
    done = torch.zeros(n_b, dtype=torch.bool, device=dev)
    end = torch.full((n_b,), total, device=dev)
    head = hf.lm_head.weight.to(dtype)
    for t in range(total - 1):
        x = core.embed_tokens.weight[toks[:, t]].float()
        for i, layer in enumerate(core.layers):
            p = prep[i]
            n = rms(x, layer.input_layernorm.weight, wt.eps)
            h = F.linear(n.to(dtype), p["wqkv"], p["bqkv"]).view(n_b, nq + 2 * nkv, 64)
            q, k, v = h.split([nq, nkv, nkv], 1)
            q = rotate(q.float(), cos[t], sin[t]).to(dtype)
            k = rotate(k.float(), cos[t], sin[t]).to(dtype)
            kc[i][:, :, t], vc[i][:, :, t] = k, v
            lo = max(0, t + 1 - wt.window) if wt.sliding[i] else 0
            ks, vs = kc[i][:, :, lo:t + 1], vc[i][:, :, lo:t + 1]
            s = (q.view(n_b, nkv, nq // nkv, 64) @ ks.transpose(-1, -2)).float() / 8
            col = layer.self_attn.sinks.float().view(1, nkv, nq // nkv, 1).expand(n_b, -1, -1, 1)
            pr = torch.softmax(torch.cat([s, col], -1), -1)[..., :-1].to(dtype)
            o = (pr @ vs).reshape(n_b, nq * 64)
            x = x + F.linear(o, p["wo"], p["bo"]).float()
            n = rms(x, layer.post_attention_layernorm.weight, wt.eps)
            r = layer.mlp.router
            lg = F.linear(n, r.weight.float(), r.bias.float())
            val, idx = lg.topk(wt.top_k, -1)
            gw = torch.zeros_like(lg).scatter(-1, idx, torch.softmax(val, -1))
            g, u = ((n.to(dtype) @ p["w1"]).float() + p["b1"]).chunk(2, -1)
            g, u = g.clamp(max=7.0), u.clamp(-7.0, 7.0)
            a = g * torch.sigmoid(1.702 * g) * (u + 1)
            a = (a.view(n_b, gw.shape[1], -1) * gw[:, :, None]).view(n_b, -1)
            x = x + (a.to(dtype) @ p["w2"]).float() + gw @ p["b2"]
        if t + 1 < lens.min():
            continue
        nxt = F.linear(rms(x, core.norm.weight, wt.eps).to(dtype), head).argmax(-1)
        live = (t + 1 >= lens) & ~done
        toks[:, t + 1] = torch.where(live, nxt, toks[:, t + 1])
        hit = live & torch.isin(nxt, stop)
        end = torch.where(hit, torch.full_like(end, t + 2), end)
        over = live & (t + 2 - lens >= max_new)
        end = torch.where(over & ~hit, torch.full_like(end, t + 2), end)
        done = done | hit | over
        if t % 16 == 0 and bool(done.all()):
            break
    toks, end = toks.cpu(), end.cpu()
    return [toks[i, len(p):int(end[i])].tolist() for i, p in enumerate(prompts)]


def self_test():
    """Fast forward, packed forward and decoder against transformers' eager forward."""
    torch.manual_seed(0)
    hf = build_model().eval()
    hf.load_state_dict(export.random_state(3))
    wt = Weights(hf)
    t = 300
    tokens = torch.randint(0, export.VOCAB, (2, t))
    with torch.no_grad():
        want = hf(tokens).logits
        cos, sin = wt.rope(2 * t, "cpu")
        full, win = dense_masks(torch.zeros(2, t, dtype=torch.long), wt.window)
        got, _ = forward(wt, tokens, cos[:t], sin[:t], dense_attend(full, win), torch.float32)
        print("dense:", (got - want).abs().max().item(), "of", want.abs().max().item())
        # both sequences packed into one row
        doc = torch.cat([torch.zeros(1, t), torch.ones(1, t)], 1).long()
        full, win = dense_masks(doc, wt.window)
        got, _ = forward(wt, tokens.view(1, -1), cos, sin, dense_attend(full, win), torch.float32)
        print("packed:", (got.view(2, t, -1) - want).abs().max().item())
        try:
            bf, bw = flex_masks(doc, wt.window)
            got, _ = forward(wt, tokens.view(1, -1), cos, sin, flex_attend(bf, bw), torch.float32)
            print("flex:", (got.view(2, t, -1) - want).abs().max().item())
        except Exception as e:  # flex_attention may be missing on a machine
            print("flex: not run:", repr(e)[:200])
        out = greedy(hf, [tokens[0, :40].tolist(), tokens[1, :33].tolist()], (-1,), 12,
                     dtype=torch.float32)
        for row, n in ((0, 40), (1, 33)):
            seq = tokens[row:row + 1, :n]
            for _ in range(12):
                seq = torch.cat([seq, hf(seq).logits[:, -1].argmax(-1)[:, None]], 1)
            print("decode:", seq[0, n:].tolist() == out[row])
        w = torch.randn(2, 64, 96)
        b, s = export.mxfp4_encode(w.transpose(1, 2).contiguous())
        print("rounding:", torch.equal(export.mxfp4_decode(b, s).transpose(1, 2),
                                       round_experts(w)))


if __name__ == "__main__":
    self_test()
