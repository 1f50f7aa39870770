import Hummingbird
import NibbleCore
import NibbleTokenizers

/// /tokenize, /detokenize and /apply-template, as vLLM and llama.cpp name them.
struct TokenizeEndpoints: Sendable {
    let core: ServerCore

    /// Takes vLLM's `prompt` or `messages`, and llama.cpp's `content`.
    func tokenize(_ body: JSONField) throws -> Response {
        try core.checkModel(try body.child("model")?.string())
        let ids: [Int32]
        if body.child("messages") != nil {
            ids = try prompt(body).tokens
        } else if let content = try body.child("content")?.string() {
            ids = try core.encode(content, addSpecialTokens: try body.flag("add_special", default: false), param: "content")
        } else {
            let adds = try body.flag("add_special_tokens", default: true)
            ids = try core.encode(try body.text("prompt"), addSpecialTokens: adds, param: "prompt")
        }
        var answer: JSONObject = [
            "tokens": .array(ids.map { .int(Int($0)) }), "count": .int(ids.count), "max_model_len": .int(core.service.context),
        ]
        if try body.flag("return_token_strs", default: false) {
            answer["token_strs"] = .array(ids.map { .string(core.model.tokenizer.token(for: $0) ?? "") })
        }
        return .json(.object(answer))
    }

    func detokenize(_ body: JSONField) throws -> Response {
        try core.checkModel(try body.child("model")?.string())
        let ids = try body.required("tokens").elements().map { try $0.token(core.vocabulary) }
        let text = core.model.tokenizer.decode(ids)
        return .json(["prompt": .string(text), "content": .string(text)])
    }

    func applyTemplate(_ body: JSONField) throws -> Response {
        try core.checkModel(try body.child("model")?.string())
        return .json(["prompt": .string(try prompt(body).text)])
    }

    private func prompt(_ body: JSONField) throws -> PromptRenderer.Prompt {
        let tools = try body.child("tools")?.elements().map { try ToolDefinition($0) } ?? []
        let shown = try ToolChoice(body, tools: tools).shown(of: tools)
        return try core.renderer.prompt(try ChatRequest.messages(body), tools: shown, try ChatRendering(body))
    }
}
