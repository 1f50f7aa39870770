"""Makes the files in this folder: one state dict in both forms of torch.save, and its elements as safetensors.

Made with torch 2.15.0 and safetensors 0.8. Needed only to make them anew.
"""
import torch
from collections import OrderedDict
from safetensors.torch import save_file

generator = torch.Generator().manual_seed(7)
matrix = torch.randn(5, 7, generator=generator)
cube = torch.arange(24, dtype=torch.int16).reshape(2, 3, 4)

state = OrderedDict()
state["matrix"] = matrix
state["tied"] = matrix
state["parameter"] = torch.nn.Parameter(torch.randn(3, generator=generator))
state["transposed"] = matrix.t()
state["rows"] = matrix[2:4]
state["columns"] = matrix[:, 1:6:2]
state["permuted"] = cube.permute(2, 0, 1)
state["expanded"] = torch.tensor([1.5, -2.5]).expand(3, 2)
state["row.of.one"] = torch.arange(6).expand(1, -1)
state["scalar"] = torch.tensor(3, dtype=torch.int64)
state["empty"] = torch.empty(0, 4)
for name in "float64 float16 bfloat16 int32 int8 uint8 bool".split():
    state["dtype." + name] = torch.tensor([0, 1, 2, 3]).to(getattr(torch, name))
modern = OrderedDict(state)
for name in "uint16 uint32 uint64 float8_e4m3fn float8_e5m2".split():
    modern["dtype." + name] = torch.tensor([0, 1, 2, 3], dtype=torch.float32).to(getattr(torch, name))
for some in (state, modern):
    some["not.a.tensor"] = [1, -70000, 2**40, "text", 1.5, None, True, (), {"a": [-1]}, torch.Size([1, 2])]
    some._metadata = OrderedDict([("", {"version": 1})])

torch.save(modern, "zip.bin")
torch.save(state, "legacy.bin", _use_new_zipfile_serialization=False)
torch.save(state, "protocol4.bin", pickle_protocol=4)
torch.save({"state_dict": state, "epoch": 1}, "training.bin")
save_file({k: v.detach().clone().contiguous() for k, v in modern.items() if torch.is_tensor(v)}, "elements.safetensors")
