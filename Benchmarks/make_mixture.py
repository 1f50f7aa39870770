#!/usr/bin/env python3
"""Writes a mixture-of-experts checkpoint with random weights, for measurements of speed (numpy only).

    make_mixture.py SHAPE FOLDER      SHAPE: see SHAPES below

Weights are N(0, 0.02) in float16 and norms are 1. Values repeat, so that large files are quickly written. There is no tokenizer.
"""
import json
import os
import struct
import sys

import numpy as np

POOL = 1 << 22


def mixture(kind, width, layers, heads, kv_heads, head, hidden, experts, chosen, vocabulary):
    """The config and the tensors of `layers` blocks."""
    is_mixtral = kind == "mixtral"
    moe = "block_sparse_moe" if is_mixtral else "mlp"
    names = ("w1", "w3", "w2") if is_mixtral else ("gate_proj", "up_proj", "down_proj")
    tensors = [("model.embed_tokens.weight", (vocabulary, width))]
    for layer in range(layers):
        base = f"model.layers.{layer}."
        for name, rows in (("q", heads * head), ("k", kv_heads * head), ("v", kv_heads * head)):
            tensors.append((f"{base}self_attn.{name}_proj.weight", (rows, width)))
        tensors.append((f"{base}self_attn.o_proj.weight", (width, heads * head)))
        if not is_mixtral:
            tensors += [(f"{base}self_attn.{name}_norm.weight", (head,)) for name in "qk"]
        tensors.append((f"{base}{moe}.gate.weight", (experts, width)))
        for expert in range(experts):
            shapes = ((hidden, width), (hidden, width), (width, hidden))
            tensors += [(f"{base}{moe}.experts.{expert}.{name}.weight", shape) for name, shape in zip(names, shapes)]
        tensors += [(f"{base}{name}_layernorm.weight", (width,)) for name in ("input", "post_attention")]
    tensors += [("model.norm.weight", (width,)), ("lm_head.weight", (vocabulary, width))]
    config = dict(
        vocab_size=vocabulary, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv_heads, head_dim=head, num_experts_per_tok=chosen, max_position_embeddings=4096,
        rms_norm_eps=1e-6, rope_theta=1e6, hidden_act="silu", tie_word_embeddings=False, bos_token_id=1, eos_token_id=2,
        dtype="float16", torch_dtype="float16")
    if is_mixtral:
        config |= dict(architectures=["MixtralForCausalLM"], model_type="mixtral", intermediate_size=hidden,
                       num_local_experts=experts, sliding_window=None)
    else:
        config |= dict(architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe", intermediate_size=4 * hidden,
                       moe_intermediate_size=hidden, num_experts=experts, norm_topk_prob=True, decoder_sparse_step=1,
                       mlp_only_layers=[])
    return config, tensors


SHAPES = {
    # Of published models, with fewer layers.
    "mixtral-8x7b": lambda: mixture("mixtral", 4096, 4, 32, 8, 128, 14336, 8, 2, 32000),
    "qwen3-30b-a3b": lambda: mixture("qwen3_moe", 2048, 4, 32, 4, 128, 768, 128, 8, 32000),
    "gpt-oss-20b": lambda: mixture("qwen3_moe", 2880, 2, 64, 8, 64, 2880, 32, 4, 32000),
    # Small ones for CPUs.
    "mixtral-small": lambda: mixture("mixtral", 1024, 3, 8, 4, 128, 3584, 8, 2, 1000),
    "qwen3-small": lambda: mixture("qwen3_moe", 1024, 3, 8, 4, 128, 384, 64, 8, 1000),
}


def main(shape, folder):
    config, tensors = SHAPES[shape]()
    os.makedirs(folder, exist_ok=True)
    generator = np.random.default_rng(0)
    pool = (generator.standard_normal(2 * POOL, dtype=np.float32) * 0.02).astype(np.float16)
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, dims in tensors:
        size = 2 * int(np.prod(dims))
        header[name] = {"dtype": "F16", "shape": list(dims), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(f"{folder}/model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, dims in tensors:
            left = int(np.prod(dims))
            if len(dims) == 1:
                np.ones(left, np.float16).tofile(file)
                continue
            while left > 0:
                start, count = int(generator.integers(0, POOL)), min(left, POOL)
                pool[start:start + count].tofile(file)
                left -= count
    with open(f"{folder}/config.json", "w") as file:
        json.dump(config, file, indent=1)
    print(f"{shape}: {offset / 1e9:.2f} GB")


main(*sys.argv[1:])
