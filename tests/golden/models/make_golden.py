#!/usr/bin/env python3
"""Makes the small random models of this folder and the golden logits of every model, with transformers in float32.

    make_golden.py --models        make the model folders anew (then the goldens must be made anew, too)
    make_golden.py --goldens       write golden.safetensors into each folder, bundled.safetensors for the bundled model
    make_golden.py --check         compute the goldens and compare them with the committed files

Needs torch, transformers (5.x) and safetensors; the versions that made the files stand in their metadata.

A model folder is what transformers' save_pretrained writes (or an older release would have written: OLD_STYLE), with
vocabulary 256 and two layers, so that all of them fit into the repository. Weights: 1/sqrt(fan_in) times N(0,1), q and
k 1.5 times that, so that attention is peaky and windows, scaling and soft caps matter; norms 1 + 0.1 N(0,1) and biases
0.2 N(0,1), so that a loader that drops one is caught.

golden.safetensors, all F32 (whole numbers are exact):
    tokens     [96 + 8]                prompt, then 8 tokens picked greedily from transformers' logits
    positions  [rows]                  the rows of logits that follow: 12 of the prompt, then the 8 of the picked tokens
    columns    [width]                 vocabulary entries: all, or a choice for the bundled model
    logits     [rows, width]           prompt rows from one forward pass, the others from 8 steps over its KV cache
"""
import argparse, json, os, sys
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
BUNDLED = os.path.join(HERE, "..", "..", "..", "models", "tiny-16m-32k")
PROMPT, DECODE = 96, 8
PROMPT_ROWS = [0, 1, 7, 30, 31, 32, 33, 47, 63, 64, 80, 95]

BASE = dict(vocab_size=256, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=512, rms_norm_eps=1e-5, bos_token_id=0, eos_token_id=1)
GPT2 = dict(vocab_size=256, n_embd=64, n_layer=2, n_head=4, n_positions=128, bos_token_id=0, eos_token_id=1)
OPT = dict(vocab_size=256, hidden_size=64, ffn_dim=128, num_hidden_layers=2, num_attention_heads=4,
           max_position_embeddings=128, bos_token_id=0, eos_token_id=1)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=32)

# name: (configuration class, its arguments, dtype of the file)
MODELS = {
    "llama-biases": ("LlamaConfig", dict(BASE, head_dim=32, attention_bias=True, mlp_bias=True), "float16"),
    "llama-linear": ("LlamaConfig", dict(BASE, tie_word_embeddings=True, rope_parameters=dict(
        rope_type="linear", rope_theta=10000.0, factor=4.0)), "bfloat16"),
    "llama-llama3": ("LlamaConfig", dict(BASE, tie_word_embeddings=True, rope_parameters=dict(
        rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=64)), "bfloat16"),
    "llama-yarn": ("LlamaConfig", dict(BASE, head_dim=32, tie_word_embeddings=True, rope_parameters=YARN), "bfloat16"),
    "llama-yarn-mscale": ("LlamaConfig", dict(BASE, head_dim=32, tie_word_embeddings=True, rope_parameters=dict(
        YARN, original_max_position_embeddings=128, mscale=1.5, mscale_all_dim=0.5, beta_fast=4, beta_slow=0.9,
        truncate=False)), "bfloat16"),
    "mistral": ("MistralConfig", dict(BASE, sliding_window=32), "bfloat16"),
    "qwen2": ("Qwen2Config", dict(BASE, tie_word_embeddings=True, use_sliding_window=True, sliding_window=32,
                                  max_window_layers=1), "bfloat16"),
    "qwen3": ("Qwen3Config", dict(BASE, head_dim=32, tie_word_embeddings=True), "bfloat16"),
    "gpt2": ("GPT2Config", GPT2, "float32"),
    "gpt2-scaled": ("GPT2Config", dict(GPT2, n_inner=96, scale_attn_by_inverse_layer_idx=True), "bfloat16"),
    "opt": ("OPTConfig", OPT, "bfloat16"),
    "opt-no-final-norm": ("OPTConfig", dict(OPT, enable_bias=False, _remove_final_layer_norm=True), "bfloat16"),
    "opt-post-norm": ("OPTConfig", dict(OPT, do_layer_norm_before=False, word_embed_proj_dim=32), "bfloat16"),
    "gemma2": ("Gemma2Config", dict(BASE, hidden_size=96, head_dim=32, sliding_window=32, query_pre_attn_scalar=24,
                                    attn_logit_softcapping=5.0, final_logit_softcapping=3.0), "bfloat16"),
    "gemma3": ("Gemma3TextConfig", dict(BASE, hidden_size=96, head_dim=32, sliding_window=32, query_pre_attn_scalar=24,
                                        layer_types=["sliding_attention", "full_attention"], rope_parameters=dict(
        full_attention=dict(rope_type="linear", rope_theta=50000.0, factor=2.0),
        sliding_attention=dict(rope_type="default", rope_theta=1000.0))), "bfloat16"),
}
OLD_STYLE = {"llama-biases", "llama-linear", "llama-yarn-mscale", "qwen2"}  # rope_scaling, torch_dtype, no layer_types
SHARDED = {"mistral"}
# Prefix of the base model's tensors taken away, as in the checkpoints of GPT-2 and OPT that were published first.
BARE = {"gpt2": "transformer.", "opt-no-final-norm": "model."}


def randomise(model, seed):
    generator = torch.Generator().manual_seed(seed)
    gemma = model.config.model_type.startswith("gemma")
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if p.dim() == 1:
            is_norm = name.endswith("weight")
            p.data = (0.0 if gemma else 1.0) + 0.1 * noise if is_norm else 0.2 * noise
            continue
        fan_in = p.shape[0] if "c_" in name else p.shape[1]  # Conv1D keeps [in, out]
        gain = 1.5 if "q_proj" in name or "k_proj" in name or "c_attn" in name else 1.0
        if "embed_positions" in name or "wpe" in name: gain = 3.0
        p.data = gain * fan_in ** -0.5 * noise


def old_style(config):
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" else dict(rope, type=kind)
    config["torch_dtype"] = config.pop("dtype")
    config.pop("layer_types", None)
    return config


def make_model(name, seed):
    kind, arguments, dtype = MODELS[name]
    folder = os.path.join(HERE, name)
    os.makedirs(folder, exist_ok=True)
    for f in os.listdir(folder):
        if f != "golden.safetensors": os.remove(os.path.join(folder, f))
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(getattr(transformers, kind)(**arguments))
    randomise(model, seed)
    model = model.to(getattr(torch, dtype))
    model.save_pretrained(folder, max_shard_size="150KB" if name in SHARDED else "1GB")
    if name in OLD_STYLE:
        path = os.path.join(folder, "config.json")
        config = old_style(json.load(open(path)))
        json.dump(config, open(path, "w"), indent=2)
    if name in BARE:
        path, prefix = os.path.join(folder, "model.safetensors"), BARE[name]
        tensors = {k.removeprefix(prefix): v for k, v in load_file(path).items()}
        if name == "gpt2":  # the first releases kept the causal mask, too
            tensors["h.0.attn.bias"] = torch.ones(1, 1, 8, 8, dtype=torch.uint8).tril()
        save_file(tensors, path, metadata={"format": "pt"})


def golden(folder, tokens, columns):
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                                       output_loading_info=True)
    unexpected = [k for k in info["unexpected_keys"] if not k.endswith("attn.bias")]
    assert not info["missing_keys"] and not unexpected, info
    model.eval()
    rows = []
    with torch.no_grad():
        out = model(torch.tensor([tokens]), use_cache=True)
        rows += [out.logits[0, p] for p in PROMPT_ROWS]
        for _ in range(DECODE):
            tokens = tokens + [int(out.logits[0, -1].argmax())]
            out = model(torch.tensor([tokens[-1:]]), past_key_values=out.past_key_values, use_cache=True)
            rows.append(out.logits[0, -1])
    logits = torch.stack(rows)
    if columns is None: columns = range(logits.shape[1])
    positions = PROMPT_ROWS + list(range(PROMPT, PROMPT + DECODE))
    number = lambda x: torch.tensor(list(x), dtype=torch.float32)
    return dict(tokens=number(tokens), positions=number(positions), columns=number(columns),
                logits=logits[:, list(columns)].contiguous())


def all_goldens():
    for name in MODELS:
        generator = torch.Generator().manual_seed(7)
        tokens = torch.randint(2, 256, (PROMPT,), generator=generator).tolist()
        yield os.path.join(HERE, name, "golden.safetensors"), golden(os.path.join(HERE, name), tokens, None)
    text = ("The river rose in the night and by morning the lower fields were under water. Nobody in the village had "
            "seen it so high, and the old miller said that the bridge would not stand until the evening. ")
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED)
    tokens = tokenizer(text * 4)["input_ids"][:PROMPT]
    yield os.path.join(HERE, "bundled.safetensors"), golden(BUNDLED, tokens, range(5, 8192, 255))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("models", "goldens", "check"): parser.add_argument("--" + option, action="store_true")
    a = parser.parse_args()
    if a.models:
        for i, name in enumerate(MODELS): make_model(name, 100 + i)
    versions = dict(torch=torch.__version__, transformers=transformers.__version__, made_by="make_golden.py --goldens")
    bad = 0
    for path, tensors in all_goldens() if a.goldens or a.check else ():
        kept = load_file(path) if os.path.exists(path) else {}
        unchanged = kept.keys() == tensors.keys() and all(torch.equal(kept[k], tensors[k]) for k in kept)
        if a.goldens and not unchanged:  # an equal file would differ in the order of its metadata
            save_file(tensors, path, metadata=versions)
        if a.check and kept:
            error = (kept["logits"] - tensors["logits"]).abs().max() / tensors["logits"].std()
            same = torch.equal(kept["tokens"], tensors["tokens"])
            bad += not same or error > 1e-5
            print(f"{os.path.relpath(path, HERE)}: tokens {'equal' if same else 'DIFFER'}, "
                  f"logits within {error:.1e} of their spread")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
