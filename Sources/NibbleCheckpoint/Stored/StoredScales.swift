import NibbleCore

/// The scales of a stored weight, as float32 whatever dtype they have.
struct StoredScales: Sendable {
    let values: [Float]

    /// - Parameters:
    ///   - name: of the tensor.
    ///   - rows: of its outermost axis; all by default.
    ///   - arePowers: bytes are exponents (E8M0).
    /// - Throws: ``CheckpointError/malformed(file:tensor:expected:found:)`` where one is NaN or infinite.
    init(
        _ name: String, rows: Range<Int>? = nil, _ checkpoint: any Checkpoint, _ kernels: StoredKernels, arePowers: Bool = false
    ) throws {
        let whole = try checkpoint.tensor(name)
        let tensor = rows.map(whole.rows) ?? whole
        func malformed(_ expected: String, _ found: String) -> CheckpointError {
            .malformed(file: checkpoint.path(of: name), tensor: name, expected: expected, found: found)
        }
        guard let values = kernels.scales(tensor, arePowers: arePowers) else {
            throw malformed("scales", "\(tensor.dtype)")
        }
        self.values = values
        guard let index = kernels.firstNonFinite(values) else { return }
        let before = (rows?.lowerBound ?? 0) * (tensor.count / max(rows?.count ?? 1, 1))
        // The largest exponent stands for NaN.
        throw malformed("finite scales", "\(arePowers ? .nan : values[index]) at \(before + index)")
    }

    /// What scales may be stored in.
    static let floats: [DType] = [.float32, .float16, .bfloat16]
}

/// Which scale belongs to which element of [N, K] or [E, N, K]: one for each block of a grid.
struct ScaleGrid: Sendable, Equatable {
    /// Rows of one matrix (N).
    let rows: Int
    /// Rows and columns that share a scale.
    let rowBlock: Int
    let columnBlock: Int
    private let matrixStride: Int
    private let rowStride: Int
    private let columnStride: Int

    /// Fits scales of shape `scales` to a weight. Scales may be one for all, one for each matrix, one for each row, or one for each
    /// block. `nil` for any other shape.
    /// - Parameter block: rows and columns of a block. Blocks are counted from 0; the last may be short.
    init?(_ scales: Shape, of weight: Shape, block: (rows: Int, columns: Int)?) {
        guard weight.rank == 2 || weight.rank == 3 else { return nil }
        let matrices = weight.rank == 3 ? weight[0] : 1
        let (rows, columns) = (weight[weight.rank - 2], weight.last)
        guard let extents = ScaleGrid.extents(scales, of: weight, matrices: matrices) else { return nil }
        guard let along = ScaleGrid.split(rows, into: extents[1], block: block?.rows),
            let across = ScaleGrid.split(columns, into: extents[2], block: block?.columns)
        else { return nil }
        self.rows = max(rows, 1)
        (rowBlock, columnBlock) = (along, across)
        columnStride = extents[2] > 1 ? 1 : 0
        rowStride = extents[1] > 1 ? extents[2] : 0
        matrixStride = extents[0] > 1 ? extents[1] * extents[2] : 0
    }

    /// A scale for each block of `block` columns in each row of one matrix.
    init(rows: Int, of columns: Int, block: Int) {
        self.rows = max(rows, 1)
        (rowBlock, columnBlock) = (1, block)
        (matrixStride, rowStride, columnStride) = (0, (columns + block - 1) / block, 1)
    }

    /// The scales' shape as [E, N, K].
    private static func extents(_ scales: Shape, of weight: Shape, matrices: Int) -> [Int]? {
        if scales.count == 1 { return [1, 1, 1] }
        if scales.rank == weight.rank {
            let extents = weight.rank == 3 ? scales.dimensions : [1] + scales.dimensions
            return extents[0] == 1 || extents[0] == matrices ? extents : nil
        }
        guard scales.rank == 1 else { return nil }
        if weight.rank == 3 { return scales[0] == matrices ? [matrices, 1, 1] : nil }
        return scales[0] == weight[0] ? [1, weight[0], 1] : nil
    }

    /// How many of `extent` elements share one of `count` scales.
    private static func split(_ extent: Int, into count: Int, block: Int?) -> Int? {
        if let block, count == (extent + block - 1) / block { return block }
        if count == 1 { return max(extent, 1) }
        return count == extent ? 1 : nil
    }

    /// The index of the scale at the first column of a row, which is counted over all matrices.
    func start(ofRow row: Int) -> Int {
        let (matrix, within) = row.quotientAndRemainder(dividingBy: rows)
        return matrix * matrixStride + within / rowBlock * rowStride
    }

    /// The next column block's scale is this far away.
    var step: Int { columnStride }
}

extension Checkpoint {
    /// The file that holds a tensor, for messages.
    func path(of name: String) -> String { descriptor(name)?.file.path ?? files.first?.path ?? "the checkpoint" }
}
