#!/usr/bin/env python3
"""Makes a small random GGUF file of every architecture, and the logits that transformers computes from it in float32.

    pip install gguf==0.19.0 torch transformers accelerate safetensors && python3 tests/golden/gguf/make_models.py [NAME...]

Written with the `gguf` package, in the conventions of llama.cpp's converter; read back by transformers' gguf_file=, which
knows these conventions (rows of Llama's q and k, Gemma's norms, GPT-2's transposed matrices) independently of us.

NAME.gguf: vocabulary 256, two layers (Gemma 3: six, of which the last sees all tokens). Each matrix has another of the types that its width allows, over all files every
type that TinyServe reads. K-quants are random blocks with fitting scales (the package cannot make them); norms are
1 + 0.1 N(0,1) and biases 0.2 N(0,1), so that a loader that drops one is caught.
NAME.safetensors, all F32: tokens [48], logits [48, 256]."""
import pathlib, sys
import numpy as np
import torch
from gguf import GGUFWriter, GGMLQuantizationType as T
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import quantize
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).resolve().parent
VOCAB, LAYERS, TOKENS = 256, 2, 48
SMALL = [T.Q8_0, T.Q5_0, T.Q4_1, T.F16, T.Q5_1, T.Q4_0, T.BF16, T.F32]
LARGE = [T.Q4_K, T.Q6_K, T.Q3_K, T.Q5_K, T.Q2_K, T.Q8_0]
SCALES = {T.Q2_K: (80, 82), T.Q3_K: (108, None), T.Q4_K: (0, 2), T.Q5_K: (0, 2), T.Q6_K: (208, None)}
# GPT-2's characters of the 256 bytes, in their order.
PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
ALPHABET = [chr(b) for b in PRINTABLE] + [chr(256 + i) for i in range(256 - len(PRINTABLE))]


class Maker:
    def __init__(self, name, architecture, seed, types):
        self.path = HERE / f"{name}.gguf"
        self.out = GGUFWriter(self.path, architecture)
        self.rng = np.random.default_rng(seed)
        self.types, self.next = types, 0

    def k_blocks(self, kind, rows, width, deviation):
        values, size = GGML_QUANT_SIZES[kind]
        blocks = self.rng.integers(0, 256, (rows * width // values, size), dtype=np.uint8)
        d_at, m_at = SCALES[kind]
        # Scales that give values a standard deviation of about `deviation`, and offsets in the middle of what the codes span, so that values lie around zero.
        spread = {T.Q2_K: (7.5 * 1.1, 1.5), T.Q3_K: (19, 2.3), T.Q4_K: (32 * 5, 7.5), T.Q5_K: (32 * 10, 15.5), T.Q6_K: (74 * 18, 0)}[kind]
        d = np.full(len(blocks), deviation / spread[0], dtype="<f2")
        blocks[:, d_at:d_at + 2] = d.view(np.uint8).reshape(-1, 2)
        if m_at is not None:
            m = (d.astype(np.float32) * spread[1]).astype("<f2")
            blocks[:, m_at:m_at + 2] = m.view(np.uint8).reshape(-1, 2)
        return blocks.reshape(rows, -1)

    def matrix(self, name, rows, width, gain=1.0, kind=None):
        if kind is None:
            kind = self.types[self.next % len(self.types)]
            self.next += 1
        deviation = gain * width ** -0.5
        if kind in SCALES:
            data = self.k_blocks(kind, rows, width, deviation)
        else:
            data = quantize((self.rng.standard_normal((rows, width)) * deviation).astype(np.float32), kind)
        self.out.add_tensor(name, data, raw_dtype=kind)

    def vector(self, name, width, norm):
        noise = self.rng.standard_normal(width).astype(np.float32)
        self.out.add_tensor(name, np.float32(1) + np.float32(0.1) * noise if norm else np.float32(0.2) * noise)

    def common(self, hidden, heads, kv_heads, inner, context=512, layers=LAYERS):
        o = self.out
        o.add_context_length(context); o.add_embedding_length(hidden); o.add_block_count(layers); o.add_feed_forward_length(inner)
        o.add_head_count(heads)
        if kv_heads: o.add_head_count_kv(kv_heads)
        o.add_tokenizer_model("gpt2")
        o.add_token_list(ALPHABET[:255] + ["th"])
        o.add_token_types([1] * VOCAB)
        o.add_token_merges(["t h"])
        o.add_bos_token_id(0); o.add_eos_token_id(1)

    def finish(self):
        self.out.write_header_to_file(); self.out.write_kv_data_to_file(); self.out.write_tensors_to_file(); self.out.close()


def llama_like(name, architecture, seed, hidden=64, heads=4, kv_heads=2, inner=96, head_dim=None, types=SMALL, qkv_bias=False,
               qk_norm=False, tied=True, gemma=0, layers=LAYERS):
    m = Maker(name, architecture, seed, types)
    m.common(hidden, heads, kv_heads, inner, layers=layers)
    m.out.add_layer_norm_rms_eps(1e-5)
    m.out.add_rope_freq_base(10000.0)
    d = head_dim or hidden // heads
    if head_dim:
        m.out.add_key_length(d); m.out.add_value_length(d)
    if gemma:
        m.out.add_sliding_window(16)
    if gemma == 2:
        m.out.add_attn_logit_softcapping(50.0); m.out.add_final_logit_softcapping(30.0)
    m.matrix("token_embd.weight", VOCAB, hidden, gain=hidden ** 0.5 if not gemma else 1)
    m.vector("output_norm.weight", hidden, True)
    if not tied: m.matrix("output.weight", VOCAB, hidden)
    for l in range(layers):
        b = f"blk.{l}."
        m.vector(b + "attn_norm.weight", hidden, True)
        for part, rows, gain in (("q", heads * d, 1.5), ("k", kv_heads * d, 1.5), ("v", kv_heads * d, 1)):
            m.matrix(f"{b}attn_{part}.weight", rows, hidden, gain)
            if qkv_bias: m.vector(f"{b}attn_{part}.bias", rows, False)
        if qk_norm:
            m.vector(b + "attn_q_norm.weight", d, True); m.vector(b + "attn_k_norm.weight", d, True)
        m.matrix(b + "attn_output.weight", hidden, heads * d)
        if gemma: m.vector(b + "post_attention_norm.weight", hidden, True)
        m.vector(b + "ffn_norm.weight", hidden, True)
        m.matrix(b + "ffn_gate.weight", inner, hidden); m.matrix(b + "ffn_up.weight", inner, hidden); m.matrix(b + "ffn_down.weight", hidden, inner)
        if gemma: m.vector(b + "post_ffw_norm.weight", hidden, True)
    m.finish()


def gpt2(name, seed):
    m = Maker(name, "gpt2", seed, SMALL)
    hidden = 64
    m.common(hidden, 4, None, 4 * hidden, context=1024)
    m.out.add_layer_norm_eps(1e-5)
    m.matrix("token_embd.weight", VOCAB, hidden, gain=hidden ** 0.5)
    m.matrix("position_embd.weight", 1024, hidden, gain=3, kind=T.Q8_0)
    m.vector("output_norm.weight", hidden, True); m.vector("output_norm.bias", hidden, False)
    for l in range(LAYERS):
        b = f"blk.{l}."
        for norm in ("attn_norm", "ffn_norm"):
            m.vector(f"{b}{norm}.weight", hidden, True); m.vector(f"{b}{norm}.bias", hidden, False)
        for part, rows, width, gain in (("attn_qkv", 3 * hidden, hidden, 1.5), ("attn_output", hidden, hidden, 1),
                                        ("ffn_up", 4 * hidden, hidden, 1), ("ffn_down", hidden, 4 * hidden, 1)):
            m.matrix(f"{b}{part}.weight", rows, width, gain); m.vector(f"{b}{part}.bias", rows, False)
    m.finish()


MODELS = {
    "llama": lambda n: llama_like(n, "llama", 1, hidden=256, heads=4, kv_heads=2, inner=256, types=LARGE, tied=False),
    "qwen2": lambda n: llama_like(n, "qwen2", 2, qkv_bias=True),
    "qwen3": lambda n: llama_like(n, "qwen3", 3, heads=2, kv_heads=1, head_dim=128, qk_norm=True, tied=False),
    "gemma2": lambda n: llama_like(n, "gemma2", 4, heads=2, kv_heads=1, head_dim=256, gemma=2),
    "gemma3": lambda n: llama_like(n, "gemma3", 6, heads=2, kv_heads=1, head_dim=256, gemma=3, qk_norm=True, layers=6, types=SMALL[:6]),
    "gpt2": lambda n: gpt2(n, 5),
}

for name in sys.argv[1:] or MODELS:
    MODELS[name](name)
    model, info = AutoModelForCausalLM.from_pretrained(HERE, gguf_file=f"{name}.gguf", dtype=torch.float32, attn_implementation="eager",
                                                       output_loading_info=True)
    missing = [k for k in info["missing_keys"] if k != "lm_head.weight"]
    assert not missing and not info["unexpected_keys"], info
    tokens = torch.randint(2, VOCAB, (TOKENS,), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        logits = model.eval()(tokens[None]).logits[0]
    assert logits.shape == (TOKENS, VOCAB) and torch.isfinite(logits).all()
    print(name, (HERE / f"{name}.gguf").stat().st_size, "bytes, logits' deviation", float(logits.std()))
    save_file(dict(tokens=tokens.float(), logits=logits.float().contiguous()), HERE / f"{name}.safetensors")
