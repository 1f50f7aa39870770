package import Foundation
package import NibbleCheckpoint
import NibbleCore
import NibbleModels
import NibbleQuantization

extension ModelLoader {
    /// Writes the model with adapters merged into it: the sums in the dtype of the weights, as an ordinary checkpoint with the
    /// names and shapes of the base's, or quantized as the options say.
    ///
    /// In compatibility mode, adapters are merged into quantized weights, which are quantized again after each. Otherwise a base
    /// that is already quantized is refused.
    /// - Throws: as loading and writing do; ``LoadError/unmergeable(_:reason:remedy:)``.
    package func writeMerged(
        _ checkpoint: any Checkpoint, _ files: [(file: AdapterFile, scale: Double)], to folder: URL, maximumShardBytes: Int
    ) throws -> WrittenCheckpoint {
        let output = try CheckpointFolder(folder, of: source)
        let isQuantizing = options.quantization != nil || source.storedQuantization != nil
        var plain = options
        plain.quantization = nil
        let matched = try ModelLoader(source, options: plain, backends: Array(backends.values)).match(checkpoint)
        let adapters = try files.map {
            try MatchedAdapter($0.file, source.architecture, tree: matched.tree).scaled(by: $0.scale)
        }
        let notes = adapters.flatMap(\.warnings)
        let rounding = options.followsReference && isQuantizing
        let quantized = try rounding ? match(checkpoint, plainLayersOnly: true).plan : nil
        let result = try AdapterMerge(matched, adapters) { quantized?.isQuantized($0) ?? false }.merged()
        var written: WrittenCheckpoint
        if isQuantizing {
            let source = try source.merged(result, tree: matched.tree)
            let writer = ModelLoader(source, options: options, backends: Array(backends.values))
            written = try writer.writeQuantized(result.checkpoint, to: folder, maximumShardBytes: maximumShardBytes) { weights in
                if rounding { try QuantizedMerge(cpu, adapters).merge(into: &weights) }
            }
            if rounding {
                written.warnings.append(
                    "the adapter was merged into quantized weights, which were rounded a second time. Without "
                        + "--reference-behaviour the sum is quantized once")
            }
        } else {
            written = try writeDense(matched, result, output, maximumShardBytes)
        }
        written.warnings = notes + written.warnings
        return written
    }

    private func writeDense(
        _ matched: MatchedCheckpoint, _ result: AdapterMerge.Result, _ output: CheckpointFolder, _ maximumShardBytes: Int
    ) throws -> WrittenCheckpoint {
        let (checkpoint, host) = (result.checkpoint, HostTensors(cpu: cpu))
        var dtypes: [ByteText: DType] = [:]
        if options.dtype != nil {
            for (path, source) in matched.matching.sources {
                dtypes[ByteText(source.key)] = matched.tree.storedDType(of: path.text, loadDType: matched.dtype)
            }
            for source in matched.matching.expertSources.values { dtypes[ByteText(source.key)] = matched.dtype }
        }
        let specifications = checkpoint.names.compactMap { name -> TensorSpecification? in
            guard let descriptor = checkpoint.descriptor(name) else { return nil }
            let dtype = descriptor.dtype.isFloatingPoint ? dtypes[name] ?? descriptor.dtype : descriptor.dtype
            return TensorSpecification(name: name, dtype: dtype, shape: descriptor.shape)
        }
        try output.write(specifications, maximumShardBytes: maximumShardBytes) { specification in
            defer { checkpoint.dropPages(specification.name) }
            let tensor = try checkpoint.tensor(specification.name)
            return tensor.dtype == specification.dtype ? tensor : try host.cast(tensor, to: specification.dtype)
        }
        try output.copyCompanions()
        try output.writeConfig(
            source.mergedConfig(result, tree: matched.tree, dtype: options.dtype, isWhole: true))
        return WrittenCheckpoint(quantizedModules: [], warnings: matched.warnings)
    }
}

extension ModelSource {
    /// `config.json` after a merge: embeddings that are tied no longer, and a vocabulary that grew.
    /// - Parameter isWhole: with the parts of a wrapper that are not loaded.
    func mergedConfig(
        _ result: AdapterMerge.Result, tree: ModuleTree, dtype: DType?, isWhole: Bool
    ) throws -> JSONObject {
        var whole = config.values
        if isWhole, !ModelSource.isGGUF(folder),
            let file = try JSONValue(contentsOf: folder.appending(path: "config.json")).object
        {
            whole = file
        }
        func set(_ key: String, _ value: JSONValue) {
            if var text = whole["text_config"]?.object {
                text[key] = value
                whole["text_config"] = .object(text)
            }
            if whole["text_config"] == nil || whole[key] != nil { whole[key] = value }
        }
        if result.tied.count < tree.tied.count {
            // T5 scales what its tied head reads. The scale stays.
            if architecture.head.scale != 1, whole["scale_decoder_outputs"] == nil { set("scale_decoder_outputs", true) }
            set("tie_word_embeddings", false)
            if whole["text_config"] != nil { whole["tie_word_embeddings"] = false }
        }
        if let size = result.vocabularySize { set("vocab_size", .int(size)) }
        if let dtype {
            whole["torch_dtype"] = nil
            set("dtype", .string(dtype.rawValue))
        }
        return whole
    }

    /// The source that describes the merged model.
    func merged(_ result: AdapterMerge.Result, tree: ModuleTree) throws -> ModelSource {
        guard result.vocabularySize != nil || result.tied.count < tree.tied.count else { return self }
        return try replacingConfig(mergedConfig(result, tree: tree, dtype: nil, isWhole: false))
    }
}
