"""Asks a running server through OpenAI's own client: python openai_client.py URL [KEY]"""

import sys

from openai import BadRequestError, LengthFinishReasonError, NotFoundError, OpenAI

url, key = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "none"
client = OpenAI(base_url=url + "/v1", api_key=key, max_retries=0)
model = client.models.list().data[0].id
assert client.models.retrieve(model).id == model

messages = [{"role": "developer", "content": "Be short."}, {"role": "user", "content": "Hello"}]
answer = client.chat.completions.create(
    model=model, messages=messages, max_completion_tokens=8, n=2, seed=1, logprobs=True, top_logprobs=2
)
assert len(answer.choices) == 2 and answer.usage.completion_tokens > 0
assert all(len(entry.top_logprobs) == 2 for entry in answer.choices[0].logprobs.content)
assert answer.choices[0].finish_reason in ("stop", "length")

text, usage = "", None
for chunk in client.chat.completions.create(
    model=model, messages=messages, max_tokens=8, temperature=0, stream=True, stream_options={"include_usage": True}
):
    if chunk.choices:
        text += chunk.choices[0].delta.content or ""
    else:
        usage = chunk.usage
whole = client.chat.completions.create(model=model, messages=messages, max_tokens=8, temperature=0)
assert text == whole.choices[0].message.content and usage.completion_tokens == whole.usage.completion_tokens

tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
client.chat.completions.create(model=model, messages=messages, tools=tools, max_tokens=8)
with client.chat.completions.stream(model=model, messages=messages, tools=tools, max_tokens=8) as stream:
    try:
        assert stream.get_final_completion().choices[0].message is not None
    except LengthFinishReasonError as caught:
        assert caught.completion.choices[0].finish_reason == "length"

completion = client.completions.create(model=model, prompt=["a", "b"], max_tokens=4, logprobs=2, temperature=0)
assert [choice.index for choice in completion.choices] == [0, 1]
assert len(completion.choices[0].logprobs.tokens) == len(completion.choices[0].logprobs.token_logprobs)
streamed = "".join(
    chunk.choices[0].text for chunk in client.completions.create(model=model, prompt="a", max_tokens=4, temperature=0, stream=True)
)
assert streamed == completion.choices[0].text

response = client.responses.create(model=model, instructions="Be short.", input="Hello", max_output_tokens=8)
assert response.status in ("completed", "incomplete") and response.usage.input_tokens > 0
types = [event.type for event in client.responses.create(model=model, input="Hello", max_output_tokens=8, stream=True)]
assert types[0] == "response.created" and types[-1] in ("response.completed", "response.incomplete"), types

vectors = client.embeddings.create(model=model, input=["Hello", "Hi"])
plain = client.embeddings.create(model=model, input="Hello", encoding_format="float", dimensions=16)
assert len(vectors.data) == 2 and vectors.usage.prompt_tokens > 0 and len(plain.data[0].embedding) == 16
assert abs(sum(value * value for value in vectors.data[0].embedding) - 1) < 1e-3

for arguments, error in [
    ({"model": "no such model", "messages": messages}, NotFoundError),
    ({"model": model, "messages": []}, BadRequestError),
    ({"model": model, "messages": [{"role": "user", "content": "word " * 200_000}]}, BadRequestError),
]:
    try:
        client.chat.completions.create(**arguments)
        raise AssertionError(f"{arguments['model']}: taken")
    except error as caught:
        assert caught.request_id and caught.body["message"], caught
print("openai: ok")
