import NibbleCore

/// Finds the weights that a checkpoint holds in a ``StoredFormat``, by the names and headers of their tensors.
struct StoredWeights {
    /// By the name that the dense weight has.
    private(set) var weights: [ByteText: any StoredWeight] = [:]
    /// Weights whose tensors do not fit each other, by the same name.
    private(set) var failures: [ByteText: CheckpointError] = [:]
    /// Tensors that are part of a weight, or say how activations or caches are quantized.
    private(set) var hidden: Set<ByteText> = []

    private let checkpoint: any Checkpoint
    private let scheme: StoredFormat.Scheme

    init(_ checkpoint: any Checkpoint, _ format: StoredFormat) {
        self.checkpoint = checkpoint
        scheme = format.scheme
        for name in checkpoint.names {
            if StoredWeights.activationEndings.contains(where: name.hasByteSuffix) { hidden.insert(ByteText(name)) }
            guard let dense = denseName(name) else { continue }
            do throws(CheckpointError) {
                guard let weight = try weight(dense, codes: name) else { continue }
                weights[dense] = weight
                hidden.formUnion(weight.tensors.lazy.map { ByteText($0) })
            } catch {
                failures[dense] = error
                hidden.insert(ByteText(name))
            }
            for ending in StoredWeights.weightEndings { hidden.insert(ByteText(dense + ending)) }
            let module = String(dense.dropLast(dense.hasByteSuffix(".weight") ? "weight".count : 0))
            for ending in StoredWeights.moduleEndings { hidden.insert(ByteText(module + ending)) }
        }
    }

    /// Endings of tensors about activations and caches, which are not quantized here.
    private static let activationEndings = [
        "activation_scale", ".input_scale", ".input_global_scale", ".input_zero_point", ".input_scale_ub", ".output_scale",
        ".k_scale", ".v_scale", ".q_scale", ".prob_scale", ".pre_quant_scale",
    ]
    /// What may stand beside a weight.
    private static let weightEndings = [
        "_scale_inv", "_scale", "_scale_2", "_zero_point", "_packed", "_shape", "_global_scale", "_g_idx", "_blocks", "_scales",
    ]
    private static let moduleEndings = ["qweight", "qzeros", "scales", "g_idx"]

    /// The name of the dense weight, if `name` is that of a tensor of codes.
    private func denseName(_ name: String) -> String? {
        switch scheme {
        case .float8, .modelOpt: return isCoded(name) ? name : nil
        case .compressedTensors:
            if name.hasByteSuffix(".weight_packed") { return String(name.dropLast("_packed".count)) }
            return isCoded(name) ? name : nil
        case .mxfp4: return name.hasByteSuffix("_blocks") ? String(name.dropLast("_blocks".count)) : nil
        case .awq, .gptq: return name.hasByteSuffix(".qweight") ? String(name.dropLast("qweight".count)) + "weight" : nil
        }
    }

    private func isCoded(_ name: String) -> Bool {
        guard let found = checkpoint.descriptor(name), found.shape.rank >= 2 else { return false }
        guard !name.hasByteSuffix("_scale") && !name.hasByteSuffix("_scale_inv") else { return false }
        switch found.dtype {
        case .float8E4M3, .float8E5M2: return true
        case .int8, .uint8: return name.hasByteSuffix(".weight") || has(name + "_scale") || has(name + "_scale_inv")
        default: return false
        }
    }

    // MARK: Forms

    private func weight(_ dense: String, codes: String) throws(CheckpointError) -> (any StoredWeight)? {
        switch scheme {
        case .float8(let block): return try byteCoded(codes, block: block)
        case .modelOpt(let block):
            return checkpoint.descriptor(codes)?.dtype == .uint8 ? try modelOptFloat4(codes) : try byteCoded(codes, block: block)
        case .compressedTensors(let groups): return try compressedTensors(dense, codes: codes, groups)
        case .mxfp4: return try mxfp4(dense, blocks: codes)
        case .awq(let groupSize): return try awq(dense, codes: codes, groupSize: groupSize)
        case .gptq(let parameters): return try gptq(dense, codes: codes, parameters)
        }
    }

    private func byteCoded(
        _ name: String, block: (rows: Int, columns: Int)?, zeroPoints: String? = nil
    ) throws(CheckpointError) -> ByteCodedWeight {
        let shape = try found(name).shape
        guard let scales = [name + "_scale_inv", name + "_scale"].first(where: has) else {
            throw malformed(name, "a scale beside it, \(name)_scale_inv or \(name)_scale", "none")
        }
        let grid = try grid(scales, StoredScales.floats, of: shape, block: block)
        if let zeroPoints { try require(zeroPoints, [.int8], found(scales).shape) }
        return ByteCodedWeight(shape: shape, codes: name, scales: scales, grid: grid, zeroPoints: zeroPoints)
    }

    private func compressedTensors(
        _ dense: String, codes: String, _ groups: [CompressedTensorsGroup]
    ) throws(CheckpointError) -> any StoredWeight {
        let module = String(dense.dropLast(dense.hasByteSuffix(".weight") ? ".weight".count : 0))
        guard let group = CompressedTensorsGroup.group(of: module, groups) else {
            throw malformed(codes, "a group of config_groups with \(module) among its targets", "none")
        }
        guard codes != dense else {
            let zeroPoints = dense + "_zero_point"
            return try byteCoded(codes, block: group.block, zeroPoints: !group.isSymmetric && has(zeroPoints) ? zeroPoints : nil)
        }
        return group.isFloat ? try packedFloat4(dense, codes: codes) : try packedIntegers(dense, codes: codes, group)
    }

    /// `weight_packed` of NVFP4 and MXFP4.
    private func packedFloat4(_ dense: String, codes: String) throws(CheckpointError) -> PackedFloat4Weight {
        let arePowers = (try? found(dense + "_scale").dtype) == .uint8
        guard !arePowers else { return try float4(codes, scales: dense + "_scale", .uint8, group: 32, global: nil) }
        return try float4(
            codes, scales: dense + "_scale", .float8E4M3, group: 16, global: (dense + "_global_scale", divides: true))
    }

    private func modelOptFloat4(_ name: String) throws(CheckpointError) -> PackedFloat4Weight {
        try float4(name, scales: name + "_scale", .float8E4M3, group: 16, global: (name + "_scale_2", divides: false))
    }

    private func float4(
        _ codes: String, scales: String, _ dtype: DType, group: Int, global: (name: String, divides: Bool)?
    ) throws(CheckpointError) -> PackedFloat4Weight {
        let packed = try found(codes)
        guard packed.dtype == .uint8, packed.shape.rank == 2 else {
            throw malformed(codes, "uint8 [N, K/2]", "\(packed.dtype) \(packed.shape)")
        }
        let shape: Shape = [packed.shape[0], packed.shape[1] * 2]
        let grid = try grid(scales, [dtype], of: shape, block: (1, group))
        if let global { try require(global.name, [.float32], nil, count: 1) }
        return PackedFloat4Weight(
            shape: shape, codes: codes, scales: scales, grid: grid, arePowers: dtype == .uint8, globalScale: global)
    }

    private func packedIntegers(
        _ dense: String, codes: String, _ group: CompressedTensorsGroup
    ) throws(CheckpointError) -> PackedRowsWeight {
        let packed = try found(codes)
        let shape = try storedShape(dense)
        let perWord = 32 / group.bits
        try require(codes, [.int32], [shape[0], (shape[1] + perWord - 1) / perWord])
        let scales = dense + "_scale"
        let grid = try grid(scales, StoredScales.floats, of: shape, block: group.block)
        let groups = grid.step == 0 ? 1 : try found(scales).shape.last
        var weight = PackedRowsWeight(shape: shape, codes: codes, scales: scales, grid: grid, bits: group.bits)
        if !group.isSymmetric {
            let zeroPoints = dense + "_zero_point"
            if (try? found(zeroPoints).dtype) == .int8 {
                try require(zeroPoints, [.int8], [shape[0], groups])
            } else {
                try require(zeroPoints, [.int32], [(packed.shape[0] + perWord - 1) / perWord, groups])
            }
            weight.zeroPoints = zeroPoints
        }
        if has(dense + "_g_idx") {
            try require(dense + "_g_idx", [.int32], [shape[1]])
            weight.groupIndex = dense + "_g_idx"
        }
        return weight
    }

    /// The dense shape that `weight_shape` holds.
    private func storedShape(_ dense: String) throws(CheckpointError) -> Shape {
        let name = dense + "_shape"
        try require(name, [.int64, .int32], nil, count: 2)
        let tensor = try tensor(name)
        let extents = withExtendedLifetime(tensor) {
            tensor.dtype == .int64 ? tensor.hostElements(Int64.self).map(Int.init) : tensor.hostElements(Int32.self).map(Int.init)
        }
        guard let shape = Shape(validating: extents), shape.count <= Int.max / 8 else {
            throw malformed(name, "two extents", "\(extents)")
        }
        return shape
    }

    private func mxfp4(_ dense: String, blocks: String) throws(CheckpointError) -> MXFP4BlocksWeight {
        let found = try found(blocks)
        guard found.dtype == .uint8, found.shape.rank == 4, found.shape[3] == MXFP4BlocksWeight.blockSize / 2 else {
            throw malformed(blocks, "uint8 [experts, N, K/32, 16]", "\(found.dtype) \(found.shape)")
        }
        let scales = dense + "_scales"
        try require(scales, [.uint8], Shape(found.shape.dimensions.dropLast()))
        return MXFP4BlocksWeight(
            shape: [found.shape[0], found.shape[2] * MXFP4BlocksWeight.blockSize, found.shape[1]], blocks: blocks, scales: scales)
    }

    private func awq(_ dense: String, codes: String, groupSize: Int?) throws(CheckpointError) -> AWQWeight {
        let packed = try found(codes)
        guard packed.dtype == .int32, packed.shape.rank == 2 else {
            throw malformed(codes, "int32 [K, N/8]", "\(packed.dtype) \(packed.shape)")
        }
        let (inner, words) = (packed.shape[0], packed.shape[1])
        let size = groupSize ?? max(inner, 1)
        let groups = (inner + size - 1) / size
        let module = String(dense.dropLast("weight".count))
        try require(module + "qzeros", [.int32], [groups, words])
        try require(module + "scales", StoredScales.floats, [groups, words * 8])
        return AWQWeight(
            shape: [words * 8, inner], codes: codes, zeroPoints: module + "qzeros", scales: module + "scales", groupSize: size)
    }

    private func gptq(
        _ dense: String, codes: String, _ parameters: StoredFormat.GPTQParameters
    ) throws(CheckpointError) -> GPTQWeight {
        let module = String(dense.dropLast("weight".count))
        let (packed, zeros) = (try found(codes), try found(module + "qzeros"))
        guard packed.dtype == .int32, packed.shape.rank == 2, packed.shape[1] > 0 else {
            throw malformed(codes, "int32 [K·bits/32, N]", "\(packed.dtype) \(packed.shape)")
        }
        let outer = packed.shape[1]
        guard zeros.dtype == .int32, zeros.shape.rank == 2 else {
            throw malformed(module + "qzeros", "int32 [groups, N·bits/32]", "\(zeros.dtype) \(zeros.shape)")
        }
        let bits = parameters.bits ?? zeros.shape[1] * 32 / outer
        guard [2, 4, 8].contains(bits) else { throw malformed(module + "qzeros", "2, 4 or 8 bits", "\(bits)") }
        guard outer % (32 / bits) == 0 else {
            throw malformed(codes, "rows of whole words, a multiple of \(32 / bits)", "\(packed.dtype) \(packed.shape)")
        }
        let inner = packed.shape[0] * 32 / bits
        let hasIndex = has(module + "g_idx")
        if hasIndex { try require(module + "g_idx", [.int32], [inner]) }
        let size = parameters.groupSize ?? max(inner, 1)
        let groups = hasIndex || parameters.bits == nil ? zeros.shape[0] : (inner + size - 1) / size
        guard groups > 0 || inner == 0 else {
            throw malformed(module + "qzeros", "a row for each group", "\(zeros.dtype) \(zeros.shape)")
        }
        try require(module + "qzeros", [.int32], [groups, outer * bits / 32])
        try require(module + "scales", StoredScales.floats, [groups, outer])
        return GPTQWeight(
            shape: [outer, inner], codes: codes, zeroPoints: module + "qzeros", scales: module + "scales",
            groupIndex: hasIndex ? module + "g_idx" : nil, bits: bits,
            groupSize: parameters.bits == nil ? (inner + groups - 1) / max(groups, 1) : size, zeroOffset: parameters.zeroOffset)
    }

    // MARK: Tensors

    private func has(_ name: String) -> Bool { checkpoint.descriptor(name) != nil }

    private func found(_ name: String) throws(CheckpointError) -> TensorDescriptor {
        if let descriptor = checkpoint.descriptor(name) { return descriptor }
        // A tensor that the file or the index names, but that cannot be read, has an error of its own.
        _ = try tensor(name)
        throw CheckpointError.noSuchTensor(name: name, files: checkpoint.files.map(\.path))
    }

    private func tensor(_ name: String) throws(CheckpointError) -> Tensor {
        do {
            return try checkpoint.tensor(name)
        } catch let error as CheckpointError {
            throw error
        } catch {
            throw .unreadable(file: checkpoint.path(of: name), reason: "\(error)")
        }
    }

    private func grid(
        _ name: String, _ dtypes: [DType], of shape: Shape, block: (rows: Int, columns: Int)?
    ) throws(CheckpointError) -> ScaleGrid {
        let scales = try found(name)
        let blocks = block.map { " or one for each block of \($0.rows) × \($0.columns)" } ?? ""
        let expected = "\(StoredWeights.list(dtypes)) scales, one for \(shape), one for each row\(blocks)"
        guard dtypes.contains(scales.dtype), let grid = ScaleGrid(scales.shape, of: shape, block: block) else {
            throw malformed(name, expected, "\(scales.dtype) \(scales.shape)")
        }
        return grid
    }

    private func require(
        _ name: String, _ dtypes: [DType], _ shape: Shape?, count: Int? = nil
    ) throws(CheckpointError) {
        let found = try found(name)
        guard dtypes.contains(found.dtype), shape ?? found.shape == found.shape, count ?? found.shape.count == found.shape.count
        else {
            let extent = shape.map { "\($0)" } ?? "of \(count ?? 0) elements"
            throw malformed(name, "\(StoredWeights.list(dtypes)) \(extent)", "\(found.dtype) \(found.shape)")
        }
    }

    private static func list(_ dtypes: [DType]) -> String { dtypes.map(\.rawValue).joined(separator: ", ") }

    private func malformed(_ tensor: String, _ expected: String, _ found: String) -> CheckpointError {
        .malformed(file: checkpoint.path(of: tensor), tensor: tensor, expected: expected, found: found)
    }
}
