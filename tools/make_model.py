#!/usr/bin/env python3
"""Make a Hugging Face model folder with random weights for a named geometry.

    make_model.py GEOMETRY OUT_DIR [--tiny] [--layers N] [--hidden H] [--max-positions P] ...
    make_model.py --list

Writes config.json, generation_config.json, model.safetensors (or shards with an index) and the tokenizer files of
tiny-16m-32k. Needs numpy only: the safetensors container is written here, tensor by tensor, so memory use stays small
for the 8B geometry too. The vocabulary of the model may be larger than the tokenizer's 8192 ids; generated ids past
8191 have no text.

The values depend only on --seed, the tensor's name and its place in the tensor, not on --threads or the other layers.
Scales: linear weights gain/sqrt(fan_in), those that write into the residual stream (o_proj, down_proj and their like)
divided by sqrt(2*layers) as well; embeddings 1 (untied) or 1/sqrt(hidden) (tied; learned positions 3 times that,
gemma a quarter, since it scales them up itself), so that logits have a spread of about 1 and greedy output varies; norm weights 1 + 0.1 N(0,1) and biases 0.02 N(0,1), so that a loader that drops one is caught. --attn-gain G
multiplies the query and key projections by sqrt(G): attention scores spread by G instead of 1, which makes attention
peaky (try 4) where a test of sparse attention wants something to select.
"""
import argparse, json, os, shutil, struct, sys, time, zlib
from concurrent.futures import ThreadPoolExecutor
import numpy as np

BUNDLED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "models", "tiny-16m-32k")

def llama(**k):
    return dict(dict(arch="LlamaForCausalLM", rms_eps=1e-5, theta=10000.0, tie=False, head_dim=None), **k)

GEOMETRIES = {
    "tinyllama-1.1b": llama(layers=22, hidden=2048, heads=32, kv_heads=4, intermediate=5632, vocab=32000,
                            max_positions=2048),
    "sheared-llama-1.3b": llama(layers=24, hidden=2048, heads=16, kv_heads=16, intermediate=5504, vocab=32000,
                                max_positions=4096),
    "llama-3.1-8b": llama(layers=32, hidden=4096, heads=32, kv_heads=8, intermediate=14336, vocab=128256,
                          max_positions=131072, theta=500000.0,
                          rope_scaling=dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                            original_max_position_embeddings=8192, rope_type="llama3")),
    "gpt2-345m": dict(arch="GPT2LMHeadModel", layers=24, hidden=1024, heads=16, kv_heads=16, intermediate=4096,
                      vocab=50257, max_positions=1024, tie=True, head_dim=None),
    "gpt2-774m": dict(arch="GPT2LMHeadModel", layers=36, hidden=1280, heads=20, kv_heads=20, intermediate=5120,
                      vocab=50257, max_positions=1024, tie=True, head_dim=None),
    "opt-350m": dict(arch="OPTForCausalLM", layers=24, hidden=1024, heads=16, kv_heads=16, intermediate=4096,
                     vocab=50272, max_positions=2048, tie=True, head_dim=None, embed_dim=512, pre_norm=False),
    "opt-1.3b": dict(arch="OPTForCausalLM", layers=24, hidden=2048, heads=32, kv_heads=32, intermediate=8192,
                     vocab=50272, max_positions=2048, tie=True, head_dim=None, embed_dim=2048, pre_norm=True),
    "qwen2.5-0.5b": llama(arch="Qwen2ForCausalLM", layers=24, hidden=896, heads=14, kv_heads=2, intermediate=4864,
                          vocab=151936, max_positions=32768, rms_eps=1e-6, theta=1000000.0, tie=True),
    "qwen3-0.6b": llama(arch="Qwen3ForCausalLM", layers=28, hidden=1024, heads=16, kv_heads=8, head_dim=128,
                        intermediate=3072, vocab=151936, max_positions=40960, rms_eps=1e-6, theta=1000000.0, tie=True),
    "mistral-7b": llama(arch="MistralForCausalLM", layers=32, hidden=4096, heads=32, kv_heads=8, intermediate=14336,
                        vocab=32000, max_positions=32768, sliding_window=4096),
    "mistral-tiny": llama(arch="MistralForCausalLM", layers=4, hidden=256, heads=8, kv_heads=2, intermediate=768,
                          vocab=8192, max_positions=32768, sliding_window=64),
    "gemma-2-2b": llama(arch="Gemma2ForCausalLM", layers=26, hidden=2304, heads=8, kv_heads=4, head_dim=256,
                        intermediate=9216, vocab=256000, max_positions=8192, rms_eps=1e-6, tie=True,
                        sliding_window=4096, query_pre_attn_scalar=256),
    "gemma-2-tiny": llama(arch="Gemma2ForCausalLM", layers=4, hidden=256, heads=4, kv_heads=2, head_dim=128,
                          intermediate=768, vocab=8192, max_positions=8192, rms_eps=1e-6, tie=True,
                          sliding_window=64, query_pre_attn_scalar=128),
}
MODEL_TYPE = {"LlamaForCausalLM": "llama", "GPT2LMHeadModel": "gpt2", "OPTForCausalLM": "opt",
              "Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3", "MistralForCausalLM": "mistral",
              "Gemma2ForCausalLM": "gemma2"}


def geometry(name, a):
    """The named geometry with the command line's overrides; what was not named follows in proportion."""
    g = dict(GEOMETRIES[name], name=name)
    hd = g["head_dim"] or g["hidden"] // g["heads"]
    ratio = g["heads"] // g["kv_heads"]
    if a.tiny:
        a.layers = a.layers or 2
        a.vocab = a.vocab or 8192
        a.hidden = a.hidden or min(256, g["hidden"])
        if g.get("sliding_window") and a.sliding_window is None: a.sliding_window = 32
    if a.layers: g["layers"] = a.layers
    if a.vocab: g["vocab"] = a.vocab
    if a.max_positions: g["max_positions"] = a.max_positions
    if a.hidden and a.hidden != g["hidden"]:
        k = a.hidden / g["hidden"]
        g["intermediate"] = max(32, int(round(g["intermediate"] * k / 32)) * 32)
        if "embed_dim" in g: g["embed_dim"] = max(8, int(g["embed_dim"] * k))
        g["hidden"] = a.hidden
        if not a.heads:      # keep the head's width, at least one whole group of query heads if it fits
            g["heads"] = max(1, a.hidden // hd)
            if g["heads"] % ratio:
                g["heads"] = max(1, g["heads"] // ratio * ratio) if g["heads"] >= ratio else g["heads"]
            g["kv_heads"] = max(1, g["heads"] // ratio)
    if a.heads: g["heads"], g["kv_heads"] = a.heads, max(1, a.heads // ratio)
    if a.kv_heads: g["kv_heads"] = a.kv_heads
    if a.head_dim: g["head_dim"] = a.head_dim
    if a.intermediate: g["intermediate"] = a.intermediate
    if a.rope_theta: g["theta"] = a.rope_theta
    if a.sliding_window is not None: g["sliding_window"] = a.sliding_window or None
    if a.tie is not None: g["tie"] = a.tie
    if g["heads"] % g["kv_heads"]: sys.exit("heads must be a multiple of kv heads")
    if not g["head_dim"] and g["hidden"] % g["heads"]: sys.exit("hidden must be a multiple of heads (or give --head-dim)")
    return g


def config(g, dtype):
    c = dict(architectures=[g["arch"]], model_type=MODEL_TYPE[g["arch"]], vocab_size=g["vocab"],
             bos_token_id=0, eos_token_id=0, pad_token_id=3, torch_dtype=dtype, use_cache=True)
    A = g["arch"]
    if A == "GPT2LMHeadModel":
        c.update(n_layer=g["layers"], n_embd=g["hidden"], n_head=g["heads"], n_positions=g["max_positions"],
                 n_ctx=g["max_positions"], n_inner=None if g["intermediate"] == 4 * g["hidden"] else g["intermediate"],
                 activation_function="gelu_new", layer_norm_epsilon=1e-5, attn_pdrop=0.1, embd_pdrop=0.1,
                 resid_pdrop=0.1, initializer_range=0.02, tie_word_embeddings=g["tie"])
        return c
    if A == "OPTForCausalLM":
        c.update(num_hidden_layers=g["layers"], hidden_size=g["hidden"], num_attention_heads=g["heads"],
                 ffn_dim=g["intermediate"], max_position_embeddings=g["max_positions"],
                 do_layer_norm_before=g["pre_norm"], word_embed_proj_dim=g["embed_dim"], activation_function="relu",
                 dropout=0.1, attention_dropout=0.0, activation_dropout=0.0, layerdrop=0.0, init_std=0.02,
                 enable_bias=True, layer_norm_elementwise_affine=True, _remove_final_layer_norm=False,
                 tie_word_embeddings=g["tie"])
        return c
    c.update(hidden_size=g["hidden"], intermediate_size=g["intermediate"], num_hidden_layers=g["layers"],
             num_attention_heads=g["heads"], num_key_value_heads=g["kv_heads"],
             head_dim=g["head_dim"] or g["hidden"] // g["heads"], max_position_embeddings=g["max_positions"],
             rms_norm_eps=g["rms_eps"], rope_theta=g["theta"], rope_scaling=g.get("rope_scaling"),
             tie_word_embeddings=g["tie"], hidden_act="silu", initializer_range=0.02, attention_dropout=0.0)
    if A == "LlamaForCausalLM": c.update(attention_bias=False, mlp_bias=False, pretraining_tp=1)
    if A == "Qwen2ForCausalLM":
        c.update(use_sliding_window=False, sliding_window=g["max_positions"], max_window_layers=g["layers"])
    if A == "Qwen3ForCausalLM":
        c.update(use_sliding_window=False, sliding_window=None, max_window_layers=g["layers"], attention_bias=False)
    if A == "MistralForCausalLM": c.update(sliding_window=g["sliding_window"])
    if A == "Gemma2ForCausalLM":
        c.pop("rope_scaling")
        c.update(sliding_window=g["sliding_window"], query_pre_attn_scalar=g["query_pre_attn_scalar"],
                 attn_logit_softcapping=50.0, final_logit_softcapping=30.0, hidden_activation="gelu_pytorch_tanh",
                 hidden_act="gelu_pytorch_tanh", attention_bias=False, cache_implementation="hybrid")
    return c


def tensors(g, attn_gain):
    """(name, shape, mean, std) of every tensor, in file order."""
    H, F, V, L, A = g["hidden"], g["intermediate"], g["vocab"], g["layers"], g["arch"]
    hd = g["head_dim"] or H // g["heads"]
    Q, K = g["heads"] * hd, g["kv_heads"] * hd
    res, qk = (2 * L) ** -0.5, attn_gain ** 0.5
    out = []
    def lin(name, o, i, gain=1.0, bias=False, conv1d=False):
        out.append((name + ".weight", (i, o) if conv1d else (o, i), 0.0, gain * i ** -0.5))
        if bias: out.append((name + ".bias", (o,), 0.0, 0.02))
    def norm(name, n, bias=False, mean=1.0):
        out.append((name + ".weight", (n,), mean, 0.1))
        if bias: out.append((name + ".bias", (n,), 0.0, 0.02))
    def emb(name, n, d, std):
        out.append((name + ".weight", (n, d), 0.0, std))
    tied = H ** -0.5

    if A == "GPT2LMHeadModel":
        emb("transformer.wte", V, H, tied); emb("transformer.wpe", g["max_positions"], H, 3 * tied)
        for l in range(L):
            p = f"transformer.h.{l}."
            norm(p + "ln_1", H, True)
            # one fused tensor for q, k and v: --attn-gain would scale v too, so it is left alone here
            lin(p + "attn.c_attn", 3 * H, H, 1.0, True, True); lin(p + "attn.c_proj", H, H, res, True, True)
            norm(p + "ln_2", H, True)
            lin(p + "mlp.c_fc", F, H, 1.0, True, True); lin(p + "mlp.c_proj", H, F, res, True, True)
        norm("transformer.ln_f", H, True)
        if not g["tie"]: lin("lm_head", V, H)
        return out
    if A == "OPTForCausalLM":
        E = g["embed_dim"]
        emb("model.decoder.embed_tokens", V, E, E ** -0.5); emb("model.decoder.embed_positions", g["max_positions"] + 2, H, 3 * tied)
        if E != H: lin("model.decoder.project_in", H, E); lin("model.decoder.project_out", E, H)
        if g["pre_norm"]: norm("model.decoder.final_layer_norm", H, True)
        for l in range(L):
            p = f"model.decoder.layers.{l}."
            for x in "qkv": lin(p + f"self_attn.{x}_proj", H, H, 1.0 if x == "v" else qk, True)
            lin(p + "self_attn.out_proj", H, H, res, True); norm(p + "self_attn_layer_norm", H, True)
            lin(p + "fc1", F, H, 1.0, True); lin(p + "fc2", H, F, res, True); norm(p + "final_layer_norm", H, True)
        if not g["tie"]: lin("lm_head", V, E)
        return out

    gemma, nm = A == "Gemma2ForCausalLM", 0.0 if A == "Gemma2ForCausalLM" else 1.0
    emb("model.embed_tokens", V, H, tied / 4 if gemma else tied if g["tie"] else 1.0)
    for l in range(L):
        p = f"model.layers.{l}."
        qb = A == "Qwen2ForCausalLM"
        norm(p + "input_layernorm", H, mean=nm)
        lin(p + "self_attn.q_proj", Q, H, qk, qb); lin(p + "self_attn.k_proj", K, H, qk, qb)
        lin(p + "self_attn.v_proj", K, H, 1.0, qb); lin(p + "self_attn.o_proj", H, Q, res)
        if A == "Qwen3ForCausalLM":
            norm(p + "self_attn.q_norm", hd, mean=qk); norm(p + "self_attn.k_norm", hd, mean=qk)
        norm(p + "post_attention_layernorm", H, mean=nm)
        if gemma: norm(p + "pre_feedforward_layernorm", H, mean=nm)
        lin(p + "mlp.gate_proj", F, H); lin(p + "mlp.up_proj", F, H); lin(p + "mlp.down_proj", H, F, 1.7 * res)
        if gemma: norm(p + "post_feedforward_layernorm", H, mean=nm)
    norm("model.norm", H, mean=3.0 if gemma else nm)
    if not g["tie"]: lin("lm_head", V, H)
    return out


def bf16(x):
    u = x.view(np.uint32)
    return ((u + (((u >> 16) & 1) + np.uint32(0x7FFF))) >> 16).astype(np.uint16)

ENCODE = {"bfloat16": ("BF16", 2, bf16), "float16": ("F16", 2, lambda x: x.astype(np.float16)),
          "float32": ("F32", 4, lambda x: x)}
CHUNK = 1 << 22


def write(out, specs, seed, dtype, shard_bytes, threads):
    tag, size, enc = ENCODE[dtype]
    shards, cur, used = [], [], 0
    for s in specs:
        n = int(np.prod(s[1])) * size
        if cur and used + n > shard_bytes: shards.append(cur); cur, used = [], 0
        cur.append(s); used += n
    shards.append(cur)
    index, total = {}, 0
    def fill(fd, at, name, ci, n, mean, std):
        rng = np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, zlib.crc32(name.encode()), ci])))
        x = rng.standard_normal(n, dtype=np.float32)
        x *= np.float32(std); x += np.float32(mean)
        buf = memoryview(enc(x)).cast("B")
        done = 0
        while done < len(buf): done += os.pwrite(fd, buf[done:], at + done)
    with ThreadPoolExecutor(threads) as pool:
        for i, shard in enumerate(shards):
            fn = "model.safetensors" if len(shards) == 1 else f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
            head, off = {"__metadata__": {"format": "pt"}}, 0
            for name, shape, _, _ in shard:
                n = int(np.prod(shape)) * size
                head[name] = dict(dtype=tag, shape=list(shape), data_offsets=[off, off + n])
                off += n; index[name] = fn
            total += off
            h = json.dumps(head, separators=(",", ":")).encode(); h += b" " * (-len(h) % 8)
            with open(os.path.join(out, fn), "wb") as f:
                f.write(struct.pack("<Q", len(h)) + h); f.flush()
                base = 8 + len(h); os.ftruncate(f.fileno(), base + off)
                jobs = []
                for name, shape, mean, std in shard:
                    n, at = int(np.prod(shape)), base + head[name]["data_offsets"][0]
                    for ci, s in enumerate(range(0, n, CHUNK)):
                        jobs.append(pool.submit(fill, f.fileno(), at + s * size, name, ci, min(CHUNK, n - s), mean, std))
                for j in jobs: j.result()
    if len(shards) > 1:
        json.dump(dict(metadata=dict(total_size=total), weight_map=index),
                  open(os.path.join(out, "model.safetensors.index.json"), "w"), indent=1)
    return total


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("geometry", nargs="?", choices=sorted(GEOMETRIES)); ap.add_argument("out", nargs="?")
    ap.add_argument("--list", action="store_true")
    ap.add_argument("--tiny", action="store_true", help="2 layers, width at most 256, vocabulary 8192, window 32: for tests")
    for o in ("layers", "hidden", "heads", "kv-heads", "head-dim", "intermediate", "vocab", "max-positions"):
        ap.add_argument("--" + o, type=int)
    ap.add_argument("--sliding-window", type=int, help="0: none")
    ap.add_argument("--rope-theta", type=float)
    ap.add_argument("--tie", action=argparse.BooleanOptionalAction, default=None)
    ap.add_argument("--dtype", default="bfloat16", choices=sorted(ENCODE)); ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--attn-gain", type=float, default=1.0)
    ap.add_argument("--shard-gib", type=float, default=4.0)
    ap.add_argument("--threads", type=int, default=os.cpu_count())
    ap.add_argument("--tokenizer", default=BUNDLED, help="folder to copy tokenizer files from; '' for none")
    a = ap.parse_args()
    if a.list or not a.out:
        for n, g in GEOMETRIES.items():
            p = sum(int(np.prod(s[1])) for s in tensors(g, 1.0))
            print(f"{n:20s} {g['arch']:20s} {p / 1e6:8.1f} M parameters  layers {g['layers']} hidden {g['hidden']} heads "
                  f"{g['heads']}/{g['kv_heads']} positions {g['max_positions']} vocab {g['vocab']}")
        return
    g = geometry(a.geometry, a)
    t = time.time(); os.makedirs(a.out, exist_ok=True)
    json.dump(config(g, a.dtype), open(os.path.join(a.out, "config.json"), "w"), indent=1)
    json.dump(dict(bos_token_id=0, eos_token_id=0, pad_token_id=3, do_sample=False),
              open(os.path.join(a.out, "generation_config.json"), "w"))
    for f in ("tokenizer.json", "tokenizer_config.json") if a.tokenizer else ():
        shutil.copyfile(os.path.join(a.tokenizer, f), os.path.join(a.out, f))
    s = tensors(g, a.attn_gain)
    n = write(a.out, s, a.seed, a.dtype, int(a.shard_gib * 2**30), a.threads)
    print(f"{a.out}: {g['arch']}, {len(s)} tensors, {n / ENCODE[a.dtype][1] / 1e6:.1f} M parameters, {n / 1e9:.2f} GB, {time.time() - t:.1f} s")


if __name__ == "__main__":
    main()
