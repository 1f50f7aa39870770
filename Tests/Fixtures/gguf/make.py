"""Makes the files in this folder: random blocks of every kind, and what the gguf package dequantizes them to.

Made with gguf 0.19.0. Needed only to make them anew.
"""
import numpy as np
import gguf
from gguf import GGMLQuantizationType as T
from safetensors.numpy import save_file

# For each file its kinds, with the number of float16 scales in a block and their place.
FILES = {
    "blocks": ("elements", {
        T.Q4_0: (1, 0), T.Q4_1: (2, 0), T.Q5_0: (1, 0), T.Q5_1: (2, 0), T.Q8_0: (1, 0), T.Q4_K: (2, 0), T.Q5_K: (2, 0),
        T.Q6_K: (1, 208),
    }),
    "low_bits": ("low_bits", {T.Q2_K: (2, 80), T.Q3_K: (1, 108), T.IQ4_NL: (1, 0), T.IQ4_XS: (1, 0), T.MXFP4: (0, 0)}),
}

random = np.random.default_rng(3)


def blocks(kind, scales, place):
    """Two rows of 256 elements, as uint8."""
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    count = 256 // elements
    raw = random.integers(0, 256, (2, count, size), dtype=np.uint8)
    if kind == T.MXFP4:
        # Exponents near 127, and the smallest two.
        raw[:, :, 0] = random.integers(110, 140, (2, count))
        raw[0, :2, 0] = (0, 1)
    else:
        # Random bytes could be infinite or NaN as float16.
        values = random.normal(0, 1, (2, count, scales)).astype(np.float16)
        raw[:, :, place:place + 2 * scales] = values.view(np.uint8)
    return raw.reshape(2, -1)


for name, (expected_name, kinds) in FILES.items():
    writer = gguf.GGUFWriter(f"{name}.gguf", "llama")
    expected = {}
    for kind, (scales, place) in kinds.items():
        raw = blocks(kind, scales, place)
        expected[kind.name] = gguf.quants.dequantize(raw, kind).astype(np.float32)
        writer.add_tensor(kind.name, raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(expected, f"{expected_name}.safetensors")
