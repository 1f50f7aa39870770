"""Asks a running server through Ollama's own client: python ollama_client.py URL"""

import sys

from ollama import Client, ResponseError

client = Client(host=sys.argv[1])
model = client.list().models[0].model
greedy = {"temperature": 0, "num_predict": 8}
messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello"}]

whole = client.chat(model=model, messages=messages, options=greedy, keep_alive="5m")
assert whole.done and whole.done_reason in ("stop", "length") and whole.eval_count > 0 and whole.total_duration > 0
parts = list(client.chat(model=model, messages=messages, options=greedy, stream=True))
assert "".join(part.message.content for part in parts) == whole.message.content
assert not any(part.done for part in parts[:-1]) and parts[-1].eval_count == whole.eval_count

tools = [{"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": {"type": "object", "properties": {}}}}]
client.chat(model=model, messages=messages, tools=tools, options=greedy)
history = messages + [
    {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Seoul"}}}]},
    {"role": "tool", "tool_name": "weather", "content": "Rain"},
]
client.chat(model=model, messages=history, tools=tools, options=greedy)

text = client.generate(model=model, prompt="Once upon a time", raw=True, options=greedy)
streamed = "".join(part.response for part in client.generate(model=model, prompt="Once upon a time", raw=True, options=greedy, stream=True))
assert text.response and streamed == text.response
assert client.generate(model=model, prompt="").done_reason == "load"

shown = client.show(model)
assert "completion" in shown.capabilities and shown.details.format in ("safetensors", "gguf")
assert client.ps().models[0].context_length > 0
if "embedding" in shown.capabilities:
    vectors = client.embed(model=model, input=["Hello", "Hi"]).embeddings
    assert len(vectors) == 2 and abs(sum(value * value for value in vectors[0]) - 1) < 1e-3
    assert len(client.embed(model=model, input="Hello", dimensions=16).embeddings[0]) == 16
    assert len(client.embeddings(model=model, prompt="Hello").embedding) == len(vectors[0])

for arguments, status in [
    ({"model": "no such model", "messages": messages}, 404),
    ({"model": model, "messages": [{"role": "user", "content": "word " * 200_000}]}, 400),
]:
    try:
        client.chat(**arguments)
        raise AssertionError(f"{arguments['model']}: taken")
    except ResponseError as caught:
        assert caught.status_code == status and caught.error, caught
print("ollama: ok")
