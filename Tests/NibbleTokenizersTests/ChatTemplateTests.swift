import Foundation
import NibbleTemplates
import NibbleTestSupport
import NibbleTokenizers
import Testing

@Suite struct ChatTemplateTests {
    static let chatML = """
        {% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}\
        {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
        """
    static let chat = [ChatMessage(role: "user", content: "Hi"), ChatMessage(role: "assistant", content: " The answer is ")]

    static func reason(_ body: () throws -> Void) -> JinjaError.Reason? {
        do {
            try body()
            return nil
        } catch {
            return (error as? JinjaError)?.reason
        }
    }

    static let recordedChats = Fixtures.url("fixtures/smollm2/expected.json")

    @Test(
        "the chats of a real checkpoint render as recorded",
        .enabled(if: FileManager.default.fileExists(atPath: recordedChats.path)))
    func smolLM2() throws {
        let config = try JinjaValue(
            json: String(contentsOf: Fixtures.url("fixtures/tokenizers/smollm2/tokenizer_config.json"), encoding: .utf8))
        guard case .object(let fields) = config, case .string(let source)? = fields["chat_template"],
            case .object(let root) = try JinjaValue(json: String(contentsOf: Self.recordedChats, encoding: .utf8)),
            case .array(let chats)? = root["chat"]
        else {
            Issue.record("the fixture has another form")
            return
        }
        let template = try ChatTemplate(source: source)
        #expect(!chats.isEmpty)
        for case .object(let chat) in chats {
            let text = try template.render(
                messages: chat["messages"] ?? [], addGenerationPrompt: chat["add_generation_prompt"] == true)
            #expect(chat["text"] == .string(text))
        }
    }

    @Test("messages become role, content and their other fields, in order")
    func messages() throws {
        let calls = try JinjaValue(json: #"[{"name": "f", "arguments": {"z": 1, "a": 2}}]"#)
        let message = ChatMessage(role: "assistant", content: .null, fields: JinjaObject([("tool_calls", calls), ("name", "x")]))
        let text = try ChatTemplate(source: "{{ messages }}").render(messages: [message])
        #expect(
            text
                == "[{'role': 'assistant', 'content': None, 'tool_calls': [{'name': 'f', 'arguments': {'z': 1, 'a': 2}}], 'name': 'x'}]"
        )
    }

    @Test("tools and documents are none where not given; special tokens and further variables are seen")
    func variables() throws {
        let template = try ChatTemplate(
            source:
                "{{ tools is none }}{{ documents is none }}{{ bos_token }}{{ eos_token }}{{ think }}{{ pad_token is defined }}")
        let text = try template.render(
            messages: [ChatMessage](), specialTokens: ["bos_token": "<s>", "eos_token": "</s>"],
            extra: ["think": false, "eos_token": "<e>"])
        #expect(text == "TrueTrue<s><e>FalseFalse")
        let tools = try ChatTemplate(source: "{{ tools[0].name }}{{ documents|length }}")
        #expect(try tools.render(messages: [ChatMessage](), tools: [["name": "f"]], documents: [["title": "t"]]) == "f1")
    }

    @Test("functions of the caller can be called, and their errors have a line")
    func functions() throws {
        let double = JinjaValue.function("double") { positional, named in
            guard case .int(let number)? = positional.first ?? named["x"] else {
                throw JinjaError(.type(expected: "a number", found: "?"))
            }
            return .int(2 * number)
        }
        let template = try JinjaTemplate(source: "{{ double(2) }}{{ double(x=3) }}")
        #expect(try template.render(variables: ["double": double]) == "46")
        #expect(
            Self.reason { _ = try JinjaTemplate(source: "\n{{ double() }}").render(variables: ["double": double]) }
                == .type(expected: "a number", found: "?"))
    }

    @Test("raise_exception surfaces with its text and line")
    func raised() throws {
        let template = try ChatTemplate(
            source: "a\n{% if messages|length > 1 %}\n{{ raise_exception('Only one message!') }}{% endif %}")
        do {
            _ = try template.render(messages: Self.chat)
            Issue.record("rendered")
        } catch let error as JinjaError {
            #expect(error == JinjaError(.raised("Only one message!"), line: 3))
            #expect(error.description == "chat template, line 3: Only one message!")
        }
    }

    @Test(
        "errors name what was expected and found, and the line",
        arguments: [
            ("a\n\n{{ 1 + }}", 3, "expected an expression, found '}}'"),
            ("{% if x %}\n{% endfor %}", 2, "expected '{% elif %}' or '{% else %}' or '{% endif %}', found '{% endfor %}'"),
            ("\n{{ x.y }}", 2, "'x' is undefined"), ("{{ {}.a.b }}", 1, "'dict object' has no attribute 'a'"),
            ("\n\n{{ 'a'|frob }}", 3, "no filter named 'frob'"), ("{{ 1 is frob }}", 1, "no test named 'frob'"),
            ("{{ [1].append(2) }}", 1, "not allowed in a chat template: changing a list object with 'append'"),
            ("{{ 'a' + 1 }}", 1, "expected operands that '+' takes, found str and int"),
            ("{{ 'x\n", 1, "expected the closing ' of a string, found the end of the template"),
        ])
    func messagesOfErrors(_ source: String, _ line: Int, _ text: String) {
        do {
            _ = try JinjaTemplate(source: source).render(variables: [:])
            Issue.record("rendered")
        } catch {
            #expect((error as? JinjaError)?.description == "chat template, line \(line): \(text)")
        }
    }

    @Test("continuing the final message ends the prompt within it, spaces kept")
    func continuation() throws {
        let template = try ChatTemplate(source: Self.chatML)
        let text = try template.render(messages: Self.chat, continueFinalMessage: true)
        #expect(text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n The answer is ")
    }

    @Test("a template that trims the final message has the cut trimmed")
    func trimmedContinuation() throws {
        let template = try ChatTemplate(source: "{% for m in messages %}[{{ m.role }}] {{ m.content|trim }}\n{% endfor %}")
        #expect(try template.render(messages: Self.chat, continueFinalMessage: true) == "[user] Hi\n[assistant] The answer is")
    }

    @Test("the last text part is continued")
    func continuedParts() throws {
        let template = try ChatTemplate(
            source: "{% for m in messages %}{% for p in m.content %}<{{ p.text }}>{% endfor %}{% endfor %}!")
        let message = ChatMessage(role: "assistant", content: [["text": "a"], ["text": "b "], ["image": "i"]])
        #expect(try template.render(messages: [message], continueFinalMessage: true) == "<a><b ")
    }

    @Test("what cannot be continued is refused")
    func refusedContinuation() throws {
        let template = try ChatTemplate(source: Self.chatML)
        let silent = try ChatTemplate(source: "{{ messages[0].content }}")
        let blind = try ChatTemplate(source: "{{ messages|length }}")
        let renderings: [() throws -> Void] = [
            { _ = try template.render(messages: Self.chat, addGenerationPrompt: true, continueFinalMessage: true) },
            { _ = try template.render(messages: [ChatMessage](), continueFinalMessage: true) },
            { _ = try template.render(messages: [ChatMessage(role: "user", content: .null)], continueFinalMessage: true) },
            {
                _ = try template.render(
                    messages: [ChatMessage(role: "user", content: [["image": "i"]])], continueFinalMessage: true)
            },
            { _ = try silent.render(messages: Self.chat, continueFinalMessage: true) },
            { _ = try blind.render(messages: Self.chat, continueFinalMessage: true) },
        ]
        for rendering in renderings {
            guard case .continuation? = Self.reason(rendering) else {
                Issue.record("not refused")
                continue
            }
        }
    }

    @Test("JSON text keeps the order of keys and the kinds of numbers")
    func json() throws {
        let text = #"{"z": 1, "a": 1.0, "m": [true, false, null, -2, 1e3, "\u00e9\ud83d\ude42\n\/"], "z": 2}"#
        let value = try JinjaValue(json: text)
        #expect(
            try JinjaTemplate(source: "{{ x|tojson }}").render(variables: ["x": value])
                == #"{"z": 2, "a": 1.0, "m": [true, false, null, -2, 1000.0, "é🙂\n/"]}"#)
    }

    @Test(
        "what is not JSON is refused with its place",
        arguments: [
            "", "{", "[1,]", "{\"a\":}", "{a: 1}", "[1 2]", "01", "1.", "nul", "\"a", "\"\\x\"", "\"\\u12\"", "\"\n\"", "1 2",
            "-", "1e", "NaN",
        ])
    func badJSON(_ text: String) {
        // Deep nesting, as part of every case to keep the arguments short.
        guard case .json? = Self.reason({ _ = try JinjaValue(json: String(repeating: "[", count: 100_000) + text) }) else {
            Issue.record("deep nesting was read")
            return
        }
        guard case .json? = Self.reason({ _ = try JinjaValue(json: text) }) else {
            Issue.record("\(text.prefix(20)) was read")
            return
        }
    }
}
