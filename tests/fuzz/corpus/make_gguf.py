#!/usr/bin/env python3
"""Writes the seeds of fuzz_gguf: small GGUF files with every type of value and tensor, and a few broken ones."""
import pathlib, struct

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
FORMAT = {U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", F32: "<f", BOOL: "<B", U64: "<Q", I64: "<q", F64: "<d"}

def text(s):
    return struct.pack("<Q", len(s)) + s.encode()

def value(kind, v):
    if kind == STRING:
        return text(v)
    if kind == ARRAY:
        element, items = v
        return struct.pack("<IQ", element, len(items)) + b"".join(value(element, i) for i in items)
    return struct.pack(FORMAT[kind], v)

def gguf(keys, tensors, version=3, alignment=32, keys_claimed=None, tensors_claimed=None):
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors) if tensors_claimed is None else tensors_claimed,
                                len(keys) if keys_claimed is None else keys_claimed)
    for key, kind, v in keys:
        out += text(key) + struct.pack("<I", kind) + value(kind, v)
    data = b""
    for name, dims, kind, size in tensors:
        data += bytes(-len(data) % alignment)
        out += text(name) + struct.pack("<I", len(dims)) + b"".join(struct.pack("<Q", d) for d in dims) + struct.pack("<IQ", kind, len(data))
        data += bytes(i * 31 % 256 for i in range(size))
    return out + bytes(-len(out) % alignment) + data

TYPES = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84), 11: (256, 110),
         12: (256, 144), 13: (256, 176), 14: (256, 210), 23: (256, 136), 30: (1, 2)}
numbers = [("a.key", U8, 1), ("b.key", I8, -1), ("c", U16, 2), ("d", I16, -2), ("e", U32, 3), ("f", I32, -3), ("g", U64, 4), ("h", I64, -4),
           ("i", F32, 1.5), ("j", F64, 2.5), ("k", BOOL, 1)]
tokenizer = [("general.architecture", STRING, "llama"), ("tokenizer.ggml.tokens", ARRAY, (STRING, ["<s>", "a", "b", "ab"])),
             ("tokenizer.ggml.scores", ARRAY, (F32, [0.0, -1.0, -2.0, -3.0])), ("tokenizer.ggml.token_type", ARRAY, (I32, [3, 1, 1, 1]))]
every = [(f"t{kind}", [values, 2], kind, 2 * size) for kind, (values, size) in TYPES.items()]
seeds = {
    "numbers": gguf(numbers, []), "tokenizer": gguf(tokenizer, []), "tensors": gguf([], every), "all": gguf(numbers + tokenizer, every),
    "alignment": gguf([("general.alignment", U32, 8)], [("a", [3], 0, 12), ("b", [2, 2, 2, 2], 1, 32)], alignment=8),
    "nested": gguf([("a.key", ARRAY, (ARRAY, [(U8, [1, 2]), (STRING, ["x"])]))], []), "version2": gguf(numbers, [], version=2),
    "many_keys": gguf(numbers, [], keys_claimed=1 << 60), "many_tensors": gguf([], every, tensors_claimed=1 << 60),
    "overlap": gguf([], [("a", [8], 0, 32), ("b", [8], 0, 0), ("c", [8], 0, 32)]), "truncated": gguf(numbers, every)[:-99],
    "empty": gguf([], []), "twice": gguf([("a", U8, 1), ("a", U8, 1)], [])}
folder = pathlib.Path(__file__).parent / "gguf"
folder.mkdir(exist_ok=True)
for name, seed in seeds.items():
    (folder / name).write_bytes(seed)
