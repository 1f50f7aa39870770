#!/usr/bin/env python3
"""Checks that Nibble and transformers + bitsandbytes read each other's quantized checkpoints. Run by hand:

    pip install torch transformers accelerate bitsandbytes safetensors
    swift build -c release --product nibble
    python Tests/Interoperability/check.py MODEL_FOLDER [--nibble .build/release/nibble]

For nf4 with nested scales, fp4 and int8: Nibble quantizes and writes, transformers loads that and both give logits; then
transformers quantizes and saves, and Nibble loads that. Logits are compared as |y - r| / |r| over all positions.
"""
import argparse
import os
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
import bitsandbytes.nn.modules as modules

# On CPUs with AVX512-BF16 bitsandbytes would otherwise multiply in bf16 whatever the compute dtype.
modules.has_avx512bf16 = lambda: False

LOADS = {
    "nf4 nested": (["--load-in-4bit", "--quant-type", "nf4", "--double-quant", "--compute-dtype", "float32"],
                   dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                        bnb_4bit_compute_dtype=torch.float32), 1e-3),
    "fp4": (["--load-in-4bit", "--compute-dtype", "float32"],
            dict(load_in_4bit=True, bnb_4bit_quant_type="fp4", bnb_4bit_compute_dtype=torch.float32), 1e-3),
    # One rounding step of an activation can differ; int8 is held to the bound of the recorded fixtures.
    "int8": (["--load-in-8bit"], dict(load_in_8bit=True), 5e-2),
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--nibble", default=".build/release/nibble")
    arguments = parser.parse_args()
    ids = torch.tensor([[1, 17, 200, 5, 9, 301, 44, 12, 77, 250]])
    failed = False
    for name, (flags, config, bound) in LOADS.items():
        with tempfile.TemporaryDirectory() as folder:
            def forward(model, *more):
                save_file({"input_ids": ids}, f"{folder}/ids.safetensors")
                subprocess.run([arguments.nibble, "forward", model, "--input", f"{folder}/ids.safetensors", "--output",
                                f"{folder}/logits.safetensors", "--dtype", "float32", "--reference-behaviour", "--quiet", *more], check=True)
                return load_file(f"{folder}/logits.safetensors")["logits"]

            def reference(model):
                with torch.no_grad():
                    return model(ids).logits.float()

            def report(what, ours, theirs):
                error = float((ours - theirs).norm() / theirs.norm())
                print(f"{name:11} {what:38} {error:.2e} {'ok' if error <= bound else 'TOO FAR'}", flush=True)
                return error > bound

            written = f"{folder}/nibble"
            subprocess.run([arguments.nibble, "quantize", arguments.model, "--output", written, "--dtype", "float32", "--quiet", *flags], check=True)
            model = AutoModelForCausalLM.from_pretrained(written, dtype=torch.float32, device_map="cpu")
            failed |= report("written by Nibble, read by both", forward(written), reference(model))

            saved = f"{folder}/transformers"
            model = AutoModelForCausalLM.from_pretrained(
                arguments.model, dtype=torch.float32, device_map="cpu", quantization_config=BitsAndBytesConfig(**config))
            model.save_pretrained(saved)
            failed |= report("saved by transformers, read by both", forward(saved), reference(model))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
