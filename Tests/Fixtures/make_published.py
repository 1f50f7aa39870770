#!/usr/bin/env python3
"""Writes names, shapes and memory footprints of published checkpoints: Tests/Fixtures/published.json, one object a line.

    make_published.py --out Tests/Fixtures/published.json

Configs hold the fields that matter, with the published values. Parameters come from the reference's model on the meta device,
numbers in names replaced by *. Footprints follow get_memory_footprint: float16, and what bitsandbytes stores of linear layers
but the head (one byte an element, or half of one).
"""
import argparse
import collections
import json
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
import transformers
from transformers.pytorch_utils import Conv1D

transformers.logging.set_verbosity_error()


def dense(kind, v, e, f, n, h, g, **more):
    return dict(model_type=kind, vocab_size=v, hidden_size=e, intermediate_size=f, num_hidden_layers=n,
                num_attention_heads=h, num_key_value_heads=g, **more)


def seq2seq(v, e, n, h, f):
    return dict(model_type="m2m_100", vocab_size=v, d_model=e, encoder_layers=n, decoder_layers=n, encoder_attention_heads=h,
                decoder_attention_heads=h, encoder_ffn_dim=f, decoder_ffn_dim=f, max_position_embeddings=1024, scale_embedding=True)


def gemma4(e, f, n, h, g, period, window, **more):
    """The text part; every layer number `period` is a full one."""
    types = ["full_attention" if layer % period == period - 1 else "sliding_attention" for layer in range(n)]
    return dict(dense("gemma4_text", 262144, e, f, n, h, g, head_dim=256, global_head_dim=512, hidden_size_per_layer_input=0,
                      sliding_window=window, final_logit_softcapping=30.0, layer_types=types), **more)


CHECKPOINTS = {
    "LGAI-EXAONE/EXAONE-3.5-2.4B-Instruct": dense("exaone", 102400, 2560, 7168, 30, 32, 8, head_dim=80, tie_word_embeddings=True),
    "LGAI-EXAONE/EXAONE-3.5-7.8B-Instruct": dense("exaone", 102400, 4096, 14336, 32, 32, 8),
    "LGAI-EXAONE/EXAONE-Deep-32B": dense("exaone", 102400, 5120, 27392, 64, 40, 8),
    "LGAI-EXAONE/EXAONE-4.0-1.2B": dense("exaone4", 102400, 2048, 4096, 30, 32, 8, head_dim=64, sliding_window=None,
                                        layer_types=["full_attention"] * 30, tie_word_embeddings=True),
    "LGAI-EXAONE/EXAONE-4.0-32B": dense("exaone4", 102400, 5120, 27392, 64, 40, 8, head_dim=128, sliding_window=4096,
                                       layer_types=(["sliding_attention"] * 3 + ["full_attention"]) * 16),
    "naver-hyperclovax/HyperCLOVAX-SEED-Think-14B": dense("hyperclovax", 110592, 6144, 14336, 38, 48, 8, head_dim=128),
    "mistralai/Ministral-8B-Instruct-2410": dense("ministral", 131072, 4096, 12288, 36, 32, 8, head_dim=128, sliding_window=32768),
    "mistralai/Ministral-3-3B-Instruct-2512": dense("ministral3", 131072, 3072, 9216, 26, 32, 8, head_dim=128, tie_word_embeddings=True),
    "mistralai/Ministral-3-8B-Instruct-2512": dense("ministral3", 131072, 4096, 14336, 34, 32, 8, head_dim=128),
    "mistralai/Ministral-3-14B-Instruct-2512": dense("ministral3", 131072, 5120, 16384, 40, 32, 8, head_dim=128),
    "allenai/OLMo-1B-hf": dense("olmo", 50304, 2048, 8192, 16, 16, 16, tie_word_embeddings=True),
    "allenai/OLMo-7B-hf": dense("olmo", 50304, 4096, 11008, 32, 32, 32),
    "allenai/Olmo-3-7B-Instruct": dense("olmo3", 100278, 4096, 11008, 32, 32, 32),
    "allenai/Olmo-3-32B-Think": dense("olmo3", 100278, 5120, 27648, 64, 40, 8),
    "allenai/OLMoE-1B-7B-0924": dense("olmoe", 50304, 2048, 1024, 16, 16, 16, num_experts=64, num_experts_per_tok=8),
    "CohereForAI/c4ai-command-r7b-12-2024": dense("cohere2", 256000, 4096, 14336, 32, 32, 8, logit_scale=0.25),
    "CohereForAI/c4ai-command-a-03-2025": dense("cohere2", 256000, 12288, 36864, 64, 96, 8, logit_scale=0.25),
    "THUDM/glm-4-9b-chat-hf": dense("glm", 151552, 4096, 13696, 40, 32, 2, head_dim=128),
    "THUDM/GLM-4-9B-0414": dense("glm4", 151552, 4096, 13696, 40, 32, 2, head_dim=128),
    "THUDM/GLM-4-32B-0414": dense("glm4", 151552, 6144, 23040, 61, 48, 2, head_dim=128, attention_bias=False),
    "ByteDance-Seed/Seed-OSS-36B-Instruct": dense("seed_oss", 155136, 5120, 27648, 64, 80, 8, head_dim=128),
    "ibm-granite/granite-3.1-1b-a400m-instruct": dense("granitemoe", 49155, 1024, 512, 24, 16, 8, num_local_experts=32,
                                                       num_experts_per_tok=8, tie_word_embeddings=True),
    "ibm-granite/granite-3.1-3b-a800m-instruct": dense("granitemoe", 49155, 1536, 512, 32, 24, 8, num_local_experts=40,
                                                       num_experts_per_tok=8, tie_word_embeddings=True),
    "ibm-granite/granite-4.0-micro": dense(
        "granitemoehybrid", 100352, 2560, 8192, 40, 40, 8, num_local_experts=0, shared_intermediate_size=8192,
        layer_types=["attention"] * 40, position_embedding_type="rope", tie_word_embeddings=True),
    "ibm-granite/granite-4.0-1b": dense(
        "granitemoehybrid", 100352, 2048, 4096, 40, 16, 4, num_local_experts=0, shared_intermediate_size=4096,
        layer_types=["attention"] * 40, position_embedding_type="rope", tie_word_embeddings=True),
    "baidu/ERNIE-4.5-0.3B-PT": dense("ernie4_5", 103424, 1024, 3072, 18, 16, 2, head_dim=128, tie_word_embeddings=True),
    "tencent/Hunyuan-0.5B-Instruct": dense("hunyuan_v1_dense", 120818, 1024, 3584, 24, 8, 4, head_dim=128, tie_word_embeddings=True),
    "tencent/Hunyuan-1.8B-Instruct": dense("hunyuan_v1_dense", 120818, 2048, 6144, 32, 16, 4, head_dim=128, tie_word_embeddings=True),
    "tencent/Hunyuan-7B-Instruct": dense("hunyuan_v1_dense", 128167, 4096, 14336, 32, 32, 8, head_dim=128, tie_word_embeddings=True),
    "nvidia/Nemotron-Mini-4B-Instruct": dense("nemotron", 256000, 3072, 9216, 32, 24, 8, head_dim=128),
    "nvidia/Minitron-8B-Base": dense("nemotron", 256000, 4096, 16384, 32, 48, 8, head_dim=128),
    "arcee-ai/AFM-4.5B": dense("arcee", 128004, 2560, 18432, 36, 20, 4, head_dim=128),
    "kyutai/helium-1-preview-2b": dense("helium", 48000, 2560, 7040, 24, 20, 20, head_dim=128),
    "facebook/cwm": dense("cwm", 128256, 6144, 21504, 64, 48, 8, head_dim=128),
    "bigcode/starcoderbase-1b": dict(model_type="gpt_bigcode", vocab_size=49152, n_embd=2048, n_layer=24, n_head=16,
                                     n_positions=8192, n_inner=8192),
    "bigcode/starcoder": dict(model_type="gpt_bigcode", vocab_size=49152, n_embd=6144, n_layer=40, n_head=48, n_positions=8192,
                              n_inner=24576),
    "bigcode/santacoder": dict(model_type="gpt_bigcode", vocab_size=49280, n_embd=2048, n_layer=24, n_head=16, n_positions=2048,
                               n_inner=8192),
    "microsoft/biogpt": dict(model_type="biogpt", vocab_size=42384, hidden_size=1024, num_hidden_layers=24,
                             num_attention_heads=16, intermediate_size=4096, max_position_embeddings=1024),
    "openai-community/openai-gpt": dict(model_type="openai-gpt", vocab_size=40478, n_embd=768, n_layer=12, n_head=12,
                                        n_positions=512, afn="gelu"),
    "facebook/blenderbot-400M-distill": dict(
        model_type="blenderbot", vocab_size=8008, d_model=1280, encoder_layers=2, decoder_layers=12, encoder_attention_heads=32,
        decoder_attention_heads=32, encoder_ffn_dim=5120, decoder_ffn_dim=5120, max_position_embeddings=128, scale_embedding=True),
    "facebook/nllb-200-distilled-600M": seq2seq(256206, 1024, 12, 16, 4096),
    "facebook/nllb-200-distilled-1.3B": seq2seq(256206, 1024, 24, 16, 8192),
    "facebook/nllb-200-3.3B": seq2seq(256206, 2048, 24, 16, 8192),
    "facebook/m2m100_418M": seq2seq(128112, 1024, 12, 16, 4096),
    "facebook/m2m100_1.2B": seq2seq(128112, 1024, 24, 16, 8192),
    "facebook/xglm-564M": dict(model_type="xglm", vocab_size=256008, d_model=1024, num_layers=24, attention_heads=16, ffn_dim=4096,
                               max_position_embeddings=2048, scale_embedding=True),
    "facebook/xglm-1.7B": dict(model_type="xglm", vocab_size=256008, d_model=2048, num_layers=24, attention_heads=16, ffn_dim=8192,
                               max_position_embeddings=2048, scale_embedding=True),
    "internlm/internlm3-8b-instruct": dense("internlm3", 128512, 4096, 10240, 48, 32, 2, head_dim=128),
    "allenai/FlexOlmo-7x7B-1T": dense("flex_olmo", 100352, 4096, 11008, 32, 32, 32, num_experts=7, num_experts_per_tok=5),
    "inceptionAI/Jais-2-8B-Chat": dense("jais2", 150272, 3328, 26624, 32, 26, 26),
    "google/vaultgemma-1b": dense("vaultgemma", 256000, 1152, 6912, 26, 4, 4, head_dim=256, query_pre_attn_scalar=256,
                                  sliding_window=512),
    "google/gemma-4-31B-it": gemma4(5376, 21504, 60, 32, 16, 6, 1024, num_global_key_value_heads=4, attention_k_eq_v=True),
    "google/gemma-4-26B-A4B-it": gemma4(
        2816, 2112, 30, 16, 8, 6, 1024, num_global_key_value_heads=2, attention_k_eq_v=True, enable_moe_block=True, num_experts=128,
        top_k_experts=8, moe_intermediate_size=704),
    "google/gemma-4-E4B-it": gemma4(2560, 10240, 42, 8, 2, 6, 512, hidden_size_per_layer_input=256, num_kv_shared_layers=18),
    "google/gemma-4-E2B-it": gemma4(1536, 6144, 35, 8, 1, 5, 512, hidden_size_per_layer_input=256, num_kv_shared_layers=20,
                                    use_double_wide_mlp=True),
    "adept/persimmon-8b-base": dict(model_type="persimmon", vocab_size=262144, hidden_size=4096, intermediate_size=16384,
                                    num_hidden_layers=36, num_attention_heads=64, max_position_embeddings=16384),
    "openai/gpt-oss-20b": dense("gpt_oss", 201088, 2880, 2880, 24, 64, 8, head_dim=64, num_local_experts=32),
    "openai/gpt-oss-120b": dense("gpt_oss", 201088, 2880, 2880, 36, 64, 8, head_dim=64, num_local_experts=128),
    "zai-org/GLM-4.5-Air": dense("glm4_moe", 151552, 4096, 10944, 46, 96, 8, head_dim=128, attention_bias=True),
    "zai-org/GLM-4.6": dense("glm4_moe", 151552, 5120, 12288, 92, 96, 8, head_dim=128, attention_bias=True, use_qk_norm=True,
                             moe_intermediate_size=1536, n_routed_experts=160, first_k_dense_replace=3, routed_scaling_factor=2.5),
    "MiniMaxAI/MiniMax-M2": dense("minimax_m2", 200064, 3072, 1536, 62, 48, 8, head_dim=128, rotary_dim=64),
    "LGAI-EXAONE/K-EXAONE-236B-A23B": dense("exaone_moe", 153600, 6144, 18432, 48, 64, 8, head_dim=128, num_experts=128,
                                           moe_intermediate_size=2048, sliding_window=128),
    "upstage/Solar-Open-100B": {k: v for k, v in dense("solar_open", 196608, 4096, 0, 48, 64, 8).items() if k != "intermediate_size"},
    "baidu/ERNIE-4.5-21B-A3B-PT": dense("ernie4_5_moe", 103424, 2560, 12288, 28, 20, 4, tie_word_embeddings=True),
    "tencent/Hunyuan-A13B-Instruct": dense("hunyuan_v1_moe", 128167, 4096, 3072, 32, 32, 8, head_dim=128, num_experts=64,
                                           moe_topk=[8] * 32, tie_word_embeddings=True),
    "rednote-hilab/dots.llm1.inst": dense("dots1", 152064, 4096, 10944, 62, 32, 32, head_dim=128, n_routed_experts=128,
                                          n_shared_experts=2, num_experts_per_tok=6, first_k_dense_replace=1),
}


def describe(name, values):
    values = dict(values)
    kind = values.pop("model_type")
    config = transformers.AutoConfig.for_model(kind, **values)
    auto = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    torch.set_default_dtype(torch.float16)
    with torch.device("meta"):
        model = auto.from_config(config, dtype=torch.float16)
    torch.set_default_dtype(torch.float32)
    tied = set(model.all_tied_weights_keys)
    patterns = collections.Counter()
    for path, p in model.named_parameters(remove_duplicate=False):
        if path in tied:
            continue
        parts = ["*" if part.isdigit() else part for part in path.split(".")]
        patterns[".".join(parts) + " " + "x".join(map(str, p.shape))] += 1
    wide = set(model._keep_in_fp32_modules or []) | set(model._keep_in_fp32_modules_strict or [])

    def size(path, tensor, bytes):
        kept = any(f".{name}." in f".{path}." for name in wide)
        return tensor.numel() * (4 if kept else bytes)
    # Loading casts parameters, whatever dtype they are made in.
    half = sum(size(path, p, 2) for path, p in model.named_parameters(remove_duplicate=False) if path not in tied)
    half += sum(size(path, b, b.element_size()) for path, b in model.named_buffers())
    head = model.get_output_embeddings()
    linear = [m.weight.numel() for m in model.modules() if type(m) in (torch.nn.Linear, Conv1D) and m is not head]
    # A 4-bit layer casts its bias to the compute dtype, float32, when it first runs.
    biases = [m.bias.numel() for m in model.modules() if type(m) in (torch.nn.Linear, Conv1D) and m is not head and m.bias is not None]
    footprint = dict(
        float16=half, int8=half - sum(n * 2 - n for n in linear), fp4=half - sum(n * 2 - (n + 1) // 2 for n in linear) + 2 * sum(biases))
    return dict(name=name, config=dict(model_type=kind, **values), parameters=patterns, footprint=footprint)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True)
    lines = [json.dumps(describe(*item), separators=(",", ":")) for item in CHECKPOINTS.items()]
    with open(parser.parse_args().out, "w") as file:
        file.write("[\n" + ",\n".join(lines) + "\n]\n")
