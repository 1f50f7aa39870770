import CNibblePage
import NibbleCore

/// The description of this server's API, for tools that read OpenAPI.
enum OpenAPI {
    /// Answered only where the configuration allows it.
    private static let adapterUpdates: Set = ["/v1/load_lora_adapter", "/v1/unload_lora_adapter"]

    /// The embedded document, with the bounds of the model that is served.
    /// - Parameters:
    ///   - vocabulary: token ids are below this.
    ///   - embeddingWidth: what `dimensions` may be at most; `nil`: the model makes no embeddings.
    /// - Throws: `JSONError` if the embedded document is no JSON.
    static func document(
        _ configuration: ServerConfiguration, vocabulary: Int, embeddingWidth: Int?
    ) throws -> JSONValue {
        var count = 0
        var document = try JSONValue.parse(UnsafeRawBufferPointer(start: nibble_api(&count), count: count)).object ?? [:]
        var components = document["components"]?.object ?? [:]
        var schemas = components["schemas"]?.object ?? [:]
        for (name, limit) in [("Token", vocabulary - 1), ("Dimensions", embeddingWidth ?? 1)] {
            var schema = schemas[name]?.object ?? [:]
            schema["maximum"] = .int(max(limit, 0))
            schemas[name] = .object(schema)
        }
        components["schemas"] = .object(schemas)
        if !configuration.allowsAdapterUpdates {
            let paths = document["paths"]?.object?.members.filter { !adapterUpdates.contains($0.key) } ?? []
            document["paths"] = .object(JSONObject(paths.map { ($0.key, $0.value) }))
        }
        if !configuration.apiKeys.isEmpty {
            components["securitySchemes"] = ["key": ["type": "http", "scheme": "bearer"]]
            document["security"] = [["key": []]]
        }
        document["components"] = .object(components)
        return .object(document)
    }
}
