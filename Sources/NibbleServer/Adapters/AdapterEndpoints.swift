import Hummingbird
import NibbleCore

/// vLLM's POST /v1/load_lora_adapter and /v1/unload_lora_adapter, and llama.cpp's GET /lora-adapters.
struct AdapterEndpoints: Sendable {
    let core: ServerCore

    func load(_ body: JSONField) async throws -> Response {
        let (name, path) = (try body.text("lora_name"), try body.text("lora_path"))
        guard !name.isEmpty, !path.isEmpty else {
            throw APIError.invalid("lora_name and lora_path must not be empty", param: name.isEmpty ? "lora_name" : "lora_path")
        }
        guard !core.configuration.modelNames.contains(name) else {
            throw APIError.invalid("'\(name)' is the name of the model itself", param: "lora_name")
        }
        let replaces = try body.flag("load_inplace", default: false)
        do {
            try await core.service.loadAdapter(name, path: path, replaces: replaces)
        } catch let error as ServiceRefusal {
            throw error
        } catch {
            // What is wrong with the files is the client's to repair.
            throw APIError.invalid("\(error)", param: "lora_path", code: "adapter_refused")
        }
        return .text("Success: LoRA adapter '\(name)' added successfully.", type: "text/plain; charset=utf-8")
    }

    func unload(_ body: JSONField) async throws -> Response {
        let name = try body.text("lora_name")
        guard try await core.service.unloadAdapter(name) else {
            var error = APIError.unknownModel(name, served: core.service.adapters.map(\.name))
            error.param = "lora_name"
            throw error
        }
        return .text("Success: LoRA adapter '\(name)' removed successfully.", type: "text/plain; charset=utf-8")
    }

    /// Requests choose for themselves: no adapter is applied to all.
    func list() -> Response {
        .json(
            .array(
                core.service.adapters.map { adapter -> JSONValue in
                    ["id": .int(adapter.number), "path": .string(adapter.path), "scale": 0]
                }))
    }
}

/// One element of llama.cpp's `lora`.
struct AdapterScale: Sendable {
    var number: Int
    var scale: Float

    /// - Throws: `JSONError`
    static func list(_ field: JSONField?) throws -> [AdapterScale]? {
        guard let field else { return nil }
        return try field.elements().map { element in
            let scale = try element.child("scale")?.double() ?? 1
            guard (-1e4...1e4).contains(scale) else {
                throw try element.required("scale").unexpected("a number from -10000 to 10000")
            }
            return AdapterScale(number: try element.required("id").integer(in: 0...Int(Int32.max)), scale: Float(scale))
        }
    }
}

extension ServerCore {
    /// The names by which requests choose what answers: the model's own, then those of adapters.
    var modelNames: [String] { configuration.modelNames + service.adapters.map(\.name) }

    /// What a request uses: the adapter that is its model, or those that it lists, which replace it.
    /// - Throws: ``APIError``
    func adapters(_ model: String?, _ list: [AdapterScale]?) throws -> [String: Float] {
        let served = service.adapters
        guard let list else {
            guard let model, !configuration.modelNames.contains(model) else { return [:] }
            return [model: 1]
        }
        var names: [String: Float] = [:]
        for entry in list {
            guard let adapter = served.first(where: { $0.number == entry.number }) else {
                throw APIError.invalid(
                    "field 'lora': there is no adapter \(entry.number): /lora-adapters lists them", param: "lora")
            }
            if entry.scale != 0 { names[adapter.name] = entry.scale }
        }
        return names
    }
}
