"""Generates with random JSON schemas and lets the jsonschema package judge what came out.

    pip install jsonschema
    python3 structured.py NIBBLE MODEL [COUNT]

Every value that ended by itself must satisfy its schema; one that did not must be as long as was allowed.
"""

import json
import random
import subprocess
import sys
import tempfile

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


def main():
    nibble, model = sys.argv[1:3]
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 1000
    whole = cut = refused = 0
    for seed in range(count):
        wanted = schema(random.Random(seed))
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(wanted, file)
            file.flush()
            command = [nibble, "generate", model, "--json-schema", file.name, "--temperature", "1", "--top-k", "0", "--seed", str(seed)]
            command += ["--max-new-tokens", str(NEW_TOKENS), "--json", "--quiet", "Once"]
            done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            assert "satisfies" in done.stderr or "cannot be enforced" in done.stderr, (wanted, done.stderr)
            refused += 1
            continue
        answer = json.loads(done.stdout)
        text = answer["text"].removeprefix("Once")
        try:
            value = json.loads(text)
        except ValueError:
            assert len(answer["output_ids"]) >= NEW_TOKENS, (wanted, text)
            cut += 1
            continue
        jsonschema.Draft202012Validator(wanted).validate(value)
        whole += 1
    print(f"{whole} whole values, all valid; {cut} cut by length; {refused} schemas without values or refused")


if __name__ == "__main__":
    main()
