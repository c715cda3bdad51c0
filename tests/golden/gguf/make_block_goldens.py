#!/usr/bin/env python3
"""Writes blocks.bin: random blocks of every quantised GGUF type, and what the `gguf` package's dequantize() makes of them.

  pip install gguf==0.19.0 && python3 tests/golden/gguf/make_block_goldens.py

For each type, in the order of TYPES: its name in 8 bytes padded with NUL, the number of blocks, bytes a block and numbers
a block (uint32 each), the blocks, and the numbers (float32). All little-endian. Codes are random bytes; the half-precision
scales are of weights' usual sizes in most blocks, and random bits (infinite, NaN, subnormal) in the last few."""
import pathlib, struct
import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize

# Of each type, where in a block the half-precision scales are.
TYPES = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q2_K: [80, 82], T.Q3_K: [108],
         T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208]}
NUMBERS, WILD = 4096, 4

rng = np.random.default_rng(9)
out = bytearray()
for kind, scales in TYPES.items():
    numbers, size = GGML_QUANT_SIZES[kind]
    count = NUMBERS // numbers
    blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
    for at in scales:
        usual = (rng.standard_normal(count) * 10.0 ** rng.uniform(-4, 0, count)).astype("<f2")
        blocks[:count - WILD, at:at + 2] = usual.view(np.uint8).reshape(count, 2)[:count - WILD]
    with np.errstate(all="ignore"):
        values = dequantize(blocks, kind).astype("<f4")
    assert values.shape == (count, numbers)
    out += kind.name.encode().ljust(8, b"\0") + struct.pack("<III", count, size, numbers) + blocks.tobytes() + values.tobytes()
path = pathlib.Path(__file__).parent / "blocks.bin"
path.write_bytes(out)
print(f"{path}: {len(out)} bytes")
