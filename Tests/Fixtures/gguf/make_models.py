"""Makes a tiny model of each architecture as a GGUF file, and what transformers computes with it.

Made with gguf 0.19.0, transformers 5.23 and torch 2.15. Needed only to make them anew;
names as arguments make only those.
"""
import math
import sys

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from transformers import (
    ArceeConfig, ArceeForCausalLM, Exaone4Config, Exaone4ForCausalLM, Gemma2Config, Gemma2ForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, GemmaConfig, GemmaForCausalLM,
    GraniteConfig, GraniteForCausalLM, HunYuanDenseV1Config, HunYuanDenseV1ForCausalLM, LlamaConfig, LlamaForCausalLM, Olmo2Config,
    Olmo2ForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM, SeedOssConfig, SeedOssForCausalLM,
    SmolLM3Config, SmolLM3ForCausalLM)

# Byte-level tokens, merges that build "the", and two control tokens.
BYTES = [chr(b) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b else None for b in range(256)]
spare = iter(range(256, 1024))
BYTES = [c or chr(next(spare)) for c in BYTES]
MERGES = ["t h", "th e", "Ġ the"]
TOKENS = BYTES + ["th", "the", "Ġthe", "<|end|>", "<|turn|>", "<|pad|>"]
END, TURN, PAD = 259, 260, 261
TEMPLATE = "{% for m in messages %}{{ m.content }}<|turn|>{% endfor %}"

SHARED = dict(
    vocab_size=len(TOKENS), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, eos_token_id=END, bos_token_id=END, pad_token_id=PAD)
LLAMA3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SHARED, rope_parameters=LLAMA3, tie_word_embeddings=False)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SHARED, tie_word_embeddings=True)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SHARED, head_dim=16, tie_word_embeddings=True)),
    "gemma": (GemmaForCausalLM, GemmaConfig(**SHARED, head_dim=16)),
    "gemma2": (Gemma2ForCausalLM, Gemma2Config(**SHARED, head_dim=16, query_pre_attn_scalar=16, sliding_window=4)),
}

# Smaller, and without a tokenizer.
SMALL = dict(
    vocab_size=40, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=64, eos_token_id=2, bos_token_id=1, pad_token_id=0, tie_word_embeddings=True)
LINEAR = dict(rope_type="linear", factor=4.0, rope_theta=50000.0)
SMALL_MODELS = {
    "arcee": (ArceeForCausalLM, ArceeConfig(**SMALL)),
    "exaone4": (Exaone4ForCausalLM, Exaone4Config(
        **{**SMALL, "num_hidden_layers": 3}, head_dim=4, sliding_window=4,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"])),
    "exaone4_full": (Exaone4ForCausalLM, Exaone4Config(**SMALL, head_dim=8, sliding_window=None, layer_types=["full_attention"] * 2, rope_parameters={
        **LLAMA3, "factor": 16.0})),
    "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig(
        **{**SMALL, "num_hidden_layers": 6}, head_dim=8, query_pre_attn_scalar=8, sliding_window=4, rope_parameters={
            "full_attention": LINEAR, "sliding_attention": dict(rope_type="default", rope_theta=10000.0)})),
    "granite": (GraniteForCausalLM, GraniteConfig(
        **SMALL, embedding_multiplier=3.0, attention_multiplier=0.4, residual_multiplier=0.7, logits_scaling=1.7)),
    "hunyuan-dense": (HunYuanDenseV1ForCausalLM, HunYuanDenseV1Config(**SMALL, head_dim=8, rope_parameters=dict(
        rope_type="dynamic", rope_theta=10000.0, alpha=100.0, factor=1.0))),
    "olmo2": (Olmo2ForCausalLM, Olmo2Config(**{**SMALL, "tie_word_embeddings": False})),
    "seed_oss": (SeedOssForCausalLM, SeedOssConfig(**SMALL, head_dim=8)),
    "smollm3": (SmolLM3ForCausalLM, SmolLM3Config(**{**SMALL, "num_hidden_layers": 4}, no_rope_layer_interval=4)),
}


def rope_factors(config):
    """As llama.cpp's converter computes them."""
    rope, size = config.rope_parameters, getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    factors = []
    for frequency in 1 / rope["rope_theta"] ** (torch.arange(0, size, 2).float() / size):
        wavelength, original = 2 * math.pi / frequency, rope["original_max_position_embeddings"]
        if wavelength < original / rope["high_freq_factor"]:
            factors.append(1.0)
        elif wavelength > original / rope["low_freq_factor"]:
            factors.append(rope["factor"])
        else:
            low, high = rope["low_freq_factor"], rope["high_freq_factor"]
            smooth = (original / wavelength - low) / (high - low)
            factors.append(float(1 / ((1 - smooth) / rope["factor"] + smooth)))
    return np.array(factors, dtype=np.float32)


def interleave(weight, heads):
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def write_tokenizer(writer):
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(TOKENS)
    writer.add_token_merges(MERGES)
    writer.add_token_types([1] * 259 + [3] * 3)
    writer.add_eos_token_id(END)
    writer.add_eot_token_id(TURN)
    writer.add_pad_token_id(PAD)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


INTERLEAVED = ("llama", "granite", "arcee", "smollm3")


def write_family(name, writer, config):
    """What a family has beside the sizes."""
    if name == "exaone4" and config.sliding_window:
        writer.add_sliding_window(config.sliding_window)
        writer.add_sliding_window_pattern([t == "sliding_attention" for t in config.layer_types])
    if name == "gemma3":
        writer.add_sliding_window(config.sliding_window)
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_parameters["full_attention"]["factor"])
    if name == "granite":
        writer.add_attention_scale(config.attention_multiplier)
        writer.add_embedding_scale(config.embedding_multiplier)
        writer.add_residual_scale(config.residual_multiplier)
        writer.add_logit_scale(config.logits_scaling)


def rope_base(name, config):
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    if name == "hunyuan-dense":
        return rope["rope_theta"] * rope["alpha"] ** (config.head_dim / (config.head_dim - 2))
    return rope["rope_theta"]


def write(file, model, config):
    name = file.removesuffix("_full")
    writer = gguf.GGUFWriter(f"{file}.gguf", name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope_base(name, config))
    write_family(name, writer, config)
    if name not in ("llama", "qwen2", "granite") and getattr(config, "head_dim", None):
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    if name == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
        writer.add_sliding_window(config.sliding_window)
    if name in MODELS:
        write_tokenizer(writer)
    names = gguf.get_tensor_name_map(next(a for a, n in gguf.MODEL_ARCH_NAMES.items() if n == name), config.num_hidden_layers)
    for key, tensor in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = tensor.float().numpy()
        if name in INTERLEAVED and ".q_proj." in key:
            values = interleave(values, config.num_attention_heads)
        if name in INTERLEAVED and ".k_proj." in key:
            values = interleave(values, config.num_key_value_heads)
        if name.startswith("gemma") and "norm" in key:
            values = values + 1
        writer.add_tensor(names.get_name(key, try_suffixes=(".weight", ".bias")), np.ascontiguousarray(values))
    if config.rope_parameters.get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", rope_factors(config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


for name, (kind, config) in {**MODELS, **SMALL_MODELS}.items():
    if sys.argv[1:] and name not in sys.argv[1:]:
        continue
    torch.manual_seed(7)
    config._attn_implementation = "eager"
    model = kind(config).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.normal_(0, 0.3 if parameter.dim() == 1 else 0.15)
            if "norm" in key and not name.startswith("gemma"):
                parameter.add_(1)
        ids = torch.tensor([[116, 104, 256, 257, 258, 32, 97, 259, 44, 10, 200, 65]]) % config.vocab_size
        save_file({"input_ids": ids, "logits": model(input_ids=ids).logits.float()}, f"{name}.safetensors")
    write(name, model, config)
    print(name, "norm", float(model(input_ids=ids).logits.norm()))
