#!/usr/bin/env python3
"""Writes what the reference's models consist of, for configs of tiny models: one file a model under trees/.

    make_module_trees.py --out Tests/Fixtures/trees FOLDER_WITH_CONFIG_JSON…

Each file holds the config, the ties, the classes that are never divided, and in definition order every module as
[path, class, parameters, buffers]: {name: shape} and {name: [elements, dtype, is in checkpoints]}.
Needs torch (CPU) and transformers; builds on the meta device, so weights are not needed.
"""
import argparse
import json
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers

transformers.logging.set_verbosity_error()


def describe(folder):
    with open(os.path.join(folder, "config.json")) as file:
        raw = json.load(file)
    config = transformers.AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = getattr(transformers, config.architectures[0])(config)
    modules = []
    for path, module in model.named_modules():
        parameters = {n: list(p.shape) for n, p in module._parameters.items() if p is not None}
        buffers = {
            n: [b.numel(), str(b.dtype).removeprefix("torch."), n not in module._non_persistent_buffers_set]
            for n, b in module._buffers.items() if b is not None}
        modules.append([path, type(module).__name__, parameters, buffers])
    return raw, modules, model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("folders", nargs="+")
    arguments = parser.parse_args()
    os.makedirs(arguments.out, exist_ok=True)
    for folder in arguments.folders:
        name = os.path.basename(folder.rstrip("/"))
        config, modules, model = describe(folder)
        for key in ("id2label", "label2id", "transformers_version"):
            config.pop(key, None)
        lines = ",\n".join(json.dumps(m, separators=(",", ":")) for m in modules)
        with open(os.path.join(arguments.out, name + ".json"), "w") as file:
            file.write('{"config":%s,\n"tied":%s,\n"no_split":%s,\n"modules":[\n%s\n]}\n' % (
                json.dumps(config, separators=(",", ":")), json.dumps(list(model.all_tied_weights_keys.items())),
                json.dumps(sorted(model._no_split_modules or [])), lines))
        print(name, len(modules))
