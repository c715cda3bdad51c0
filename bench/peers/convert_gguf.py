#!/usr/bin/env python3
"""convert_gguf.py FOLDER OUT.gguf: a Hugging Face Llama folder to GGUF in BF16, for the comparison with llama.cpp.

llama.cpp's own converter needs PyTorch and transformers and refuses tokenizers whose hash it does not know; this one
needs numpy and the gguf package, and knows just what the comparison uses: LlamaForCausalLM in BF16 with the bundled
model's byte-level BPE (single digits, then GPT-2's split, which llama.cpp calls "smollm").
"""
import json
import os
import struct
import sys

import gguf
import numpy as np

NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
LAYER_NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}


def gguf_name(name):
    if name in NAMES:
        return NAMES[name]
    layer, part = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
    return f"blk.{layer}.{LAYER_NAMES[part]}.weight"


def read_safetensors(folder):
    """Yields (name, uint16 array of BF16 bits), mapped, in file order."""
    for file in sorted(f for f in os.listdir(folder) if f.endswith(".safetensors")):
        path = os.path.join(folder, file)
        with open(path, "rb") as f:
            (size,) = struct.unpack("<Q", f.read(8))
            header = json.loads(f.read(size))
        for name, t in header.items():
            if name == "__metadata__":
                continue
            if t["dtype"] != "BF16":
                sys.exit(f"{path}: {name} is {t['dtype']}; only BF16 is converted")
            begin, end = t["data_offsets"]
            yield name, np.memmap(path, np.uint16, "r", 8 + size + begin, tuple(t["shape"]))


def interleave(w, heads):
    """Rows of q and k from (first half, second half) to the (even, odd) order in which llama.cpp rotates them."""
    rows = w.shape[0]
    return np.ascontiguousarray(w.reshape(heads, 2, rows // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape))


def add_tokenizer(writer, folder, vocab_size):
    tokenizer = json.load(open(os.path.join(folder, "tokenizer.json")))
    ids = dict(tokenizer["model"]["vocab"])
    special = set()
    for t in tokenizer["added_tokens"]:
        ids[t["content"]] = t["id"]
        if t["special"]:
            special.add(t["id"])
    by_id = {i: token for token, i in ids.items()}
    normal, control, unused = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL, gguf.TokenType.UNUSED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([by_id.get(i, f"[PAD{i}]") for i in range(vocab_size)])
    writer.add_token_types([control if i in special else normal if i in by_id else unused for i in range(vocab_size)])
    merges = tokenizer["model"]["merges"]
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    config = json.load(open(os.path.join(folder, "tokenizer_config.json")))
    if config.get("chat_template"):
        writer.add_chat_template(config["chat_template"])


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    folder, out = sys.argv[1:]
    c = json.load(open(os.path.join(folder, "config.json")))
    if c["architectures"] != ["LlamaForCausalLM"] or c.get("rope_scaling"):
        sys.exit(f"{folder}: only LlamaForCausalLM without rope_scaling is converted")
    part = out + ".part"
    writer = gguf.GGUFWriter(part, "llama")
    writer.add_name(os.path.basename(os.path.abspath(folder)))
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_vocab_size(c["vocab_size"])
    writer.add_context_length(c["max_position_embeddings"])
    writer.add_embedding_length(c["hidden_size"])
    writer.add_block_count(c["num_hidden_layers"])
    writer.add_feed_forward_length(c["intermediate_size"])
    writer.add_head_count(c["num_attention_heads"])
    writer.add_head_count_kv(c["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(c["rms_norm_eps"])
    writer.add_rope_freq_base(c["rope_theta"])
    writer.add_rope_dimension_count(c["head_dim"])
    writer.add_key_length(c["head_dim"])
    writer.add_value_length(c["head_dim"])
    add_tokenizer(writer, folder, c["vocab_size"])
    writer.add_bos_token_id(c["bos_token_id"])
    writer.add_eos_token_id(c["eos_token_id"])
    writer.add_add_bos_token(False)
    for name, bits in read_safetensors(folder):
        if ".q_proj." in name:
            bits = interleave(bits, c["num_attention_heads"])
        elif ".k_proj." in name:
            bits = interleave(bits, c["num_key_value_heads"])
        if bits.ndim == 1:  # norms stay F32, as in llama.cpp's own files
            writer.add_tensor(gguf_name(name), (bits.astype(np.uint32) << 16).view(np.float32))
        else:
            writer.add_tensor(gguf_name(name), bits.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(part, out)


if __name__ == "__main__":
    main()
