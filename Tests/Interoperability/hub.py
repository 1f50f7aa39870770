#!/usr/bin/env python3
"""Checks that Nibble and huggingface_hub use each other's cache. Run by hand; nothing but loopback is used:

    pip install huggingface_hub
    swift build -c release --product nibble
    python Tests/Interoperability/hub.py Models/bloom-stories [--nibble .build/release/nibble]

A server on loopback offers the folder as a model. huggingface_hub downloads it, and Nibble runs from that cache offline; Nibble
downloads it into another cache, and huggingface_hub finds everything there offline. At last each downloads on top of what the
other left: no file may be transferred twice.
"""
import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REPOSITORY, COMMIT = "owner/model", "0123456789abcdef0123456789abcdef01234567"
LARGE = 100_000

# What huggingface_hub is asked, in a process of its own: it reads its environment when it is imported.
DOWNLOAD = """
from huggingface_hub import snapshot_download
print(snapshot_download("owner/model"))
"""
LOOK = """
import json, sys
from huggingface_hub import snapshot_download, try_to_load_from_cache
from huggingface_hub.file_download import _CACHED_NO_EXIST
folder = snapshot_download("owner/model", local_files_only=True)
found = {name: try_to_load_from_cache("owner/model", name) for name in json.loads(sys.argv[1])}
absent = try_to_load_from_cache("owner/model", sys.argv[2]) is _CACHED_NO_EXIST
print(json.dumps({"folder": folder, "found": found, "absent": absent}))
"""


def git_hash(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def entry(name, content):
    """A file as the tree of a revision lists it."""
    found = {"type": "file", "path": name, "size": len(content), "oid": git_hash(content)}
    if len(content) >= LARGE:
        found["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return found


def serve(files, requests, storage=None):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments):
            pass

        def answer(self, status, headers, body=b""):
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self):
            path = self.path.split("?")[0]
            if path.startswith(f"/api/models/{REPOSITORY}/tree/"):
                return self.answer(200, {"Content-Type": "application/json"}, json.dumps([entry(*f) for f in files.items()]).encode())
            if path.startswith(f"/api/models/{REPOSITORY}"):
                siblings = [{"rfilename": name} for name in sorted(files)]
                body = {"id": REPOSITORY, "sha": COMMIT, "siblings": siblings, "tags": [], "downloads": 0, "private": False}
                return self.answer(200, {"Content-Type": "application/json"}, json.dumps(body).encode())
            parts = path.split(f"/{REPOSITORY}/resolve/")
            name = parts[1].split("/", 1)[1] if len(parts) == 2 else None
            if name not in files:
                return self.answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            content = files[name]
            if self.command == "GET":
                requests.append(name)
            headers = {"X-Repo-Commit": COMMIT}
            if len(content) < LARGE or storage is None:
                return self.answer(200, {**headers, "ETag": f'"{git_hash(content)}"'}, content)
            if self.command == "GET":
                requests.pop()
            headers |= {"X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Linked-Size": str(len(content)),
                        "ETag": '"storage"', "Location": storage + self.path}
            self.answer(302, headers)

        do_HEAD = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--nibble", default=".build/release/nibble")
    arguments = parser.parse_args()
    files = {}
    for name in os.listdir(arguments.model):
        with open(os.path.join(arguments.model, name), "rb") as file:
            files[name] = file.read()
    requests = []
    endpoint = serve(files, requests, serve(files, requests))
    failed = False

    def run(command, home, offline):
        variables = dict(HF_HOME=home, HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="1" if offline else "0", HF_HUB_DISABLE_XET="1")
        return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, env=os.environ | variables).stdout

    def python(program, home, offline, *more):
        return run([sys.executable, "-c", program, *more], home, offline)

    def nibble(home, offline, model=REPOSITORY):
        return run([arguments.nibble, "generate", model, "--quiet", "--max-new-tokens", "8", "Once upon a time"], home, offline)

    def check(what, holds):
        nonlocal failed
        print(f"{what:70} {'ok' if holds else 'WRONG'}", flush=True)
        failed |= not holds

    with tempfile.TemporaryDirectory() as theirs, tempfile.TemporaryDirectory() as ours:
        python(DOWNLOAD, theirs, False)
        expected = nibble(theirs, True, arguments.model)
        requests.clear()
        check("downloaded by huggingface_hub, run by Nibble offline", nibble(theirs, True) == expected)
        check("the same, online", nibble(theirs, False) == expected)
        check("Nibble transferred nothing again", requests == [])

        check("downloaded and run by Nibble", nibble(ours, False) == expected)
        check("each file once", sorted(requests) == sorted(files))
        optional = ["added_tokens.json", "chat_template.jinja", "special_tokens_map.json", "model.safetensors.index.json"]
        absent = next(name for name in optional if name not in files)
        found = json.loads(python(LOOK, ours, True, json.dumps(sorted(files)), absent).splitlines()[-1])
        check("huggingface_hub finds the snapshot", found["folder"].endswith(f"models--owner--model/snapshots/{COMMIT}"))
        same = all(path and open(path, "rb").read() == files[name] for name, path in found["found"].items())
        check("huggingface_hub finds every file", same)
        check("huggingface_hub knows what does not exist", found["absent"])
        requests.clear()
        python(DOWNLOAD, ours, False)
        check("huggingface_hub transferred nothing again", requests == [])
        blobs = sorted(os.listdir(f"{ours}/hub/models--owner--model/blobs"))
        check("both name blobs alike", blobs == sorted(os.listdir(f"{theirs}/hub/models--owner--model/blobs")))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
