import NibbleCore

/// The factors of several adapters for one layer, stacked along the rank, on the host.
struct LowRankStack {
    /// Dtypes that adapters' matrices may have.
    static let dtypes: Set<DType> = [.float32, .float16, .bfloat16]

    private let a: Tensor
    private let b: Tensor
    private var scales: [Float] = []
    private var adapters: [Int32] = []
    private let biases: Tensor?
    private let gains: Tensor?

    /// - Parameters:
    ///   - parts: at least one; columns ascend.
    ///   - limit: columns there are.
    init(_ parts: [(column: Int, factors: LowRankFactors)], limit: Int) {
        let ranks = parts.reduce(0) { $0 + LowRankStack.padded($1.factors.rank) }
        let (n, k) = (parts[0].factors.b.shape[0], parts[0].factors.a.shape[1])
        a = .host(LowRankStack.joined(parts.map(\.factors.a.dtype)), [ranks, k])
        b = .host(LowRankStack.joined(parts.map(\.factors.b.dtype)), [n, ranks])
        for matrix in [a, b] { matrix.mutableHostBytes.initializeMemory(as: UInt8.self, repeating: 0) }
        var first = 0
        for (column, factors) in parts {
            let padded = LowRankStack.padded(factors.rank)
            LowRankStack.copy(factors.a, to: a, row: first)
            LowRankStack.copy(factors.b, to: b, column: first)
            scales += (0..<padded).map { $0 < factors.rank ? factors.scale : 0 }
            adapters += Array(repeating: Int32(column), count: padded)
            first += padded
        }
        biases = LowRankStack.table(parts.map { ($0.column, $0.factors.bias) }, filler: 0, [limit, n])
        gains = LowRankStack.table(parts.map { ($0.column, $0.factors.gain) }, filler: 1, [limit, n])
    }

    /// - Throws: `BackendError` where memory runs out.
    func lowRank(on backend: any Backend) throws -> LowRank {
        func placed(_ tensor: Tensor) throws -> Tensor {
            let copy = try backend.allocate(tensor.dtype, tensor.shape)
            try backend.copy(tensor, to: copy)
            return copy
        }
        return LowRank(
            a: try placed(a), b: try placed(b), scales: try placed(.host(scales, .float32, [scales.count])),
            adapters: try placed(.host(adapters, .int32, [adapters.count])), biases: try biases.map(placed),
            gains: try gains.map(placed))
    }

    private static func padded(_ rank: Int) -> Int { (rank + LowRank.rankUnit - 1) / LowRank.rankUnit * LowRank.rankUnit }

    /// The dtype that holds values of all.
    private static func joined(_ dtypes: [DType]) -> DType { Set(dtypes).count == 1 ? dtypes[0] : .float32 }

    /// Rows of an adapter's vectors, `filler` for those that have none; `nil` if none has one.
    private static func table(_ vectors: [(Int, Tensor?)], filler: Float, _ shape: Shape) -> Tensor? {
        guard vectors.contains(where: { $0.1 != nil }) else { return nil }
        let table = Tensor.host(.float32, shape)
        table.mutableHostElements(Float.self).initialize(repeating: filler)
        for case (let row, let vector?) in vectors { copy(vector, to: table, row: row) }
        return table
    }

    /// Writes `source` into `target` from a row or a column on, in the target's dtype.
    private static func copy(_ source: Tensor, to target: Tensor, row: Int = 0, column: Int = 0) {
        switch (source.dtype, target.dtype) {
        case (.float32, _): copy(source, target, row, column) { (value: Float) in value }
        case (.float16, .float32): copy(source, target, row, column) { (value: Float16) in Float(value) }
        case (.bfloat16, .float32): copy(source, target, row, column) { (value: BFloat16) in Float(value) }
        default: copy(source, target, row, column) { (value: UInt16) in value }
        }
    }

    private static func copy<From: BitwiseCopyable, To: BitwiseCopyable>(
        _ source: Tensor, _ target: Tensor, _ row: Int, _ column: Int, _ convert: (From) -> To
    ) {
        let (from, to) = (source.hostElements(From.self), target.mutableHostElements(To.self))
        let (width, stride) = (source.shape.last, target.shape.last)
        for index in 0..<source.count { to[(row + index / width) * stride + column + index % width] = convert(from[index]) }
    }
}
