import Foundation
import NibbleCPU
import NibbleCheckpoint
import NibbleCore
import NibbleDeviceMap
import NibbleLoading
import NibbleModels
import NibbleTestSupport

/// Configs of models of a few thousand weights.
enum TinyConfig {
    static let llama: JSONObject = [
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 64, "max_position_embeddings": 64, "tie_word_embeddings": false,
    ]
    static var tiedLlama: JSONObject { llama.setting("tie_word_embeddings", true) }
    static var mixtral: JSONObject {
        llama.setting("model_type", "mixtral").setting("num_local_experts", 3).setting("num_experts_per_tok", 2)
    }
    static let gpt2: JSONObject = [
        "model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 64, "n_positions": 64, "n_ctx": 64,
    ]
}

extension JSONObject {
    func setting(_ key: String, _ value: JSONValue) -> JSONObject {
        var copy = self
        copy[key] = value
        return copy
    }
}

/// A model folder with a value for every parameter, and the means to load it. Removed with the value.
final class TinyModel {
    typealias NamedTensor = (name: String, tensor: Tensor)

    let folder: URL
    let architecture: ModelArchitecture

    /// - Parameter change: to the tensors that are written.
    init(_ config: JSONObject, _ change: (inout [NamedTensor], ModelArchitecture) throws -> Void = { _, _ in }) throws {
        folder = try Fixtures.temporaryFolder()
        architecture = try ModelRegistry.architecture(ConfigReader(config, file: "config.json"))
        var tensors = TinyModel.tensors(architecture)
        try change(&tensors, architecture)
        try SafetensorsWriter().write(tensors, to: folder.appending(path: "model.safetensors"))
        try write(config)
    }

    deinit { try? FileManager.default.removeItem(at: folder) }

    func write(_ config: JSONObject) throws {
        try Files.write(Data(JSONValue.object(config).encoded().utf8), to: folder.appending(path: "config.json"))
    }

    /// Small values that differ from tensor to tensor, under the names that files have.
    static func tensors(_ architecture: ModelArchitecture) -> [NamedTensor] {
        architecture.tree.parameters.filter { $0.tiedTo == nil }.enumerated().map { seed, parameter in
            (architecture.keys.fileName(parameter.path), values(parameter.shape, seed: seed))
        }
    }

    /// Replaces fused tensors of experts by one tensor for each expert and projection, under the names that Mixtral's files have.
    static func splitExperts(_ tensors: inout [NamedTensor]) {
        tensors = tensors.flatMap { name, tensor -> [NamedTensor] in
            let projections: [String]
            if name.hasSuffix(".experts.gate_up_proj") {
                projections = ["w1", "w3"]
            } else if name.hasSuffix(".experts.down_proj") {
                projections = ["w2"]
            } else {
                return [(name, tensor)]
            }
            let parent = name.split(separator: ".").dropLast().joined(separator: ".")
            let (height, width) = (tensor.shape[1] / projections.count, tensor.shape[2])
            let values = tensor.floats
            return (0..<tensor.shape[0]).flatMap { expert -> [NamedTensor] in
                projections.enumerated().map { index, projection -> NamedTensor in
                    let start = (expert * projections.count + index) * height * width
                    return (
                        "\(parent).\(expert).\(projection).weight",
                        Tensor.host(Array(values[start..<start + height * width]), .float32, [height, width])
                    )
                }
            }
        }
    }

    static func values(_ shape: Shape, seed: Int) -> Tensor {
        let values = (0..<shape.count).map { Float(($0 * 37 + seed * 11) % 101 - 50) / 250 }
        return .host(values, .float32, shape)
    }

    var checkpoint: any Checkpoint {
        get throws { try CheckpointFiles.open(folder: folder) }
    }

    var matching: KeyMatching {
        get throws { try KeyMatching(architecture, checkpoint) }
    }

    func plan(_ options: LoaderOptions = .init(), _ request: PlacementRequest? = nil) throws -> ModelLoader.LoadPlan {
        try ModelLoader.plan(ModelSource(folder: folder), options: options, request ?? TinyModel.onCPU)
    }

    func loader(_ options: LoaderOptions = .init()) throws -> ModelLoader {
        try ModelLoader(ModelSource(folder: folder), options: options, backends: [CPUBackend(threads: 1)])
    }

    func load(_ options: LoaderOptions = .init()) throws -> ModelLoader.LoadedModel {
        try loader(options).load(checkpoint, placement: TinyModel.onCPU)
    }

    static var onCPU: PlacementRequest {
        var request = PlacementRequest()
        request.deviceMap = .device(.cpu)
        return request
    }
}

extension Tensor {
    var floats: [Float] { Array(hostElements(Float.self)) }
    var bytes: [UInt8] { Array(hostBytes) }
}
