"""Records how transformers reads the rotary fields of a config: rotary_readings.json.

    python make_rotary_readings.py > rotary_readings.json

Needs transformers 5.24 and numpy. torch is not needed: the few tensor functions that modeling_rope_utils calls are
computed by numpy in float32.
"""

import json
import sys
import types

import numpy as np
import transformers
from transformers import CONFIG_MAPPING
from transformers import modeling_rope_utils as rope


class Array(np.ndarray):
    def to(self, device=None, dtype=None):
        return self.astype(dtype).view(Array) if dtype is not None else self

    def float(self):
        return self.astype(np.float32).view(Array)

    def __array_wrap__(self, value, *_):
        return np.asarray(value).view(Array)


def array(values, dtype=None):
    return np.asarray(values, dtype=dtype).view(Array)


rope.torch = types.SimpleNamespace(
    arange=lambda *a, dtype=None, device=None: array(np.arange(*a), dtype or np.int64),
    tensor=lambda values, dtype=None, device=None: array(values, dtype),
    where=lambda c, a, b: array(np.where(c, a, b)),
    clamp=lambda x, low, high: array(np.clip(x, low, high)),
    int64=np.int64,
    float=np.float32,
    float32=np.float32,
    Tensor=Array,
)

# Families whose attention rotates a part of the head; the others rotate all of it or fail.
PARTIAL = {"gpt_neox", "phi", "phi3", "stablelm"}

SIZES = {
    "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4, "num_hidden_layers": 2,
    "intermediate_size": 32, "vocab_size": 64, "max_position_embeddings": 64, "pad_token_id": 0,
}
FACTORS = {"short_factor": [1.0 + i / 8 for i in range(8)], "long_factor": [2.0 + i for i in range(8)]}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def cases():
    both = ["llama", "phi3"]
    for family in ["llama", "mistral", "mixtral", "qwen2", "qwen3", "phi", "stablelm", "gpt_neox", "cohere", "smollm3",
                   "granite", "falcon", "gemma", "gemma2", "olmo2", "starcoder2", "qwen2_moe", "qwen3_moe", "phi3"]:
        yield family, {}
        yield family, {"rope_theta": 5000.0}
        yield family, {"rope_scaling": None, "rope_theta": 5000.0}
        yield family, {"rope_parameters": {"rope_type": "default", "rope_theta": 7000.0}, "rope_theta": 5000.0}
        yield family, {"rope_parameters": {"rope_type": "default", "rope_theta": 7000.0}, "partial_rotary_factor": 0.5}
        yield family, {"rope_parameters": {"rope_type": "default", "rope_theta": 7000.0, "partial_rotary_factor": 0.5}}
        yield family, {"rope_scaling": {"type": "linear", "factor": 4.0}}
        yield family, {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, "max_position_embeddings": None}
        yield family, {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}
    yield "gpt_neox", {"rotary_pct": 0.5, "rotary_emb_base": 500}
    yield "gpt_neox", {"rotary_pct": 0.5, "partial_rotary_factor": 0.75, "rope_theta": 5.0}
    yield "gpt_neox", {"rope_scaling": {"type": "linear", "factor": 2.0}, "rotary_pct": 0.5}
    for family in ["phi", "stablelm", "gpt_neox", "phi3", "llama"]:
        yield family, {"partial_rotary_factor": 1.0}
        yield family, {"partial_rotary_factor": 0.75}
        yield family, {"partial_rotary_factor": 0.5, "rope_scaling": {"type": "linear", "factor": 2.0}}
    for family in both:
        for key in ["rope_scaling", "rope_parameters"]:
            yield family, {key: {}}
            yield family, {key: {"rope_type": "linear", "factor": 2.0}, "rope_theta": 500.0}
            yield family, {key: {"type": "linear", "factor": 2.0, "rope_theta": 600.0}, "rope_theta": 500.0}
            yield family, {key: {"type": "dynamic", "rope_type": "linear", "factor": 2.0}}
            for kind in ["linear", "dynamic", "llama3", "yarn", "longrope", "su", "mystery"]:
                yield family, {key: {"rope_type": kind}}
                yield family, {key: {"rope_type": kind, "factor": None}}
                yield family, {key: {"rope_type": kind, "factor": 0.5}}
            yield family, {key: dict(LLAMA3)}
            for missing in ["factor", "low_freq_factor", "high_freq_factor"]:
                yield family, {key: {k: v for k, v in LLAMA3.items() if k != missing}}
            yield family, {key: dict(LLAMA3, original_max_position_embeddings=32)}
            yield family, {key: dict(LLAMA3, original_max_position_embeddings=32), "original_max_position_embeddings": 16}
            yield family, {key: dict(LLAMA3), "original_max_position_embeddings": 16}
            yarn = {"rope_type": "yarn", "factor": 4.0}
            yield family, {key: dict(yarn)}
            yield family, {key: dict(yarn, original_max_position_embeddings=16)}
            yield family, {key: dict(yarn, original_max_position_embeddings=16), "original_max_position_embeddings": 32}
            yield family, {key: dict(yarn), "original_max_position_embeddings": 16}
            yield family, {key: dict(yarn, factor=None, original_max_position_embeddings=16)}
            yield family, {key: dict(yarn, factor=None), "original_max_position_embeddings": 16}
            yield family, {key: dict(yarn, attention_factor=0.7)}
            yield family, {key: dict(yarn, attention_factor=None, mscale=0.7, mscale_all_dim=1.0)}
            yield family, {key: dict(yarn, mscale=0.7)}
            yield family, {key: dict(yarn, mscale=0.0, mscale_all_dim=1.0)}
            yield family, {key: dict(yarn, beta_fast=0, beta_slow=0)}
            yield family, {key: dict(yarn, beta_fast=4, beta_slow=2, truncate=False)}
            long = dict(FACTORS, rope_type="longrope")
            yield family, {key: dict(long)}
            yield family, {key: dict(long, type="su")}
            yield family, {key: dict(FACTORS, type="su")}
            yield family, {key: dict(FACTORS, type="yarn")}
            yield family, {key: dict(long, original_max_position_embeddings=16)}
            yield family, {key: dict(long), "original_max_position_embeddings": 16}
            yield family, {key: dict(long, original_max_position_embeddings=16), "original_max_position_embeddings": 32}
            yield family, {key: dict(long, factor=32.0), "original_max_position_embeddings": 16}
            yield family, {key: dict(long, attention_factor=1.5), "original_max_position_embeddings": 16}
            yield family, {key: {k: v for k, v in long.items() if k != "short_factor"}}
            yield family, {key: {k: v for k, v in long.items() if k != "long_factor"}}
            yield family, {key: dict(long, short_factor=[1.0])}
        yield family, {"rope_scaling": {"type": "linear", "factor": 2.0},
                       "rope_parameters": {"rope_type": "default", "rope_theta": 700.0}}
        yield family, {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_theta": 300.0,
                       "rope_parameters": {"rope_type": "default", "rope_theta": 700.0}}
        yield family, {"rope_scaling": {}, "rope_parameters": {"rope_type": "linear", "factor": 3.0}}
    full = {"rope_type": "linear", "factor": 8.0, "rope_theta": 900.0}
    for over in [{}, {"rope_theta": 300.0}, {"rope_local_base_freq": 200.0}, {"rope_scaling": {"rope_type": "linear", "factor": 8.0}},
                 {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_theta": 300.0, "rope_local_base_freq": 200.0},
                 {"rope_parameters": {"full_attention": full, "sliding_attention": {"rope_type": "default"}}},
                 {"rope_parameters": {"full_attention": full}, "rope_local_base_freq": 200.0},
                 {"rope_parameters": {"full_attention": full, "sliding_attention": None}},
                 {"rope_parameters": {"full_attention": full, "sliding_attention": {"rope_type": "linear", "factor": 2.0}}},
                 {"rope_parameters": full}]:
        yield "gemma3_text", over


def frequencies(config, family, layer_type, length):
    # What every rotary module of the library does when it is made and called.
    parameters = config.rope_parameters[layer_type] if layer_type else config.rope_parameters
    kind = parameters["rope_type"]
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if kind == "default":
        share = parameters.get("partial_rotary_factor", 1.0) if family in PARTIAL else 1.0
        dim = int(head * share)
        inverse, attention = 1.0 / (parameters["rope_theta"] ** (array(np.arange(0, dim, 2), np.float32) / dim)), 1.0
    else:
        inverse, attention = rope.ROPE_INIT_FUNCTIONS[kind](config, seq_len=length, layer_type=layer_type)
        share = parameters.get("partial_rotary_factor", 1.0)
        if family not in PARTIAL and int(head * share) != head:
            raise ValueError("cosines of a part of the head do not fit queries of all of it")
    return {"inverse": [float(f"{x:.9g}") for x in inverse], "attention": float(attention)}


def record(family, over):
    sizes = {**SIZES, **over}
    if sizes["max_position_embeddings"] is None:
        del sizes["max_position_embeddings"]
    if family in ("gemma", "gemma2", "gemma3_text", "qwen3", "qwen3_moe", "mixtral"):
        sizes["head_dim"] = 16
    written = json.loads(json.dumps({**sizes, "model_type": family}))
    try:
        config = CONFIG_MAPPING[family](**json.loads(json.dumps(sizes)))
        types_ = ["full_attention", "sliding_attention"] if family == "gemma3_text" else [None]
        read = {}
        for length in (1, 100):
            read[str(length)] = [frequencies(config, family, t, length) for t in types_]
        if read["1"] == read["100"]:
            del read["100"]
        return {"config": written, "read": read}
    except Exception as error:  # noqa: BLE001, any failure is a refusal
        return {"config": written, "error": f"{type(error).__name__}: {error}"[:200]}


if __name__ == "__main__":
    assert transformers.__version__.startswith("5.24"), transformers.__version__
    print('{"cases": [\n' + ",\n".join(json.dumps(record(*case)) for case in cases()) + "\n]}")
