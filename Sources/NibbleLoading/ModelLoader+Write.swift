package import Foundation
package import NibbleCheckpoint
import NibbleCore
import NibbleDeviceMap
package import NibbleModels
import NibbleQuantization

/// What was written.
package struct WrittenCheckpoint: Sendable {
    /// Modules that are quantized in the checkpoint (for a dequantized one: that were).
    package var quantizedModules: [String]
    package var warnings: [String]
}

extension ModelLoader {
    /// Writes the model as a pre-quantized checkpoint, laid out as by `save_pretrained`.
    ///
    /// Layers that transformers cannot read quantized (subclassed linear layers, fused experts in 8 bits) stay as they are, with
    /// a warning. Experts are quantized as ``WrittenExperts`` says, with a warning that names who reads them, unless
    /// ``LoaderOptions/followsReference`` is set. Weight files get their names when all are written; `config.json` comes last.
    /// - Parameter adjust: may change the quantized weights before they are written.
    /// - Throws: as loading does; ``LoadError/alreadyQuantized(_:stored:wanted:)`` if another format was asked for than
    ///   the checkpoint has; `FileError`, `CheckpointError/unwritable(file:reason:)`.
    package func writeQuantized(
        _ checkpoint: any Checkpoint, to folder: URL, maximumShardBytes: Int,
        adjust: (inout ModelWeights) throws -> Void = { _ in }
    ) throws -> WrittenCheckpoint {
        try refuseRequantizing()
        let output = try CheckpointFolder(folder, of: source)
        var options = options
        options.preparesWeights = false
        options.headFormat = nil
        let writer = ModelLoader(source, options: options, backends: Array(backends.values))
        let matched = try writer.match(checkpoint, plainLayersOnly: true)
        var weights = try matched.loader(writer.resolve(matched.tree, .all(on: .cpu)), writer.backends)
            .load(matched.tree, experts: { _ in false })
        try adjust(&weights)
        let tensors = try writer.tensors(matched, weights, checkpoint)
        try output.write(tensors, maximumShardBytes: maximumShardBytes)
        try output.copyCompanions()
        try output.writeConfig(writer.writtenConfig(matched))
        return WrittenCheckpoint(
            quantizedModules: matched.plan.quantized,
            warnings: matched.warnings + WrittenExperts(matched).warnings + writer.unquantizedWarnings(matched))
    }

    /// A format other than the stored one cannot be made from quantized weights without losing more than it would from the
    /// original ones.
    private func refuseRequantizing() throws {
        guard let stored = source.storedQuantization, let wanted = options.quantization else { return }
        guard wanted.format != stored.format || wanted.int8SkipModules != nil || !options.addedSkipModules.isEmpty else { return }
        let difference = wanted.format == stored.format ? " with other skip entries" : ""
        throw LoadError.alreadyQuantized(
            source.folder.path, stored: stored.formatName, wanted: wanted.formatName + difference)
    }

    /// Names the layers that a load would quantize, but a checkpoint for transformers cannot hold quantized.
    private func unquantizedWarnings(_ matched: MatchedCheckpoint) -> [String] {
        let all = QuantizationPlan(
            matched.architecture.tree, config: matched.config, addedSkips: options.addedSkipModules,
            keptInFloat32: !options.quantizesFloat32Modules)
        let left = all.quantized.filter { !matched.plan.isQuantized($0) }
        guard !left.isEmpty else { return [] }
        return [
            "\(LayerFolding.fold(left).joined(separator: ", ")): left in \(matched.dtype), because transformers reads such layers "
                + "unquantized only"
        ]
    }

    private func tensors(
        _ matched: MatchedCheckpoint, _ weights: ModelWeights, _ checkpoint: any Checkpoint
    ) throws -> [(name: String, tensor: Tensor)] {
        let host = HostTensors(cpu: cpu)
        let fileName = matched.architecture.keys.fileName
        let buffers = try matched.bufferTensors(host)
        let experts = WrittenExperts(matched)
        return try buffers
            + matched.tree.parameters.filter { $0.tiedTo == nil }.flatMap { parameter in
                let module = parameter.module.path
                if parameter.module.isExperts { return try experts.tensors(parameter, host) }
                if parameter.path == parameter.module.path(of: "weight"), let linear = weights.linears[module] {
                    switch try linear.weight.canonical() {
                    case .fourBit(let weight):
                        return try QuantizedTensors.fourBit(
                            weight, name: fileName(parameter.path), storage: matched.config?.quantStorage ?? .uint8)
                    case .int8(let weight): return QuantizedTensors.int8(weight, module: fileName(module))
                    case .dense, .prepared: break
                    }
                }
                return try matched.floatTensors(parameter, host)
            }
    }

    private func writtenConfig(_ matched: MatchedCheckpoint) -> JSONObject {
        var values = source.config.values
        values["torch_dtype"] = nil
        values["dtype"] = .string(matched.dtype.rawValue)
        if var config = matched.config {
            if config.loadIn4Bit { config.computeDType = config.computeDType ?? matched.dtype }
            let named = config.int8SkipModules ?? matched.tree.defaultSkips
            let added = options.addedSkipModules + WrittenExperts(matched).plainRouters.filter { !named.contains($0) }
            if !added.isEmpty { config.int8SkipModules = named + added }
            values["quantization_config"] = .object(config.json)
        }
        return values
    }
}

extension MatchedCheckpoint {
    /// The buffers that checkpoints hold, in the dtype they are stored in.
    func bufferTensors(_ host: HostTensors) throws -> [(name: String, tensor: Tensor)] {
        try tree.persistentBuffers.compactMap { path, buffer in
            guard let source = matching.sources[path] else { return nil }
            return (
                architecture.keys.fileName(path),
                try host.cast(checkpoint.tensor(source.key), to: buffer.followsLoadDType ? dtype : buffer.dtype)
            )
        }
    }

    /// A parameter as the checkpoint holds it, in the dtype it is stored in.
    func floatTensors(_ parameter: LocatedParameter, _ host: HostTensors) throws -> [(name: String, tensor: Tensor)] {
        guard let source = matching.sources[parameter.path] else { return [] }
        let tensor = try host.cast(
            checkpoint.tensor(source.key), to: tree.storedDType(of: parameter.path, loadDType: dtype))
        return [(name: writtenName(parameter, source), tensor: tensor)]
    }

    /// A router keeps the name that it has beside single experts, which keep theirs.
    func writtenName(_ parameter: LocatedParameter, _ source: KeyMatching.WeightSource) -> String {
        if case .router = parameter.module.node.kind, !matching.expertSources.isEmpty { return source.key }
        return architecture.keys.fileName(parameter.path)
    }
}
