package import Foundation
package import Nibble
import NibbleCore
package import NibbleGeneration
package import NibbleModels
package import NibbleTokenizers

/// The model that a server answers with.
package struct ServedModel: Sendable {
    package var tokenizer: Tokenizer
    /// generation_config.json.
    package var defaults: GenerationConfig
    /// What lists of models show.
    package var details = ModelDetails()
    /// How texts become vectors.
    package var pooling = Pooling.last
    /// Where each module lies, and its bytes, for the page; JSON.
    package var placement = "null"

    package init(tokenizer: Tokenizer, defaults: GenerationConfig) {
        self.tokenizer = tokenizer
        self.defaults = defaults
    }

    package init(_ model: PretrainedModel, tokenizer: Tokenizer) {
        self.init(tokenizer: tokenizer, defaults: model.generationConfig)
        details = ModelDetails(model)
        pooling = Self.pooling(of: model.folder) ?? .last
        placement = model.report.placement.map(Self.json)?.encoded() ?? "null"
    }

    /// Tokens that end an answer.
    var endTokens: [Int32] { defaults.eosTokenId ?? tokenizer.specialTokens.eos.map { [$0.id] } ?? [] }

    /// What the files of sentence-transformers say; `nil`: nothing that is known here.
    private static func pooling(of folder: URL) -> Pooling? {
        let config = try? JSONValue(contentsOf: folder.appending(path: "1_Pooling/config.json"))
        if config?["pooling_mode_lasttoken"]?.bool == true { return .last }
        return config?["pooling_mode_mean_tokens"]?.bool == true ? .mean : nil
    }

    private static func json(_ plan: PlacementPlan) -> JSONValue {
        let devices = plan.devices.map { use -> JSONValue in
            [
                "device": .string("\(use.device)"), "weights": .int(use.weights), "scales": .int(use.scales),
                "kv_cache": .int(use.cache), "workspace": .int(use.workspace), "total": .int(use.total),
                "budget": use.budget.map { .int($0) } ?? .null,
            ]
        }
        let modules = plan.ranges.map { range -> JSONValue in
            [
                "first": .string(range.first), "last": .string(range.last), "device": .string("\(range.device)"),
                "bytes": .int(range.bytes), "why": .string(range.reason),
            ]
        }
        return ["devices": .array(devices), "modules": .array(modules)]
    }
}

/// What a list of models says of one.
package struct ModelDetails: Sendable {
    /// `model_type` of config.json.
    package var family = "unknown"
    package var format = "safetensors"
    package var parameterCount = 0
    /// Of weights and scales as they are stored, on all devices and on GPUs.
    package var storedBytes = 0
    package var gpuBytes = 0
    /// `NF4`, `INT8`, or the dtype.
    package var quantization = "F32"
    /// Of the model's file or folder.
    package var modified = Date(timeIntervalSince1970: 0)

    package init() {}

    init(_ model: PretrainedModel) {
        let config = try? JSONValue(contentsOf: model.folder.appending(path: "config.json"))
        family = config?["model_type"]?.string ?? "gguf"
        format = config == nil ? "gguf" : "safetensors"
        parameterCount = model.tree.parameters.lazy.filter { $0.tiedTo == nil }.reduce(0) { $0 + $1.shape.count }
        storedBytes = model.report.residentBytes.values.reduce(0, +)
        gpuBytes = model.report.residentBytes.reduce(0) { $0 + ($1.key.isGPU ? $1.value : 0) }
        quantization = (model.report.quantization.map { $0.method } ?? "\(model.report.dtype)").uppercased()
        let values = try? model.folder.resourceValues(forKeys: [.contentModificationDateKey])
        modified = values?.contentModificationDate ?? modified
    }

    /// `7.4M`, `1.1B`
    var parameterSize: String {
        let count = Double(parameterCount)
        let (value, unit) = count >= 1e9 ? (count / 1e9, "B") : count >= 1e6 ? (count / 1e6, "M") : (count / 1e3, "K")
        return "\((value * 10).rounded() / 10)\(unit)"
    }
}
