import NibbleCore

/// The paths that this server answers, for tools that read OpenAPI.
enum OpenAPI {
    private static let posts: [(path: String, summary: String, required: [String])] = [
        ("/v1/chat/completions", "Answer a chat.", ["messages"]), ("/v1/completions", "Continue prompts.", ["prompt"]),
        ("/v1/messages", "Answer a chat in Anthropic's form.", ["messages", "max_tokens"]),
        ("/v1/messages/count_tokens", "Count the tokens of a chat.", ["messages"]),
        ("/v1/responses", "Answer a chat in the form of responses.", ["input"]),
        ("/v1/embeddings", "Vectors of texts.", ["input"]),
        ("/api/chat", "Answer a chat in Ollama's form.", ["model"]),
        ("/api/generate", "Continue a prompt in Ollama's form.", ["model"]),
        ("/api/embed", "Vectors of texts in Ollama's form.", ["model", "input"]),
        ("/api/embeddings", "The vector of one text in Ollama's older form.", ["model", "prompt"]),
        ("/api/show", "What is known of a model, in Ollama's form.", ["model"]),
        ("/tokenize", "Tokens of a prompt, a content or messages.", []), ("/detokenize", "The text of tokens.", ["tokens"]),
        ("/apply-template", "The prompt that messages become.", ["messages"]),
    ]
    private static let gets = [
        ("/v1/models", "The models that are served."), ("/health", "Whether the engine does its work."),
        ("/ready", "Whether requests are taken."), ("/metrics", "Prometheus' text form."), ("/", "A page to chat with."),
        ("/placement", "Where each module lies, and its bytes."),
        ("/api/tags", "The models in Ollama's form."), ("/api/ps", "The loaded models in Ollama's form."),
        ("/api/version", "The server's version."), ("/openapi.json", "This document."),
    ]

    static func document(_ configuration: ServerConfiguration) -> JSONValue {
        var paths = JSONObject()
        for (path, summary, required) in posts {
            var schema: JSONObject = ["type": "object"]
            if !required.isEmpty { schema["required"] = .array(required.map { .string($0) }) }
            paths[path] = [
                "post": [
                    "summary": .string(summary),
                    "requestBody": ["required": true, "content": ["application/json": ["schema": .object(schema)]]],
                    "responses": responses,
                ]
            ]
        }
        for (path, summary) in gets { paths[path] = ["get": ["summary": .string(summary), "responses": responses]] }
        let parameter: JSONValue = ["name": "id", "in": "path", "required": true, "schema": ["type": "string"]]
        paths["/v1/models/{id}"] = [
            "get": ["summary": "One of the models.", "parameters": [parameter], "responses": responses]
        ]
        var document: JSONObject = [
            "openapi": "3.1.0", "info": ["title": "Nibble", "version": "1"], "paths": .object(paths),
        ]
        if !configuration.apiKeys.isEmpty {
            document["components"] = ["securitySchemes": ["key": ["type": "http", "scheme": "bearer"]]]
            document["security"] = [["key": []]]
        }
        return .object(document)
    }

    private static let responses: JSONValue = [
        "200": ["description": "The answer."], "default": ["description": "An error that says what is wrong."],
    ]
}
