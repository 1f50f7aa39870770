import Foundation
import Hummingbird
import NibbleCore

/// Ollama's lists of models: /api/tags, /api/ps, /api/show and /api/version.
struct OllamaModels: Sendable {
    let core: ServerCore

    private var details: ModelDetails { core.model.details }

    func version() -> Response { .json(["version": .string(core.configuration.version)]) }

    func tags() -> Response { .json(["models": .array(core.modelNames.map { .object(entry($0)) })]) }

    func running() -> Response {
        let models = core.modelNames.map { name -> JSONValue in
            var entry = entry(name)
            // The model stays as long as the server.
            entry["expires_at"] = "2318-01-01T00:00:00Z"
            entry["size_vram"] = .int(details.gpuBytes)
            entry["context_length"] = .int(core.service.context)
            return .object(entry)
        }
        return .json(["models": .array(models)])
    }

    func show(_ body: JSONField) throws -> Response {
        let name = try OllamaRequest.model(body, served: core.modelNames)
        try core.checkModel(name)
        let template = (try? core.model.tokenizer.chatTemplate(core.configuration.chatTemplate)) ?? ""
        var capabilities: [JSONValue] = ["completion"]
        if template.contains("tools") { capabilities.append("tools") }
        if core.service.embeddingWidth != nil { capabilities.append("embedding") }
        let family = details.family
        return .json([
            "modelfile": .string("FROM \(name)"), "parameters": "", "template": .string(template), "details": form(name),
            "model_info": [
                "general.architecture": .string(family), "general.parameter_count": .int(details.parameterCount),
                "\(family).context_length": .int(core.service.context),
            ],
            "capabilities": .array(capabilities), "modified_at": .string(Clock.text(details.modified)),
        ])
    }

    private func entry(_ name: String) -> JSONObject {
        [
            "name": .string(name), "model": .string(name), "modified_at": .string(Clock.text(details.modified)),
            "size": .int(details.storedBytes), "digest": "", "details": form(name),
        ]
    }

    private func form(_ name: String) -> JSONValue {
        let parent = core.configuration.modelNames.contains(name) ? "" : core.configuration.modelName
        return [
            "parent_model": .string(parent), "format": .string(details.format), "family": .string(details.family),
            "families": [.string(details.family)], "parameter_size": .string(details.parameterSize),
            "quantization_level": .string(details.quantization),
        ]
    }
}
