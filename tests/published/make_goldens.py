#!/usr/bin/env python3
"""What transformers reads and computes from the published models' GGUF files, written to goldens.json.

    pip install gguf==0.19.0 torch transformers==5.24.0 accelerate && python3 tests/published/make_goldens.py

transformers' gguf_file= dequantises every weight to F32 and computes in F32; it shares no code with us. For each model:
  strings   token ids of texts that have broken tokenizers: runs of spaces, tabs and newlines, digits, emoji, special
            tokens written in the text, code. No decomposed characters: Qwen's own tokenizer composes them (NFC), as we
            do, but its GGUF file does not say so and transformers leaves them. No runs of more spaces than Gemma's
            longest token of them has: transformers cuts them elsewhere than SentencePiece, llama.cpp and we do.
  prompts   "ids"; "logprobs" of each token but the first, given those before it; "top", the ids most likely to follow
            the prompt, best first, with "top_logprobs". The last prompt is longer than Gemma's window of 512."""
import json, pathlib, sys, tarfile
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MODELS = ["qwen2.5-coder-0.5b", "gemma-3-270m"]
TOP = 10

CODE = """def parse(lines):
    result = {}
    for number, line in enumerate(lines):
        if "=" not in line:
            raise ValueError(f"line {number}: no '='")
        key, value = line.split("=", 1)
        result[key.strip()] = value.strip()
    return result
"""
STRINGS = [
    "The sea was calm, and nobody spoke.", CODE, "\tif (x) {\n\t\treturn  1;\r\n\t}\n\n\n\n// end", "a  b   c    d     e",
    " leading", "trailing ", "     five", " " * 16 + "x" + " " * 24 + "y", "\n\n\n\n\n\t\t\t\t\t \n \n", "x" + "\n" * 40,
    "Hällo, Ægir! ¿Qué? Привет, мир. Γειά σου", "你好,世界。こんにちは 안녕하세요 สวัสดี", "🎉🏽👨‍👩‍👧‍👦 🇩🇪", "12345 6.78e-9 0x1F 1,000,000",
    "I'll can't WE'RE it's o'clock", "https://example.org/a_b?c=d&e=%20#f", "<b>bold</b> <table><tr>", "<|im_start|>user\nHi<|im_end|>\n",
    "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n", "ﬁne ½ ™ ￼ \u00a0\u2003\u200b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
]
PROMPTS = ["The capital of France is", CODE, "Once upon a time, in a village by the sea, there lived an old fisherman who",
           "Q: What is 17 + 25?\nA:", "#include <stdio.h>\n\nint main(void) {\n    for (int i = 0; i < 10; ++i) {\n        printf("]


def novel():
    """The first 6,000 characters behind the title pages of a text in the repository."""
    with tarfile.open(ROOT / "tests/data/text-valid.tar.xz") as archive:
        name = min(m.name for m in archive.getmembers() if m.isfile())
        return archive.extractfile(name).read().decode()[20_000:26_000]


def goldens(name):
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "models/published", gguf_file=f"{name}.gguf")
    model = AutoModelForCausalLM.from_pretrained(ROOT / "models/published", gguf_file=f"{name}.gguf", dtype=torch.float32,
                                                 attn_implementation="eager").eval()
    out = {"strings": [{"text": text, "ids": tokenizer(text).input_ids} for text in STRINGS], "prompts": []}
    for text in [*PROMPTS, novel()]:
        ids = tokenizer(text).input_ids
        with torch.no_grad():
            logprobs = torch.log_softmax(model(torch.tensor([ids])).logits[0], -1)
        followed = logprobs[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        best = logprobs[-1].topk(TOP)
        out["prompts"].append({"ids": ids, "logprobs": [round(x, 4) for x in followed.tolist()], "top": best.indices.tolist(),
                               "top_logprobs": [round(x, 4) for x in best.values.tolist()]})
        print(name, len(ids), "tokens, mean logprob", float(followed.mean()), [tokenizer.decode([i]) for i in best.indices[:3]], file=sys.stderr)
    return out


def main():
    models = {name: goldens(name) for name in MODELS}
    text = json.dumps(models, ensure_ascii=True, separators=(",", ":"))
    (HERE / "goldens.json").write_text(text.replace('],"', '],\n"').replace('},{', '},\n{') + "\n")


if __name__ == "__main__":
    main()
