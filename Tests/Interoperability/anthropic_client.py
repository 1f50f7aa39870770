"""Asks a running server through Anthropic's own client: python anthropic_client.py URL [KEY]"""

import sys

from anthropic import Anthropic, BadRequestError

url, key = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "none"
client = Anthropic(base_url=url, api_key=key, max_retries=0)
model = client.models.list().data[0].id if hasattr(client, "models") else "stories"
greedy = {"temperature": 0}
messages = [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
tools = [{"name": "weather", "description": "The weather.", "input_schema": {"type": "object", "properties": {}}}]

answer = client.messages.create(model=model, system="Be short.", messages=messages, max_tokens=8, extra_body=greedy)
assert answer.type == "message" and answer.usage.output_tokens > 0
assert answer.stop_reason in ("end_turn", "max_tokens")

with client.messages.stream(model=model, system="Be short.", messages=messages, max_tokens=8, extra_body=greedy) as stream:
    text = "".join(stream.text_stream)
    final = stream.get_final_message()
assert text == "".join(block.text for block in answer.content), (text, answer.content)
assert final.usage.input_tokens == answer.usage.input_tokens

client.messages.create(model=model, messages=messages, tools=tools, max_tokens=8)
history = messages + [
    {"role": "assistant", "content": [{"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Seoul"}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "Rain"}]},
]
client.messages.create(model=model, messages=history, tools=tools, max_tokens=8)
assert client.messages.count_tokens(model=model, messages=messages).input_tokens > 0
try:
    client.messages.create(model=model, messages=[], max_tokens=8)
    raise AssertionError("taken")
except BadRequestError as caught:
    assert caught.body["error"]["type"] == "invalid_request_error", caught
print("anthropic: ok")
