"""Writes cases.json: templates, their variables, and what jinja2 renders or refuses.

    python3 make_cases.py

The environment is the one transformers renders chat templates in. The templates follow the structure of well-known model
families and walk through every construct; `kind` names why jinja2 refuses a template, `now` is local time.
"""

import datetime
import json
import os

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime.datetime(2026, 11, 24, 12, 34, 56)


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_pass", []), [], [], body).set_lineno(line)

    def _pass(self, caller):
        return caller()


class Raised(jinja2.exceptions.TemplateError):
    pass


def raise_exception(message):
    raise Raised(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda format: NOW.strftime(format)
    return env


CASES = []
# The case that wrote a template first; later ones name it instead of repeating the text.
FIRST_USE = {}


def case(name, template, **variables):
    entry = dict(name=name, variables=variables)
    if template in FIRST_USE:
        entry["template_of"] = FIRST_USE[template]
    else:
        entry["template"] = template
        FIRST_USE[template] = name
    try:
        entry["expected"] = environment().from_string(template).render(**json.loads(json.dumps(variables)))
    except Raised as error:
        entry.update(kind="raised", message=str(error))
    except jinja2.exceptions.SecurityError:
        entry["kind"] = "forbidden"
    except jinja2.exceptions.UndefinedError:
        entry["kind"] = "undefined"
    except jinja2.exceptions.TemplateSyntaxError as error:
        entry.update(kind="syntax", line=error.lineno)
    except (TypeError, ValueError, AttributeError, AssertionError, jinja2.exceptions.TemplateRuntimeError, ZeroDivisionError, OverflowError, SyntaxError, RecursionError, jinja2.exceptions.FilterArgumentError):
        entry["kind"] = "other"
    CASES.append(entry)


def each(name, *expressions, **variables):
    """One case an expression."""
    for number, expression in enumerate(expressions):
        case(f"{name} {number}: {expression}", "{{ " + expression + " }}", **variables)


# --- Variables that many cases share ---

SYSTEM = {"role": "system", "content": "You are terse.  "}
USER = {"role": "user", "content": "  What's the weather in Kraków? <b>& \"co\"</b>\n"}
ASSISTANT = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nSunny."}
SECOND = {"role": "user", "content": "And tomorrow? 明日は？🙂"}
CHAT = [SYSTEM, USER, ASSISTANT, SECOND]
WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Weather of a place, e.g. \"Kraków\"",
    "parameters": {"type": "object", "properties": {
        "place": {"type": "string", "description": "City's name"},
        "days": {"type": ["integer", "null"], "default": 3, "minimum": 1},
        "unit": {"type": "string", "enum": ["C", "F"]},
        "ratio": {"type": "number", "default": 1e-07}},
        "required": ["place"]}}}
ADD = {"type": "function", "function": {
    "name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {}}}}
CALL = {"role": "assistant", "content": None, "tool_calls": [
    {"id": "abcdefghi", "type": "function", "function": {"name": "get_weather", "arguments": {"place": "Kraków", "days": 2, "x": [1.5, True, None]}}},
    {"id": "123456789", "type": "function", "function": {"name": "add", "arguments": {}}}]}
RESULTS = [{"role": "tool", "name": "get_weather", "tool_call_id": "abcdefghi", "content": "{\"t\": 21}"},
           {"role": "tool", "name": "add", "tool_call_id": "123456789", "content": {"sum": 3}}]
TOOL_CHAT = [SYSTEM, USER, CALL, *RESULTS, {"role": "assistant", "content": "21 degrees."}, SECOND]


def chats(name, template, *, both=CHAT, **variables):
    for add in (True, False):
        case(f"{name}, generation prompt {add}", template, messages=both, add_generation_prompt=add, tools=None,
             documents=None, bos_token="<s>", eos_token="</s>", **variables)


# --- Model families ---

CHATML = """{% for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{% endfor %}
{% if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{% endif %}
"""
chats("ChatML", CHATML)

SMOLLM = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
chats("SmolLM", SMOLLM)
chats("SmolLM default system", SMOLLM, both=CHAT[1:])

LLAMA3 = """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- The system's words come first, wherever they came from. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{%- if tools is not none and not tools_in_user_message %}
    {{- "You can call these functions:" }}
    {{- 'As JSON {"name": name, "parameters": {argument: value}}.' "\\n\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- if tools_in_user_message and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first_user_message = messages[0]['content']|trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("There is no first user message to put tools in!") }}
    {%- endif %}
    {{- '<|start_header_id|>user<|end_header_id|>\\n\\n' -}}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
    {{- first_user_message + "<|eot_id|>"}}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("One call at a time, not " ~ message.tool_calls|length) }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
chats("Llama 3", LLAMA3)
ONE_CALL = [SYSTEM, USER, {**CALL, "tool_calls": CALL["tool_calls"][:1]}, RESULTS[0], SECOND]
for inside in (True, False):
    case(f"Llama 3 tools, in user message {inside}", LLAMA3, messages=ONE_CALL, tools=[WEATHER, ADD], bos_token="<|begin_of_text|>",
         tools_in_user_message=inside, add_generation_prompt=True)
case("Llama 3 refuses two calls", LLAMA3, messages=TOOL_CHAT, tools=[WEATHER], bos_token="", add_generation_prompt=True)
case("Llama 3 given date", LLAMA3, messages=[USER], date_string="1 Jan 2000", bos_token="", tools=None, add_generation_prompt=False)
case("Llama 3 custom tools", LLAMA3, messages=[USER], custom_tools=[ADD], bos_token="", add_generation_prompt=False)
case("Llama 3 no user message", LLAMA3, messages=[SYSTEM], tools=[ADD], tools_in_user_message=True, bos_token="", add_generation_prompt=False)

QWEN = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are a helpful assistant.' }}
    {%- endif %}
    {{- "\\n\\n# Tools\\n\\nSignatures within <tools></tools>:\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools>\\n<tool_call>\\n{\\"name\\": <function-name>, \\"arguments\\": <args-json-object>}\\n</tool_call><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content if message.content is not none else '' %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is defined and message.reasoning_content is not none %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {{- '<|im_start|>' + message.role }}
        {%- if loop.index0 > ns.last_query_index and (loop.last or (not loop.last and reasoning_content)) %}
            {{- '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '\\n' + content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""
chats("Qwen", QWEN)
chats("Qwen tools", QWEN, both=TOOL_CHAT, enable_thinking=False)
case("Qwen with tool schemas", QWEN, messages=TOOL_CHAT[1:], tools=[WEATHER, ADD], add_generation_prompt=True)
case("Qwen ends with reasoning", QWEN, messages=[USER, {**ASSISTANT, "reasoning_content": "\nwhy\n"}], add_generation_prompt=False)
case("Qwen ends with think tags", QWEN, messages=[USER, ASSISTANT], add_generation_prompt=False)

MISTRAL = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}

{#- Roles alternate; calls and their results do not count. #}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, conversation roles must alternate user/assistant/user/assistant/...") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}
                {{- raise_exception("Tool call IDs should be alphanumeric strings with length 9!") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}
                {{- ", " }}
            {%- else %}
                {{- "]" + eos_token }}
            {%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool_results" or message["role"] == "tool" %}
        {%- if message.content is defined and message.content.content is defined %}
            {%- set content = message.content.content %}
        {%- else %}
            {%- set content = message.content %}
        {%- endif %}
        {{- '[TOOL_RESULTS] {"content": ' + content|string + ", " }}
        {{- '"call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, with the exception of an initial optional system message!") }}
    {%- endif %}
{%- endfor %}
"""
chats("Mistral", MISTRAL)
case("Mistral tools", MISTRAL, messages=TOOL_CHAT, tools=[WEATHER, ADD], bos_token="<s>", eos_token="</s>")
case("Mistral refuses two users", MISTRAL, messages=[USER, USER], bos_token="<s>", eos_token="</s>")
case("Mistral refuses short ids", MISTRAL, messages=[USER, {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f"}}]}], bos_token="<s>", eos_token="</s>")
case("Mistral without content fails", MISTRAL, messages=[{"role": "user"}], bos_token="<s>", eos_token="</s>")

GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}"""
chats("Gemma", GEMMA, both=CHAT[1:])
chats("Gemma refuses system", GEMMA)
case("Gemma refuses order", GEMMA, messages=[USER, SECOND], bos_token="<bos>")

GEMMA3 = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\\n'}}
{%- endif -%}
"""
PARTS = [{"role": "system", "content": [{"type": "text", "text": "Be kind."}]},
         {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " What is this? "}]}]
chats("Gemma 3", GEMMA3)
chats("Gemma 3 parts", GEMMA3, both=PARTS)
case("Gemma 3 refuses numbers", GEMMA3, messages=[{"role": "user", "content": 3}], bos_token="")

PHI = """{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>\\n' + message['content'] + '<|end|>\\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"""
chats("Phi 3", PHI)

DEEPSEEK = """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='') %}{%- for message in messages %}{%- if message['role'] == 'system' %}{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}{{bos_token}}{{ns.system_prompt}}{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<｜User｜>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is none %}{%- set ns.is_tool = false -%}{%- for tool in message['tool_calls']%}{%- if not ns.is_first %}{{'<｜Assistant｜><｜tool▁calls▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' + tool['function']['name'] + '\\n' + '```json' + '\\n' + tool['function']['arguments']|tojson + '\\n' + '```'}}{%- set ns.is_first = true -%}{%- else %}{{'\\n' + tool['function']['name'] + '<｜end｜>'}}{%- endif %}{%- endfor %}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is not none %}{%- if ns.is_tool %}{{'<｜tool▁outputs▁end｜>' + message['content'] + '<｜end▁of▁sentence｜>'}}{%- set ns.is_tool = false -%}{%- else %}{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}{%- endif %}{%- endif %}{%- if message['role'] == 'tool' %}{%- set ns.is_tool = true -%}{%- if ns.is_output_first %}{{'<｜tool▁outputs▁begin｜>' ~ message['content'] ~ '<｜tool▁output▁end｜>'}}{%- set ns.is_output_first = false %}{%- else %}{{'\\n' ~ message['content'] ~ '<｜tool▁output▁end｜>'}}{%- endif %}{%- endif %}{%- endfor -%}{% if ns.is_tool %}{{'<｜tool▁outputs▁end｜>'}}{% endif %}{% if add_generation_prompt and not ns.is_tool %}{{'<｜Assistant｜><think>\\n'}}{% endif %}"""
chats("DeepSeek", DEEPSEEK)
chats("DeepSeek tools", DEEPSEEK, both=TOOL_CHAT)
case("DeepSeek ends in a tool", DEEPSEEK, messages=TOOL_CHAT[:4], bos_token="", add_generation_prompt=True)

COMMAND_R = """{{ bos_token }}{%- macro json_to_python_type(json_spec) %}
{%- set basic_type_map = {
    "string": "str",
    "number": "float",
    "integer": "int",
    "boolean": "bool"
} %}

{%- if basic_type_map[json_spec.type] is defined %}
    {{- basic_type_map[json_spec.type] }}
{%- elif json_spec.type == "array" %}
    {{- "List[" +  json_to_python_type(json_spec["items"]) + "]"}}
{%- elif json_spec.type == "object" %}
    {{- "Dict[str, " + json_to_python_type(json_spec.additionalProperties) + ']'}}
{%- elif json_spec.type is iterable %}
    {{- "Union[" }}
    {%- for t in json_spec.type %}
      {{- json_to_python_type({"type": t}) }}
      {%- if not loop.last %}
        {{- "," }}
    {%- endif %}
    {%- endfor %}
    {{- "]" }}
{%- else %}
    {{- "Any" }}
{%- endif %}
{%- endmacro %}

{%- macro old_tool_parser(tools) %}
{%- for tool in tools %}
    {%- if loop.index0 != 0 %}
        {{- '\\n\\n' }}
    {%- endif %}
    {{- '```python\\ndef ' + tool.name + '(' }}
    {%- for param_name, param_fields in tool.parameter_definitions|items %}
        {%- if loop.index0 != 0 %}
            {{- ', '}}
        {%- endif %}
        {{- param_name + ': ' }}
        {%- if not param_fields.required %}
            {{- 'Optional[' + json_to_python_type(param_fields) + '] = None'}}
        {%- else %}
            {{- json_to_python_type(param_fields) }}
        {%- endif %}
    {%- endfor %}
    {{- ') -> List[Dict]:\\n    \\"\\"\\"'}}
    {{- tool.description }}
    {{- '\\"\\"\\"\\n    pass\\n```' }}
{%- endfor %}
{%- endmacro %}
{%- set ns = namespace(documents = documents or []) -%}
<|SYSTEM|>{{ old_tool_parser(tools) }}
{% for document in ns.documents %}{{ loop.index0 }}:{% for key, value in document|dictsort %} {{ key|capitalize }}={{ value }}{% endfor %};
{% endfor -%}
{%- for message in messages %}{{ '<|' + message.role|upper + '|>' + message.content|trim }}{% endfor %}"""
OLD_TOOLS = [{"name": "search", "description": "Looks it up.", "parameter_definitions": {
    "query": {"type": "string", "required": True}, "n": {"type": "array", "items": {"type": "integer"}},
    "m": {"type": "object", "additionalProperties": {"type": ["number", "boolean"]}}, "o": {}}},
    {"name": "stop", "description": "", "parameter_definitions": {}}]
case("Command R", COMMAND_R, messages=[USER, SECOND], tools=OLD_TOOLS, documents=[{"title": "B", "Text": "t", "id": 1}, {"id": 2}], bos_token="<BOS>")
case("Command R without end", COMMAND_R, messages=[], tools=[{"name": "f", "parameter_definitions": {"a": {"type": "odd"}}}], bos_token="")
case("Command R without documents", COMMAND_R, messages=[USER], tools=[], documents=None, bos_token="<BOS>")

TYPESCRIPT = """{%- macro render(spec, required, indent=0) -%}
{%- if spec.type == "object" -%}
{
{%- for name, inner in spec.properties.items() %}

{{ "  " * (indent + 1) }}{{ name }}{{ "?" if name not in (spec.required or []) }}: {{ render(inner, spec.required, indent + 1) }},
{%- if inner.description %} // {{ inner.description }}{% endif %}
{%- endfor %}

{{ "  " * indent }}}
{%- elif spec.type == "array" -%}
{{ render(spec['items'], required, indent) }}[]
{%- elif spec.enum is defined -%}
{{ spec.enum | map('tojson') | join(' | ') }}
{%- elif spec.type is sequence and spec.type is not string -%}
{{ spec.type | reject('equalto', 'null') | join(' | ') }}{% if 'null' in spec.type %} | null{% endif %}
{%- else -%}
{{ spec.type }}{% if spec.default is defined %} = {{ spec.default }}{% endif %}
{%- endif -%}
{%- endmacro -%}
{% for tool in tools %}type {{ tool.function.name }} = (_: {{ render(tool.function.parameters, []) }}) => any;
{% endfor %}"""
case("TypeScript schemas by a recursive macro", TYPESCRIPT, tools=[WEATHER, ADD, {"function": {"name": "deep", "parameters": {
    "type": "object", "properties": {"a": {"type": "array", "items": {"type": "object", "properties": {"b": {"type": "string"}}}}}}}}])

ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""
chats("Zephyr", ZEPHYR)

LLAMA2 = """{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""
chats("Llama 2", LLAMA2)
case("Llama 2 refuses order", LLAMA2, messages=[SYSTEM, ASSISTANT], bos_token="", eos_token="")

GENERATION = """{% for message in messages %}
{% if message.role == 'assistant' %}<|assistant|>{% generation %}{% set inner = loop.index %}{{ message.content }}{{ eos_token }}{% endgeneration %}{{ inner }}
{% else %}
<|{{ message.role }}|>{{ message.content }}
{%- endif %}
{%- endfor %}"""
chats("Generation marks", GENERATION)

# --- White space ---

case("trim blocks", "a\n{% if true %}\nb\n{% endif %}\nc\n")
case("trailing newlines", "a\n\n")
case("only a newline", "\n")
case("empty template", "")
case("carriage returns", "a\r\n{% if 1 %}\r\nb\r{% endif %}\r\nc\r\n")
case("lstrip keeps text before", "x  {% if true %}y{% endif %}  z\n   {% if true %}\n\t q{% endif %}")
case("plus keeps white space", "a\n   {%+ if true %}b{% endif +%}\nc {#+ x +#}\nd")
case("minus strips both", "a \n\n {%- if true -%} \n b \n {%- endif -%} \n c {{- 1 -}}  d {#- no -#} e")
case("comments", "a{# {{ not }} {% parsed %} #}b\n  {# line #}\nc{#- x -#}  d{##}e")
case("output keeps newline", "{{ 1 }}\n{{ 2 }}\n  {{ 3 }}\n")
case("raw", "{% raw %}{{ not }} {% parsed %} {# here #}{% endraw %}\nb\n {%- raw -%}  c {%- endraw -%} d")
case("delimiters in strings", "{{ '}}' ~ '%}' }}{% if '%}' %}y{% endif %}{{ {'a': {'b': 1}}['a']['b'] }}")
case("lone braces", "{ a } {{ '{' }} % } #} {a}")
case("no-break spaces", "a\u00a0{{- 'b' -}}\u2003c\u200b{{- 'd' }}")
case("tab after tag", "{% if true %}\t\nx{% endif %}\t")

# --- Statements ---

case("loop variables", "{% for x in xs %}{{ [loop.index, loop.index0, loop.revindex, loop.revindex0, loop.first, loop.last, loop.length, loop.depth, loop.depth0] }}{{ loop.previtem }}|{{ loop.nextitem }};{% endfor %}", xs=["a", "b", "c"])
case("loop previtem is undefined", "{% for x in xs %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }}{{ loop.cycle('o', 'e') }}{{ loop.changed(x) }} {% endfor %}", xs=[1, 1, 2])
case("loop with filter", "{% for x in xs if x % 2 %}{{ loop.index }}/{{ loop.length }}:{{ x }}{{ ',' if not loop.last }}{% else %}none{% endfor %}", xs=[1, 2, 3, 5, 6])
case("loop filter is lazy", "{% set ns = namespace(on=true) %}{% for x in [1, 2, 3, 4] if ns.on %}{{ x }}{% if x == 2 %}{% set ns.on = false %}{% endif %}{% endfor %}")
case("loop filter is lazy but for one look ahead", "{% set ns = namespace(on=true) %}{% for x in [1, 2, 3, 4] if ns.on %}{{ x }}{{ loop.last }}{% if x == 2 %}{% set ns.on = false %}{% endif %}{% endfor %}")
case("loop else", "{% for x in [] %}a{% else %}b{% endfor %}{% for x in [1] %}a{% else %}b{% endfor %}{% for x in missing %}a{% else %}c{% endfor %}")
case("loop break and continue", "{% for x in range(10) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %}")
case("loop over dictionary", "{% for k in d %}{{ k }}{% endfor %}{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for v in d.values() %}{{ v }}{% endfor %}{% for k, v in d|items %}{{ k }}{{ v }}{% endfor %}", d={"z": 1, "a": [2]})
case("loop over string", "{% for c in 'aé\U0001f642' %}{{ loop.index }}{{ c }}{% endfor %}")
case("loop unpacks", "{% for a, (b, c) in [(1, (2, 3)), [4, [5, 6]]] %}{{ a }}{{ b }}{{ c }};{% endfor %}")
case("loop fails to unpack", "{% for a, b in [[1, 2, 3]] %}{% endfor %}")
case("loop over number", "{% for a in 3 %}{% endfor %}")
case("loop over none", "{% for a in none %}{% endfor %}")
case("nested loops", "{% for a in [1, 2] %}{% set outer = loop %}{% for b in 'xy' %}{{ outer.index }}{{ loop.index }}{{ b }} {% endfor %}{{ loop.index }}{% endfor %}")
case("set in a loop stays there", "{% set x = 0 %}{% for i in range(3) %}{{ x }}{% set x = i + 10 %}{{ x }},{% endfor %}{{ x }}")
case("set in an if leaves it", "{% if true %}{% set x = 1 %}{% endif %}{{ x }}{% if false %}{% set y = 1 %}{% endif %}{{ y is defined }}")
case("set tuples", "{% set a, b = 1, [2] %}{{ a }}{{ b }}{% set c = 1, 2 %}{{ c }}{% set (d, e) = 'xy' %}{{ e }}{{ d }}")
case("set block", "{% set x %}\n a {{ 1 + 1 }}\n{% endset %}[{{ x }}]{% set y | upper | trim %} b {% endset %}[{{ y }}]")
case("set block scope", "{% set y = 1 %}{% set x %}{% set y = 2 %}{{ y }}{% endset %}{{ x }}{{ y }}")
case("namespaces", "{% set ns = namespace(a=1, b='x') %}{% for i in range(3) %}{% set ns.a = ns.a + i %}{% set ns.c = i %}{% endfor %}{{ ns.a }}{{ ns.b }}{{ ns.c }}{{ ns['a'] }}{{ ns.d is defined }}")
case("namespace of dictionary", "{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a + ns.b }}{{ ns.items is defined }}")
case("namespace only", "{% set d = {} %}{% set d.x = 1 %}")
case("namespace undefined", "{% set d.x = 1 %}")
case("elif chain", "{% for x in [1, 2, 3] %}{% if x == 1 %}a{% elif x == 2 %}b{% else %}c{% endif %}{% endfor %}")
case("colons after tags", "{% if true: %}a{% else: %}b{% endif %}{% for x in [1]: %}{{ x }}{% endfor %}")
case("macros", "{% macro m(a, b=2, c='x' ~ b) %}[{{ a }}{{ b }}{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(c=4, a=5) }}{{ m() }}")
case("macro varargs", "{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, x=4) }}")
case("macro refuses extra", "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}")
case("macro refuses keyword", "{% macro m(a) %}{% endmacro %}{{ m(b=2) }}")
case("macro scope", "{% set x = 1 %}{% macro m() %}{{ x }}{% set x = 3 %}{% endmacro %}{% set x = 2 %}{{ m() }}{{ x }}")
case("macro does not see the caller's loop", "{% macro m() %}{{ i is defined }}{% endmacro %}{% for i in [1] %}{{ m() }}{% endfor %}")
case("macro result is text", "{% macro m() %} 1 {% endmacro %}{{ m()|trim ~ m()|length }}{{ m.name }}{{ m is callable }}{{ (m() == ' 1 ') }}")
case("macro recursion", "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}")
case("macro spread", "{% macro m(a, b, c=0) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(*[1, 2]) }}{{ m(1, **{'b': 2, 'c': 3}) }}{{ m(*(1,), b=2) }}")
case("call blocks", "{% macro box(t) %}<{{ t }}>{{ caller('z') }}</{{ t }}>{% endmacro %}{% call(x) box('b') %}in {{ x }}{% endcall %}")
case("caller missing", "{% macro box() %}{{ caller is defined }}{% endmacro %}{{ box() }}")
case("filter blocks", "{% filter upper | replace('B', 'x') %}ab{{ 'c' }}{% endfilter %}")
case("with", "{% set a = 1 %}{% with a = 2, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}{% with %}{% set q = 1 %}{% endwith %}{{ q is defined }}")
case("print", "{% print 1, 'a' %}")
case("generation scope", "{% set a = 1 %}{% generation %}{% set a = 2 %}{{ a }}{% endgeneration %}{{ a }}")
case("conditional without else", "[{{ 'a' if false }}][{{ 'a' if true }}]{{ ('a' if false) is undefined }}")
case("conditionals nest", "{% for x in [1, 2, 3] %}{{ 'a' if x == 1 else 'b' if x == 2 else 'c' }}{% endfor %}")
case("unknown tag", "a\n{% frobnicate %}")
case("unclosed if", "{% if true %}\n\n")
case("unclosed tag", "a\n{% if true")
case("unclosed output", "{{ 1 ")
case("unclosed comment", "a {# b")
case("stray end", "a\n\n{% endif %}")
case("wrong end", "{% for x in [] %}{% endif %}")
case("missing bracket", "{{ (1 + 2 }}")
case("wrong bracket", "{{ [1, 2) }}")
case("empty output", "{{ }}")
case("missing operand", "a\n{{ 1 + }}")
case("two operands", "{{ 1 2 }}")
case("bad character", "{{ 1 ? 2 }}")
case("unclosed string", "{{ 'a }}")
case("assign to literal", "{% set 1 = 2 %}")
case("assign to none", "{% set none = 2 %}")
case("loop named loop", "{% for loop in [1] %}{{ loop.index }}{% endfor %}")
case("break outside", "{% break %}")
case("break out of generation", "{% for x in [1] %}{% generation %}{% break %}{% endgeneration %}{% endfor %}")
case("default before required", "{% macro m(a=1, b) %}{% endmacro %}")
case("positional after named", "{{ dict(a=1, 2) }}")

# --- Expressions ---

each("arithmetic", "1 + 2 * 3 - 4", "7 / 2", "6 / 2", "7 // 2", "-7 // 2", "7 // -2", "-7 % 3", "7 % -3", "2 ** 10", "2 ** -1", "2 ** 3 ** 2", "-2 ** 2",
     "7.5 // 2", "-7.5 % 2", "1e3", "1.5e-7 * 2", "0x1F + 0b11 + 0o17", "1_000", "+3", "--3", "- 3 | abs", "-3 | abs", "true + 1", "1 / 0", "5 % 0", "1.0 // 0.0",
     "10 - 3 - 2", "2 * 'ab'", "'ab' * 2", "[1] * 3", "(1, 2) * 2", "'a' * -1", "[1] + [2]", "(1,) + (2,)", "'a' + 1", "1 + 'a'", "[1] + (2,)", "'a' - 'b'",
     "1 ~ 2 ~ none ~ true ~ 'x' ~ [1]", "1 + 1 ~ 2", "1 ~ 2 + 3", "none + 1")
each("comparison", "1 < 2 < 3", "1 < 3 < 2", "1 == 1.0", "1 == true", "'a' == \"a\"", "'a' < 'b' <= 'b'", "[1, 2] < [1, 3]", "(1, 2) == [1, 2]", "1 != 2", "none == none", "missing == other", "missing == none",
     "{'a': 1, 'b': 2} == {'b': 2, 'a': 1}", "1 < 'a'", "none < 1", "2 > 1 == true", "'Z' < 'a' < '\u00e9' < '\u65e5' < '\U0001f642'", "1 in [1, 2]", "3 not in [1]", "'b' in 'abc'", "'' in 'abc'",
     "'a' in {'a': 1}", "1 in (1,)", "1 in 'abc'", "'a' in missing", "'a' in none", "not 1 in [2]", "1 in range(5)", "true in [1]", "not true == false")
each("logic", "true and 0", "1 or 2", "'' or 'x'", "none and x", "not []", "not missing", "true and not false or false", "1 and 2 and 3", "0 or '' or []", "not not 1", "(1 or 2) and 3", "missing or 'd'", "true or missing.x")
each("literals", "[1, 'a', 2.5, true, none, [], {}, ()]", "(1,)", "()", "1, 2", "(1)", "{'a': 1, 'b': [1, {'c': none}]}", "{1: 'x', 'y': 2}", "{'a': 1, 'a': 2}", "[1, 2,]", "{'a': 1,}", "True", "False", "None",
     "'it\\'s'", "['it\\'s', 'a\"b', 'both \\' \"', 'tab\\t', 'nl\\n', 'bs\\\\', '\\x07\\x7f', '\u00e9\u00a0\u200b\U0001f642']", "'a' 'b' \"c\"", "'\\u00e9\\x41\\101\\U0001f642\\q\\n' | length", "'\\u00e9\\x41\\101\\q'", "'a\\\nb'",
     "1.0", "100000000000000000000.0", "1e16", "123456789012345680.0", "1e-5", "0.0001", "1.1 + 2.2", "-0.0", "0.1", "3.0e0", "[1.0, 1e22, 5e-324]", "{1: 2}", "[1.50]")
each("subscripts", "xs[0]", "xs[-1]", "xs[5]", "xs[1:]", "xs[:-1]", "xs[::-1]", "xs[::2]", "xs[3:1:-1]", "xs[-2:]", "xs[10:]", "xs[:]", "xs[0:2][1]", "d['a']", "d.a", "d['missing']", "d.missing", "d.missing.more", "d['missing']['more']",
     "d.items is callable", "d['items']", "d.keys()|list", "xs.0", "xs[1.5]", "s[0]", "s[-1]", "s[1:3]", "s[::-1]", "s[9]", "s.upper()", "s['upper']()", "none.x", "none['x']", "1.x", "missing.x", "missing[0]", "missing()", "d.a.b", "(1, 2, 3)[1:]", "range(5)[2]", "range(5)[-1]",
     "xs[1:missing]", "xs[::0]", "d[[1]]", "xs['0']", "xs[true]", "d.nested.list.1", "xs.append(1)", "xs.append", "d.update({})", "d.pop('a')", "xs.sort()", "s.__class__", "s.__class__.__mro__", "''.__class__()", "d.copy()", "d.clear", "none.x.y", "xs[100:200:-1]",
     xs=[1, 2, 3, 4], d={"a": {"b": 1}, "items": "shadowed", "nested": {"list": [1, 2]}}, s="h\u00e9llo")
each("calls", "range(3)|list", "range(1, 7, 2)|list", "range(5, 0, -2)|list", "range(0)|list", "range(3)", "range(1, 10, 3)", "range(1, 2, 0)", "range(200000)", "range('a')", "dict(a=1, b='x')", "dict({'a': 1}, b=2)", "dict([('a', 1)])", "dict()", "1()", "'a'()", "undefined_function(1)", "namespace is callable", "strftime_now('%Y-%m-%d')", "strftime_now('%d %b %Y, %H:%M:%S %A %-d %j %%')",
     "strftime_now('%B %e, %y %I%p')", "raise_exception('no: ' ~ 1)", "raise_exception()", "dict(**{'a': 1})", "d.get('a')", "d.get('z')", "d.get('z', 5)", "d.items()", "d.keys()", "d.values()", "d.items()|list", "d.items()|length", "d.keys()|join(',')", "d.items()[0]", d={"a": 1, "b": None})

# --- Filters ---

each("text filters", "'  a b '|trim", "'xxaxx'|trim('x')", "'aBc DE'|upper", "'aBc DE'|lower", "'hello wORLD-foo (bar)'|title", "'hello World'|capitalize", "'\u00dfa'|upper", "'\u039f\u0394\u039f\u03a3 \u03a3'|lower", "'aXbX'|replace('X', 'y')", "'aXbX'|replace('X', 'y', 1)", "'abc'|replace('', '-')", "1|replace(1, 2)", "'a\nb\n\nc'|indent", "'a\nb'|indent(2, true)", "'a\n\nb'|indent(width=2, blank=true)", "'a\nb'|indent('> ')", "''|indent", "3|indent",
     "none|upper", "123|string ~ 4", "'a<b>&\"\\''|e", "'<b>'|safe", "'<'|escape", "'abc'|length", "'\u00e9\U0001f642'|length", "'abc'|reverse", "'abc'|first", "'abc'|last", "'abc'|list", "'hello big world'|truncate(9, true, '..', 0)", "'hello big world'|truncate(11, false, '...', 0)", "'short'|truncate(3)", "'a b  c_d'|wordcount", "'x'|center(5)", "'%s-%d-%.2f'|format('a', 3, 1.5)", "'%(a)s'|format(a=1)", "'a' is string", "' '|trim|length", "missing|trim", "missing|upper", "missing|length", "missing|indent", "missing|replace('a', 'b')", "[]|upper")
each("formatting", "'%s and %s' % ('a', 1)", "'%s' % 'x'", "'%5d|%-5d|%05d' % (1, 2, 3)", "'%.3f' % 2.0", "'%%' % ()", "'%r' % 'x'", "'%x' % 255", "'%s' % ()", "'{} {}'.format(1, 'a')", "'{1}{0}'.format('a', 'b')", "'{x}'.format(x=2)", "'{:.2f}'.format(3.14159)", "'{:>5}|{:<5}|{:^5}|{:05d}'.format('a', 'b', 'c', 42)", "'{{}}'.format()", "'{0[a]}'.format" if False else "'{!r}'.format('a')")
each("number filters", "'42'|int", "'42.9'|int", "'x'|int", "'x'|int(7)", "' 12 '|int", "'0x1f'|int(base=16)", "'11'|int(0, 2)", "3.9|int", "-3.9|int", "true|int", "none|int", "'1_000'|int", "'1.5'|float", "'x'|float", "'x'|float(2.5)", "3|float", "'1e3'|float", "'inf'|float", "-3|abs", "2.5|round", "3.5|round", "2.567|round(2)", "2.5|round(0, 'ceil')", "2.5|round(0, 'floor')", "7|round", "2.675|round(2)", "1234|round(-2)", "missing|int", "[]|int", "'-5'|int", "'5.'|float", "'.5'|float", "'--5'|int")
each("sequence filters", "xs|length", "xs|first", "xs|last", "xs|join", "xs|join(', ')", "xs|join('-', attribute='x')", "os|join(',', attribute='n')", "xs|reverse|list", "xs|sort", "xs|sort(reverse=true)", "['b', 'A', 'c']|sort", "['b', 'A', 'c']|sort(case_sensitive=true)", "os|sort(attribute='n')|map(attribute='n')|list", "os|sort(attribute='g,n', reverse=true)|map(attribute='n')|list", "[3, 'a']|sort",
     "xs|unique|list", "['a', 'A', 'b']|unique|list", "['a', 'A', 'b']|unique(case_sensitive=true)|join", "os|unique(attribute='g')|map(attribute='n')|join", "xs|sum", "os|sum(attribute='n')", "xs|min", "xs|max", "['b', 'A']|min", "[]|max", "[]|first", "[]|last", "[]|first is defined", "{'b': 2, 'a': 1}|list", "{'b': 2, 'A': 1, 'c': 0}|dictsort", "{'b': 2, 'a': 3}|dictsort(by='value')", "{'b': 2, 'a': 3}|dictsort(reverse=true)", "{'b': 1}|items|list", "missing|items|list", "none|items|list", "[1]|items|list", "missing|list", "missing|join(',')", "missing|first", "missing|sort", "3|list", "3|length", "none|length",
     "range(7)|batch(3)|list", "range(4)|batch(3, 'x')|list", "xs|count", "(1, 2)|first", "'cab'|sort|join", "[[2, 1], [1, 2]]|sort", "[true, false]|sort",
     xs=[3, 1, 2, 1], os=[{"n": 2, "g": "b"}, {"n": 1, "g": "a"}, {"n": 3, "g": "B"}])
each("selecting filters", "xs|map('upper')|list", "xs|map('replace', 'a', 'b')|join(',')", "os|map(attribute='n')|list", "os|map(attribute='m', default=0)|list", "os|map(attribute='m')|list", "os|map(attribute='d.x')|join(',')", "[[1, 2], [3]]|map(attribute=0)|list", "[[1, 2], [3]]|map('first')|list", "os|selectattr('n')|list|length", "os|selectattr('n', 'equalto', 2)|map(attribute='n')|list", "os|selectattr('n', '>', 1)|list|length", "os|rejectattr('n', 'eq', 2)|map(attribute='n')|list", "os|selectattr('m', 'defined')|list", "os|selectattr('role', 'in', ['a'])|list", "[1, 2, 3, 4]|select('odd')|list", "[1, 2, 3, 4]|reject('odd')|list", "[0, 1, '', 'a', none]|select|list", "[0, 1, '']|reject|list", "[1, 5]|select('gt', 2)|list", "[1, 2, 3]|select('divisibleby', 2)|first", "xs|map('length')|sum", "xs|select('in', 'a')|list", "missing|map('upper')|list", "xs|map('nope')|list", "xs|select('nope')|list", "xs|map|list", "os|selectattr|list",
     "(xs|map('upper'))|length", "'yes' if [] | select | list else 'no'", "'yes' if []|select else 'no'", "(os|selectattr('n', 'equalto', 99)) is defined", "os|selectattr('n', 'equalto', 2)|first", "[]|select|first is defined",
     xs=["a", "bb"], os=[{"n": 2, "d": {"x": 1}}, {"n": 1, "d": {"x": 2}}])
case("iterators are used up", "{% set it = [1, 2, 3]|select %}{{ it|first }}{{ it|list }}{{ it|list }}{{ 'true' if it }}")
each("default filter", "missing|default('d')", "''|default('d')", "''|default('d', true)", "none|default('d')", "none|default('d', boolean=true)", "missing|default", "0|default(1)", "missing|d('x')", "d.x|default({})", "missing.x|default('d')", "(missing|default({})).x|default('e')", d={})
each("tojson", "x|tojson", "x|tojson(indent=2)", "x|tojson(indent=0)", "x|tojson(sort_keys=true)", "x|tojson(separators=(',', ':'))", "x|tojson(indent=1, separators=(', ', '='))", "x|tojson(ensure_ascii=true)", "x|tojson(indent=4)|length", "x|tojson(true)", "x|tojson(indent='\t')", "(1, 2)|tojson", "{1: 2, none: 3, true: 4, 2.5: 6}|tojson", "{(1, 2): 3}|tojson", "missing|tojson", "[1.0, 1e16, 1e-7, 0.1, 100.0]|tojson", "range(3)|tojson", "range(3)|list|tojson", "{}|tojson(indent=2)", "[]|tojson(indent=2)", "[[], {}, [[1]]]|tojson(indent=2)", "none|tojson", "'a'|tojson", "true|tojson", "[1]|select|tojson", "namespace()|tojson", "'\\x00\\x1f\\x7f\u2028/<>&\\'\"\\\\'|tojson", "{'b': 1, 'a': {'d': 1, 'c': 2}}|tojson(sort_keys=true)", "[1]|tojson(indent=none)",
     x={"name": "Kraków 🙂", "list": [1, 2.5, True, None, "a\"b\\c\n\t"], "empty": {}, "e": [], "deep": {"z": {"y": [{"x": 1}]}, "a": -1}})

each("huge numbers", "x * 1e10", "-x * 1e10", "(x * 1e10)|int", "[x * 1e10]|tojson", "(x * 1e10 - x * 1e10)|string", x=1e300)

# --- Tests ---

each("tests", "1 is defined", "missing is defined", "missing is undefined", "missing is not defined", "none is none", "missing is none", "1 is not none", "'a' is string", "1 is string", "{} is mapping", "[] is mapping", "'a' is iterable", "1 is iterable", "{} is iterable", "missing is iterable", "none is iterable", "'a' is sequence", "{} is sequence", "1 is sequence", "missing is sequence", "range(2) is sequence", "([1]|select) is sequence", "([1]|select) is iterable", "{}.items() is sequence", "{}.items() is iterable", "1 is number", "1.5 is number", "true is number", "'1' is number", "1 is integer", "true is integer", "1.5 is integer", "1.5 is float", "1 is float",
     "true is boolean", "1 is boolean", "true is true", "1 is true", "false is false", "none is false", "3 is odd", "3 is even", "-3 is odd", "6 is divisibleby 3", "6 is divisibleby(4)", "'a' is odd", "1 is eq 1", "1 is equalto(2)", "'a' is == 'a'" if False else "'a' is sameas 'a'", "1 is sameas 1.0", "none is sameas none", "1 is in [1, 2]", "3 is not in [1, 2]", "'a' is in 'abc'", "1 is lt 2", "1 is ge 2", "1 is ne 2", "'abc' is lower", "'ABC' is upper", "'aB' is upper", "'12' is lower", "raise_exception is callable", "1 is callable", "'upper' is filter", "'nope' is filter", "'odd' is test", "1 is nope", "1|nope", "1 is defined and 2 is defined", "not missing is defined", "1 is not string and true", "1 is string or 2", "[1, 2] is iterable and [1, 2] is not string", "x is defined and x.y is defined", "missing is not defined or missing.x", "1 is defined is true", x={"y": 1})

# --- Methods ---

each("string methods", "' a '.strip()", "'xxaxx'.strip('x')", "'abcba'.lstrip('ab')", "'abcba'.rstrip('ab')", "' a\\n'.rstrip()", "'\\n a'.lstrip('\\n')", "'a,b,,c'.split(',')", "'a,b,c'.split(',', 1)", "' a  b c '.split()", "' a  b c '.split(none, 1)", "'a b c'.rsplit(' ', 1)", "'a  b  c '.rsplit(none, 1)", "''.split()", "''.split(',')", "'a'.split('')", "'a</think>b</think>c'.split('</think>')[-1]", "'aXXXb'.split('XX')", "'aXXXb'.rsplit('XX', 1)", "'a\\nb\\r\\nc'.splitlines()", "'a\\nb'.splitlines(true)", "'abc'.startswith('ab')", "'abc'.startswith(('x', 'a'))", "'abc'.endswith('bc')", "'abc'.startswith('')", "'abc'.startswith(1)", "'aXbX'.replace('X', '')", "'aXbX'.replace('X', 'y', 1)", "'aaa'.replace('aa', 'b')", "'aBc'.upper()", "'aBc'.lower()", "'they\\'re bill\\'s'.title()", "'hELLO wORLD'.capitalize()", "'aB'.swapcase()", "', '.join(['a', 'b'])", "''.join([])", "','.join([1])", "'abc'.find('c')", "'abc'.find('z')", "'h\u00e9h\u00e9'.find('h', 1)", "'h\u00e9h\u00e9'.rfind('h')", "'abc'.index('b')", "'abc'.index('z')", "'banana'.count('an')", "'abc'.count('')", "'12'.isdigit()", "''.isdigit()", "'a1'.isalnum()", "'ab'.isalpha()", "' '.isspace()", "'AB'.isupper()", "'ab'.islower()", "'a'.ljust(3) ~ '|'", "'a'.rjust(3, '.')", "'a'.center(4, '*')", "'ab'.center(5, '*')", "'-5'.zfill(4)", "'a=b=c'.partition('=')", "'a=b=c'.rpartition('=')", "'abc'.partition('x')", "'abcabc'.removeprefix('abc')", "'abc'.removesuffix('c')", "'abc'.nope()", "'abc'.nope", "[1, 2, 1].count(1)", "[1, 2].index(2)", "[1].index(5)", "(1, 2).index(2)", "'\u0130'.lower()|length", "'stra\u00dfe'.upper()", "'e\u0301' == '\u00e9'", "'e\u0301'|length", "'a\\r\\nb'|length", "'a\\r\\nb'.replace('\\n', '')|length", "'a\\r\\nb'.split('\\n')", "'\u3000a\u3000'.strip()", "'\\x1fa'.strip()")

if __name__ == "__main__":
    names = [entry["name"] for entry in CASES]
    assert len(set(names)) == len(names), [name for name in names if names.count(name) > 1]
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False, separators=(",", ":")) for entry in CASES)
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "cases.json"), "w", encoding="utf-8") as file:
        file.write('{"jinja2":"%s","now":"2026-11-24 12:34:56","cases":[\n%s\n]}\n' % (jinja2.__version__, lines))
    print(len(CASES), "cases")
