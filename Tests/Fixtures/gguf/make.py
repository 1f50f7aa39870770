"""Makes the files in this folder: random blocks of every kind, and what the gguf package dequantizes them to.

Made with gguf 0.19.0. Needed only to make them anew.
"""
import numpy as np
import gguf
from gguf import GGMLQuantizationType as T
from safetensors.numpy import save_file

random = np.random.default_rng(3)
writer = gguf.GGUFWriter("blocks.gguf", "llama")
expected = {}
for kind in (T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q4_K, T.Q5_K, T.Q6_K):
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    raw = random.integers(0, 256, (2, 256 // elements, size), dtype=np.uint8)
    halves = 1 if kind in (T.Q4_0, T.Q5_0, T.Q8_0, T.Q6_K) else 2
    place = 208 if kind == T.Q6_K else 0
    scales = random.normal(0, 1, (2, 256 // elements, halves)).astype(np.float16)
    raw[:, :, place:place + 2 * halves] = scales.view(np.uint8)
    raw = raw.reshape(2, -1)
    expected[kind.name] = gguf.quants.dequantize(raw, kind).astype(np.float32)
    writer.add_tensor(kind.name, raw, raw_dtype=kind)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
save_file(expected, "elements.safetensors")

# The same for the other kinds of blocks, in files of their own.
writer = gguf.GGUFWriter("low_bits.gguf", "llama")
expected = {}
for kind, halves, place in ((T.Q2_K, 2, 80), (T.Q3_K, 1, 108), (T.IQ4_NL, 1, 0), (T.IQ4_XS, 1, 0), (T.MXFP4, 0, 0)):
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    raw = random.integers(0, 256, (2, 256 // elements, size), dtype=np.uint8)
    if kind == T.MXFP4:
        # Exponents near 127, and the smallest two.
        raw[:, :, 0] = random.integers(110, 140, (2, 256 // elements))
        raw[0, :2, 0] = (0, 1)
    else:
        scales = random.normal(0, 1, (2, 256 // elements, halves)).astype(np.float16)
        raw[:, :, place:place + 2 * halves] = scales.view(np.uint8)
    raw = raw.reshape(2, -1)
    expected[kind.name] = gguf.quants.dequantize(raw, kind).astype(np.float32)
    writer.add_tensor(kind.name, raw, raw_dtype=kind)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
save_file(expected, "low_bits.safetensors")
