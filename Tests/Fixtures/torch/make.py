"""Makes the files in this folder: one state dict in both forms of torch.save, its elements as safetensors, and small files
of every kind that torch.load(weights_only=True) reads.

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

# Small files: the tensors of each are `matrix` and `vector`, whatever stands beside them.
import zipfile
from collections import Counter

small = OrderedDict(matrix=torch.arange(6, dtype=torch.float32).reshape(2, 3), vector=torch.tensor([-1.5, 2.5]).half())
for protocol in (2, 3, 4, 5):
    torch.save(small, f"protocol{protocol}.zip.bin", pickle_protocol=protocol)
    torch.save(small, f"protocol{protocol}.legacy.bin", pickle_protocol=protocol, _use_new_zipfile_serialization=False)
for key in ("model", "state_dict"):
    torch.save({key: small, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}}, "epoch": 3}, f"wrapped.{key}.bin")


class Noted(torch.nn.Parameter):
    pass


def with_attribute(value):
    value.note = "kept by pickle, of no use here"
    return value


extras = OrderedDict(small)
extras["parameter.state"] = with_attribute(torch.nn.Parameter(torch.tensor([4.0])))
extras["tensor.state"] = with_attribute(torch.tensor([5.0]))
extras.update(
    counter=Counter("hello"), bytes=b"\x00\xff", no_bytes=b"", array=bytearray(b"xyz"), complex=1 + 2j, a_set={1, 2},
    device=torch.device("cpu"), dtype=torch.float16, size=torch.Size([2, 3]), number=1.5, large=2**100,
    layout=torch.sparse_coo, nested={"deep": [OrderedDict(a=(1, None, True))]},
)
extras["complex.tensor"] = torch.tensor([1 + 2j])
extras["sparse.tensor"] = torch.eye(2).to_sparse()
extras["csr.tensor"] = torch.eye(2).to_sparse_csr()
extras["quantized.tensor"] = torch.quantize_per_tensor(torch.ones(2), 0.5, 0, torch.quint8)
extras["meta.tensor"] = torch.empty(3, device="meta")
extras["rank.five"] = torch.zeros(1, 1, 1, 1, 2)
extras["fnuz.tensor"] = torch.zeros(2).to(torch.float8_e4m3fnuz)
allowed = OrderedDict()
for name, value in extras.items():
    # Only what weights_only reads is wanted here.
    torch.save({name: value}, "probe.tmp")
    try:
        torch.load("probe.tmp", weights_only=True)
        allowed[name] = value
    except Exception as error:
        print("torch does not read", name, str(error).splitlines()[0][:90])
import os
os.remove("probe.tmp")
torch.save(allowed, "extras.bin")
del allowed["csr.tensor"]
torch.save(allowed, "extras.legacy.bin", _use_new_zipfile_serialization=False)

with zipfile.ZipFile("protocol2.zip.bin") as source, zipfile.ZipFile("deflated.bin", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target:
    for entry in source.infolist():
        target.writestr(entry.filename, source.read(entry.filename))
# Long enough for dynamic codes, for runs and for matches of every length.
long = OrderedDict(ramp=torch.arange(4096, dtype=torch.int32), zeros=torch.zeros(3000), noise=torch.rand(500, generator=generator))
torch.save(long, "long.bin")
save_file(dict(long), "long.safetensors")
for level in (1, 9):
    with zipfile.ZipFile("long.bin") as source, zipfile.ZipFile(f"deflated{level}.bin", "w", zipfile.ZIP_DEFLATED, compresslevel=level) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry.filename))
os.remove("long.bin")
