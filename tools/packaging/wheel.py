"""A Python wheel that holds the binary alone: wheel.py STAGE VERSION PLATFORM OUTPUT

pip puts what lies in NAME.data/scripts on the path."""
import base64
import hashlib
import os
import pathlib
import sys
import time
import zipfile

import deflate


class BestCompressor:
    """libdeflate's slowest level in place of zlib's: its result is 5% smaller."""

    def __init__(self):
        self.content = b""

    def compress(self, content):
        self.content += content
        return b""

    def flush(self):
        return deflate.deflate_compress(self.content, 12)


# `zipfile` has no other way to choose a compressor.
zipfile._get_compressor = lambda method, level=None: BestCompressor()

stage, version, platform, output = pathlib.Path(sys.argv[1]), *sys.argv[2:5]
# The name `nibble` is another project's.
name = f"nibble_llm-{version}"
tag = f"py3-none-{platform}"
metadata = f"""Metadata-Version: 2.1
Name: nibble-llm
Version: {version}
Summary: Run large language models on the hardware you have
License: Apache-2.0
Requires-Python: >=3.8
Description-Content-Type: text/markdown

{(stage / "share/doc/nibble/README.md").read_text()}"""
wheel = f"Wheel-Version: 1.0\nGenerator: tools/release\nRoot-Is-Purelib: false\nTag: {tag}\n"
documents = stage / "share/doc/nibble"
licences = [documents / "LICENSE", documents / "NOTICE", *sorted((documents / "licences").iterdir())]

files = {f"{name}.data/scripts/nibble": (stage / "bin/nibble").read_bytes()}
files |= {f"{name}.dist-info/METADATA": metadata.encode(), f"{name}.dist-info/WHEEL": wheel.encode()}
files |= {f"{name}.dist-info/licenses/{path.relative_to(documents)}": path.read_bytes() for path in licences}


def line(path, content):
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(content)}\n"


record = f"{name}.dist-info/RECORD"
files[record] = ("".join(line(*item) for item in files.items()) + f"{record},,\n").encode()
date = time.gmtime(int(os.environ["SOURCE_DATE_EPOCH"]))[:6]
with zipfile.ZipFile(f"{output}/{name}-{tag}.whl", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
    for path, content in files.items():
        entry = zipfile.ZipInfo(path, date)
        entry.compress_type = zipfile.ZIP_DEFLATED
        entry.external_attr = (0o100755 if path.endswith("/nibble") else 0o100644) << 16
        archive.writestr(entry, content)
