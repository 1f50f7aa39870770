package import Foundation
package import NibbleCheckpoint
import NibbleCore
import NibbleDeviceMap
import NibbleModels
import NibbleQuantization

extension ModelLoader {
    /// Writes the model as a pre-quantized checkpoint, as `save_pretrained` lays it out.
    ///
    /// Layers that only Nibble quantizes (fused experts, subclassed linear layers) are left as they are, so that
    /// transformers reads the result. Weights get their names when all are written; `config.json` comes last.
    /// - Returns: the names of the quantized modules.
    /// - Throws: as loading does; `CheckpointError/unwritable(file:reason:)`.
    package func writeQuantized(
        _ checkpoint: any Checkpoint, to folder: URL, maximumShardBytes: Int
    ) throws -> [String] {
        var options = options
        options.preparesWeights = false
        options.headFormat = nil
        let writer = ModelLoader(source, options: options, backends: Array(backends.values))
        let prepared = try writer.prepare(checkpoint, plainLayersOnly: true)
        let weights = try prepared.loader(writer.resolve(prepared.tree, .all(on: .cpu)), writer.backends).load(prepared.tree)
        let tensors = try writer.tensors(prepared, weights, checkpoint)

        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let held = Dictionary(tensors.map { ($0.name, $0.tensor) }, uniquingKeysWith: { first, _ in first })
        try SafetensorsWriter(order: .reference).writeSharded(
            tensors.map { TensorSpecification(name: $0.name, tensor: $0.tensor) }, to: folder,
            maximumShardByteCount: maximumShardBytes
        ) { specification in
            guard let tensor = held[specification.name] else {
                throw CheckpointError.noSuchTensor(name: specification.name, files: [folder.path])
            }
            return tensor
        }
        try copyCompanions(to: folder)
        try writeConfig(prepared, to: folder)
        return prepared.plan.quantized
    }

    private func tensors(
        _ prepared: MatchedCheckpoint, _ weights: ModelWeights, _ checkpoint: any Checkpoint
    ) throws -> [(name: String, tensor: Tensor)] {
        let host = HostTensors(cpu: cpu)
        let fileName = prepared.architecture.keys.fileName
        let buffers = try prepared.tree.persistentBuffers.compactMap { path, _ -> (name: String, tensor: Tensor)? in
            guard let source = prepared.matching.sources[path] else { return nil }
            return (fileName(path), try host.cast(checkpoint.tensor(source.key), to: prepared.dtype))
        }
        return try buffers
            + prepared.tree.parameters.filter { $0.tiedTo == nil }.flatMap { parameter in
                let module = parameter.module.path
                if parameter.path == parameter.module.path(of: "weight"), let linear = weights.linears[module] {
                    switch try linear.weight.canonical() {
                    case .fourBit(let weight):
                        return try QuantizedTensors.fourBit(
                            weight, name: fileName(parameter.path), storage: prepared.config?.quantStorage ?? .uint8)
                    case .int8(let weight): return QuantizedTensors.int8(weight, module: fileName(module))
                    case .dense, .prepared: break
                    }
                }
                guard let source = prepared.matching.sources[parameter.path] else {
                    // Experts saved one by one keep their own names, and are written with the first of the fused parameters.
                    guard parameter.path == parameter.module.node.parameters.first.map({ parameter.module.path(of: $0.name) })
                    else { return [] }
                    return try expertTensors(parameter.module.path, prepared, checkpoint, host)
                }
                let tensor = try host.cast(
                    checkpoint.tensor(source.key),
                    to: prepared.tree.storedDType(of: parameter.path, loadDType: prepared.dtype))
                return [(name: fileName(parameter.path), tensor: tensor)]
            }
    }

    private func expertTensors(
        _ module: String, _ prepared: MatchedCheckpoint, _ checkpoint: any Checkpoint, _ host: HostTensors
    ) throws -> [(name: String, tensor: Tensor)] {
        try prepared.matching.expertSources.filter { $0.key.hasPrefix(module + ".") }.values.map(\.key).sorted().map { key in
            (name: key, tensor: try host.cast(checkpoint.tensor(key), to: prepared.dtype))
        }
    }

    /// Everything beside the weights that a reader of the folder needs.
    private func copyCompanions(to folder: URL) throws {
        let manager = FileManager.default
        let names = [
            "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
            "tokenizer.model", "spiece.model", "vocab.json", "merges.txt", "chat_template.jinja", "tekken.json",
            ModelSource.vocabularyFile,
        ]
        if ModelSource.isGGUF(source.folder) {
            return try GGUFFile(source.folder).writeMetadata(to: folder.appending(path: ModelSource.vocabularyFile))
        }
        for name in names {
            let original = source.folder.appending(path: name)
            guard manager.fileExists(atPath: original.path) else { continue }
            try Data(contentsOf: original).write(to: folder.appending(path: name), options: .atomic)
        }
    }

    private func writeConfig(_ prepared: MatchedCheckpoint, to folder: URL) throws {
        var values = source.config.values
        values["torch_dtype"] = nil
        values["dtype"] = .string(prepared.dtype.rawValue)
        if var config = prepared.config {
            if config.loadIn4Bit { config.computeDType = config.computeDType ?? prepared.dtype }
            if !options.addedSkipModules.isEmpty {
                config.int8SkipModules = (config.int8SkipModules ?? prepared.tree.defaultSkips) + options.addedSkipModules
            }
            values["quantization_config"] = .object(config.json)
        }
        let text = JSONValue.object(values).encoded(.pretty, sortedKeys: true) + "\n"
        try Data(text.utf8).write(to: folder.appending(path: "config.json"), options: .atomic)
    }
}
