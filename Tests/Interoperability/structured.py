"""Generates with random JSON schemas and lets the jsonschema package judge what came out.

    pip install jsonschema
    python3 structured.py NIBBLE MODEL [COUNT]
    python3 structured.py http://127.0.0.1:8080 [COUNT]     # a running nibble serve

Every value that ended by itself must satisfy its schema; one that did not must be as long as was allowed.
"""

import collections
import concurrent.futures
import json
import random
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request

import jsonschema

NEW_TOKENS = 120


def schema(rng, depth=0):
    kinds = ["integer", "number", "string", "boolean", "null", "enum", "pattern"]
    if depth < 3:
        kinds += ["object", "object", "array", "anyOf", "oneOf", "not"]
    kind = rng.choice(kinds)
    if kind == "integer":
        low = rng.randint(-50, 50)
        return {"type": "integer", "minimum": low, "maximum": low + rng.randint(0, 500)}
    if kind == "number":
        return {"type": "number", "exclusiveMinimum": rng.randint(-5, 5), "maximum": 10}
    if kind == "string":
        return {"type": "string", "minLength": rng.randint(0, 3), "maxLength": rng.randint(3, 12)}
    if kind == "enum":
        return {"enum": rng.sample([1, "a", None, True, 2.5, "é\"", [1], {}], rng.randint(1, 4))}
    if kind == "pattern":
        return {"type": "string", "pattern": rng.choice(["^[a-f]{2,5}$", "^\\d{3}-\\d{2}$", "^(ab|c)+$", "^x.{0,4}y$"])}
    if kind == "object":
        names = rng.sample(["a", "b", "name", "x y", "é"], rng.randint(1, 4))
        return {
            "type": "object",
            "properties": {name: schema(rng, depth + 1) for name in names},
            "required": rng.sample(names, rng.randint(0, len(names))),
            "additionalProperties": False,
        }
    if kind == "array":
        return {"type": "array", "items": schema(rng, depth + 1), "maxItems": rng.randint(0, 3)}
    if kind == "anyOf":
        return {"anyOf": [schema(rng, depth + 1) for _ in range(2)]}
    if kind == "oneOf":
        return {"oneOf": [{"type": "integer", "minimum": 3}, {"type": "integer", "maximum": rng.randint(0, 9)}]}
    if kind == "not":
        return {"type": "string", "maxLength": 4, "not": {"enum": ["a", ""]}}
    return {"type": kind}


def generated(nibble, model, wanted, seed):
    """Text, whether it was cut by length, and the refusal if there is one."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(wanted, file)
        file.flush()
        command = [nibble, "generate", model, "--json-schema", file.name, "--temperature", "1", "--top-k", "0", "--seed", str(seed)]
        command += ["--max-new-tokens", str(NEW_TOKENS), "--json", "--quiet", "Once"]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        return None, False, done.stderr
    answer = json.loads(done.stdout)
    return answer["text"].removeprefix("Once"), len(answer["output_ids"]) >= NEW_TOKENS, None


def served(url, wanted, seed):
    """The same from a server."""
    body = {"prompt": "Once", "max_tokens": NEW_TOKENS, "temperature": 1, "seed": seed, "structured_outputs": {"json": wanted}}
    request = urllib.request.Request(url + "/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        answer = json.load(urllib.request.urlopen(request))
    except urllib.error.HTTPError as error:
        assert error.code == 400, error
        return None, False, error.read().decode()
    choice = answer["choices"][0]
    return choice["text"], choice["finish_reason"] == "length", None


def judge(ask, seed):
    wanted = schema(random.Random(seed))
    text, is_cut, refusal = ask(wanted, seed)
    if refusal:
        assert "satisfies" in refusal or "cannot be enforced" in refusal, (wanted, refusal)
        return "refused"
    try:
        value = json.loads(text)
    except ValueError:
        assert is_cut, (wanted, text)
        return "cut"
    # A number may go on where it was cut.
    if is_cut:
        return "cut"
    jsonschema.Draft202012Validator(wanted).validate(value)
    return "whole"


def main():
    target = sys.argv[1]
    rest = sys.argv[2:]
    if target.startswith("http"):
        ask, workers = (lambda wanted, seed: served(target, wanted, seed)), 16
    else:
        model = rest.pop(0)
        ask, workers = (lambda wanted, seed: generated(target, model, wanted, seed)), 1
    count = int(rest[0]) if rest else 1000
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        ends = collections.Counter(pool.map(lambda seed: judge(ask, seed), range(count)))
    print(f"{ends['whole']} whole values, all valid; {ends['cut']} cut by length; "
          f"{ends['refused']} schemas without values or refused")


if __name__ == "__main__":
    main()
