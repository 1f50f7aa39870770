package import Foundation
package import NibbleCheckpoint
import NibbleCore
import NibbleModels
import NibbleQuantization

extension ModelLoader {
    /// Writes a quantized model as an ordinary checkpoint: quantized weights as the floats they stand for, all else as it is,
    /// without `quantization_config`. Tensors are made one by one while they are written.
    /// - Throws: as loading does; ``LoadError/notQuantized(folder:)``; `FileError`, `CheckpointError`.
    package func writeDequantized(
        _ checkpoint: any Checkpoint, to folder: URL, maximumShardBytes: Int
    ) throws -> WrittenCheckpoint {
        guard source.storedQuantization != nil || source.storedFormat != nil else {
            throw LoadError.notQuantized(folder: source.folder.path)
        }
        let output = try CheckpointFolder(folder, of: source)
        let matched = try match(checkpoint, keepsExperts: false)
        let writing = DequantizedTensors(matched)
        try output.write(writing.specifications, maximumShardBytes: maximumShardBytes, writing.tensor)
        try output.copyCompanions()
        var values = source.config.values
        for key in ["quantization_config", "torch_dtype"] { values[key] = nil }
        values["dtype"] = .string(matched.dtype.rawValue)
        try output.writeConfig(values)
        let stored = (checkpoint as? DequantizedCheckpoint)?.quantizedNames.map { name in
            name.hasByteSuffix(".weight") ? String(name.dropLast(".weight".count)) : name
        }
        return WrittenCheckpoint(quantizedModules: stored ?? matched.plan.quantized, warnings: matched.warnings)
    }
}

/// The tensors of a quantized checkpoint as floats.
private struct DequantizedTensors {
    private let matched: MatchedCheckpoint
    private let host: HostTensors
    /// By name in the written checkpoint.
    private let makers: [ByteText: () throws -> Tensor]
    let specifications: [TensorSpecification]

    init(_ matched: MatchedCheckpoint) {
        let host = HostTensors(cpu: matched.cpu)
        var makers: [ByteText: () throws -> Tensor] = [:]
        var specifications = [TensorSpecification]()
        func add(_ name: String, _ dtype: DType, _ shape: Shape, _ make: @escaping () throws -> Tensor) {
            specifications.append(TensorSpecification(name: name, dtype: dtype, shape: shape))
            makers[name] = make
        }
        func addFloat(_ name: String, _ key: String, _ dtype: DType) {
            let shape = matched.checkpoint.descriptor(key)?.shape ?? []
            add(name, dtype, shape) { try host.cast(matched.checkpoint.tensor(key), to: dtype) }
        }
        let fileName = matched.architecture.keys.fileName
        for (path, buffer) in matched.tree.persistentBuffers {
            guard let source = matched.matching.sources[path] else { continue }
            addFloat(fileName(path), source.key, buffer.followsLoadDType ? matched.dtype : buffer.dtype)
        }
        for parameter in matched.tree.parameters where parameter.tiedTo == nil {
            guard let source = matched.matching.sources[parameter.path] else { continue }
            let dtype = matched.tree.storedDType(of: parameter.path, loadDType: matched.dtype)
            if source.isQuantized {
                add(matched.writtenName(parameter, source), dtype, parameter.shape) {
                    try DequantizedTensors.floats(parameter, source, dtype, matched, host)
                }
            } else {
                addFloat(matched.writtenName(parameter, source), source.key, dtype)
            }
        }
        for (path, source) in matched.matching.expertSources.sorted(by: { ByteText($0.value.key) < ByteText($1.value.key) }) {
            guard source.isQuantized, let shape = matched.matching.expertShapes[path] else {
                addFloat(source.key, source.key, matched.dtype)
                continue
            }
            add(source.key, matched.dtype, shape) {
                let weight = try StoredWeightReader(checkpoint: matched.checkpoint) { $0 }.weight(source, shape: shape)
                return try matched.cpu.dequantize(weight, to: matched.dtype)
            }
        }
        for key in matched.matching.expertBiases.values.map(\.key).sorted() { addFloat(key, key, matched.dtype) }
        self.matched = matched
        self.host = host
        self.makers = makers
        self.specifications = specifications
    }

    func tensor(_ specification: TensorSpecification) throws -> Tensor {
        guard let make = makers[specification.name] else {
            throw CheckpointError.noSuchTensor(name: specification.name, files: matched.checkpoint.files.map(\.path))
        }
        return try make()
    }

    private static func floats(
        _ parameter: LocatedParameter, _ source: KeyMatching.WeightSource, _ dtype: DType, _ matched: MatchedCheckpoint,
        _ host: HostTensors
    ) throws -> Tensor {
        let isTransposed = if case .transposedLinear = parameter.module.node.kind { true } else { false }
        // Quantized layers are [N, K] whatever orientation the family stores floats in.
        let shape: Shape = isTransposed ? [parameter.shape[1], parameter.shape[0]] : parameter.shape
        let weight = try StoredWeightReader(checkpoint: matched.checkpoint) { $0 }.weight(source, shape: shape)
        let floats = try matched.cpu.dequantize(weight, to: dtype)
        return isTransposed ? try host.transposed(floats) : floats.viewed(as: shape)
    }
}
