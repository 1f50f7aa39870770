package import NibbleCheckpoint
package import NibbleCore
import NibbleQuantization

/// Reads weights that a checkpoint holds in quantized form.
package struct StoredWeightReader {
    private let checkpoint: any Checkpoint
    private let place: (Tensor) throws -> Tensor

    /// - Parameter place: copies a tensor of the file to its device, or returns it as it is to use it mapped.
    package init(checkpoint: any Checkpoint, _ place: @escaping (Tensor) throws -> Tensor) {
        self.checkpoint = checkpoint
        self.place = place
    }

    /// - Parameter shape: [N, K]; of a set of experts in one tensor [E, N, K], which is read as [E·N, K].
    /// - Throws: ``LoadError/missingCompanion(tensor:companion:file:)``,
    ///   ``LoadError/malformedQuantization(tensor:file:expected:found:)``, `CheckpointError`.
    package func weight(_ source: KeyMatching.WeightSource, shape: Shape) throws -> LinearWeight {
        if source.companions[QuantizedNames.rowScales] != nil { return .int8(try int8(source, shape)) }
        return .fourBit(try fourBit(source, shape))
    }

    private func int8(_ source: KeyMatching.WeightSource, _ shape: Shape) throws -> Int8Weight {
        let values = try checkpoint.tensor(source.key)
        try require(
            values.dtype == .int8 && values.shape == shape, source.key, "int8 \(shape)", "\(values.dtype) \(values.shape)")
        let rows = StoredWeightReader.rows(shape)
        let (scales, scalesKey) = try companion(QuantizedNames.rowScales, of: source)
        try require(
            scales.dtype == .float32 && scales.count == rows, scalesKey, "\(rows) float32 row scales",
            "\(scales.dtype) \(scales.shape)")
        if let key = source.companions[QuantizedNames.weightFormat] {
            let word = try checkpoint.tensor(key).hostBytes.first
            try require(word == 0, key, "weight_format 0 (rows)", "\(word.map(String.init) ?? "nothing")")
        }
        return Int8Weight(
            values: try place(values.viewed(as: [rows, shape.count / max(rows, 1)])), scales: try place(scales.viewed(as: [rows]))
        )
    }

    /// All extents but the last, multiplied.
    private static func rows(_ shape: Shape) -> Int { shape.dimensions.dropLast().reduce(1, *) }

    private func fourBit(_ source: KeyMatching.WeightSource, _ shape: Shape) throws -> FourBitWeight {
        let (state, stateKey) = try quantState(source)
        try require(state.shape == shape, stateKey, "shape \(shape)", "\(state.shape)")
        let codes = try checkpoint.tensor(source.key)
        let byteCount = (shape.count + 1) / 2
        try require(codes.byteCount == byteCount, source.key, "\(byteCount) bytes of codes", "\(codes.byteCount)")
        let blocks = (shape.count + state.blockSize - 1) / state.blockSize
        try checkMap(source, QuantizedNames.quantMap, state.codebook.values)
        let bytes = Tensor(storage: codes.storage, byteOffset: codes.byteOffset, dtype: .uint8, shape: [byteCount])
        return FourBitWeight(
            format: state.format, outFeatures: StoredWeightReader.rows(shape), inFeatures: shape[shape.rank - 1],
            codes: try place(bytes),
            scales: try scales(source, state, blocks: blocks), sourceDType: state.dtype)
    }

    private func scales(_ source: KeyMatching.WeightSource, _ state: QuantState, blocks: Int) throws -> BlockScales {
        let (absmax, absmaxKey) = try companion(QuantizedNames.absmax, of: source)
        let isMXFP4 = state.codebook == .mxfp4
        let dtype: DType = state.nestedOffset == nil && !isMXFP4 ? .float32 : .uint8
        try require(
            absmax.dtype == dtype && absmax.count == blocks, absmaxKey, "\(blocks) scales of type \(dtype)",
            "\(absmax.dtype) \(absmax.shape)")
        if isMXFP4 {
            try require(state.blockSize == 32, absmaxKey, "blocks of 32", "\(state.blockSize)")
            try require(!absmax.hostElements(UInt8.self).contains(255), absmaxKey, "exponents below 255", "255, which is NaN")
            return .exponents(try place(absmax.viewed(as: [blocks])))
        }
        guard let offset = state.nestedOffset else {
            return .plain(try place(absmax.viewed(as: [blocks])))
        }
        let (nested, nestedKey) = try companion(QuantizedNames.nestedAbsmax, of: source)
        let groups = (blocks + FourBitFormat.nestedBlockSize - 1) / FourBitFormat.nestedBlockSize
        try require(
            nested.dtype == .float32 && nested.count == groups, nestedKey, "\(groups) float32 second-level scales",
            "\(nested.dtype) \(nested.shape)")
        try checkMap(source, QuantizedNames.nestedQuantMap, NestedScales.dynamicMap)
        return .nested(
            NestedScales(
                codes: try place(absmax.viewed(as: [blocks])), absmax: try place(nested.viewed(as: [groups])), offset: offset))
    }

    private func quantState(_ source: KeyMatching.WeightSource) throws -> (state: QuantState, key: String) {
        for codebook in FourBitFormat.Codebook.allCases {
            guard let key = source.companions[QuantizedNames.quantState(codebook)] else { continue }
            let state: QuantState
            do {
                state = try QuantState(parsing: try checkpoint.tensor(key).hostBytes, name: key)
            } catch let error as QuantStateError {
                throw LoadError.malformedQuantization(
                    tensor: key, file: file(of: key), expected: error.expected, found: error.found)
            }
            try require(state.codebook == codebook, key, codebook.rawValue, state.codebook.rawValue)
            return (state, key)
        }
        throw LoadError.missingCompanion(
            tensor: source.key, companion: "its quant_state", file: file(of: source.key))
    }

    /// Only the standard table is supported. Another one would be misread silently.
    private func checkMap(_ source: KeyMatching.WeightSource, _ ending: String, _ standard: [Float]) throws {
        guard let key = source.companions[ending] else { return }
        let map = try checkpoint.tensor(key)
        let isStandard =
            map.dtype == .float32 && map.count == standard.count
            && zip(map.hostElements(Float.self), standard).allSatisfy { abs($0 - $1) <= 1e-6 }
        try require(isStandard, key, "the standard table of \(standard.count) values", "another")
    }

    private func companion(_ ending: String, of source: KeyMatching.WeightSource) throws -> (tensor: Tensor, key: String) {
        guard let key = source.companions[ending] else {
            throw LoadError.missingCompanion(tensor: source.key, companion: ending, file: file(of: source.key))
        }
        return (try checkpoint.tensor(key), key)
    }

    private func file(of key: String) -> String { checkpoint.descriptor(key)?.file.path ?? "the checkpoint" }

    private func require(
        _ condition: Bool, _ tensor: String, _ expected: @autoclosure () -> String, _ found: @autoclosure () -> String
    ) throws {
        guard condition else {
            throw LoadError.malformedQuantization(
                tensor: tensor, file: file(of: tensor), expected: expected(), found: found())
        }
    }
}
