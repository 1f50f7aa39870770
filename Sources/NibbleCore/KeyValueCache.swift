/// The shape of one layer's key/value cache.
///
/// The cache is block-wise: position p of a row lies in slot p mod ``blockSize`` of block `blockTable[row][p / blockSize]`.
/// A contiguous cache is the identity table; beams, prefix sharing and sliding windows are other tables.
public struct KeyValueGeometry: Sendable, Hashable {
    /// Positions a block holds.
    public static let blockSize = 32

    public let heads: Int
    /// D of keys
    public let keySize: Int
    /// D of values
    public let valueSize: Int
    public let format: KeyValueFormat

    public init(heads: Int, keySize: Int, valueSize: Int, format: KeyValueFormat) {
        self.heads = heads
        self.keySize = keySize
        self.valueSize = valueSize
        self.format = format
    }

    /// Bytes of `blocks` blocks, keys and values together.
    public func byteCount(blocks: Int) -> Int {
        blocks * heads * KeyValueGeometry.blockSize * (format.byteCount(keySize) + format.byteCount(valueSize))
    }

    /// Elements' dtype in ``KeyValueCache``: uint8 where they are codes.
    public var dtype: DType {
        switch format {
        case .dense(let dtype): dtype
        case .quantized: .uint8
        }
    }

    public var quantization: KeyValueQuantization? {
        if case .quantized(let quantization) = format { quantization } else { nil }
    }

    /// The shape of `blocks` blocks of keys (`size` = ``keySize``) or values.
    public func shape(blocks: Int, size: Int) -> Shape {
        [blocks, heads, KeyValueGeometry.blockSize, format.byteCount(size) / dtype.byteCount]
    }

    /// Blocks that hold `positions` positions.
    public static func blocks(for positions: Int) -> Int { (positions + blockSize - 1) / blockSize }
}

/// One layer's keys and values: [blocks, heads, blockSize, D], or the bytes of ``KeyValueQuantization``, as many for each head
/// of a block.
public struct KeyValueCache: Sendable {
    public let geometry: KeyValueGeometry
    public let keys: Tensor
    public let values: Tensor

    public init(geometry: KeyValueGeometry, keys: Tensor, values: Tensor) {
        self.geometry = geometry
        self.keys = keys
        self.values = values
    }
}

/// Where each token of a call stands: everything that changes from step to step, as device buffers, so that one captured
/// graph serves every step. Rows are ragged; there is no padding.
public struct BatchIndices: Sendable {
    /// int32 [T]
    public let tokens: Tensor
    /// int32 [T]: index within its row, which is also its place in the cache.
    public let positions: Tensor
    /// int32 [T]: the row it belongs to.
    public let rows: Tensor
    /// int32 [R + 1]: row r's tokens are `queryOffsets[r] ..< queryOffsets[r + 1]`.
    public let queryOffsets: Tensor
    /// int32 [R]: keys a row holds once this call has written its own.
    public let lengths: Tensor
    /// int32 [R, B]: physical block of each logical block.
    public let blockTable: Tensor

    /// T
    public let tokenCount: Int
    /// R
    public let rowCount: Int
    /// Upper bound of the tokens a row has in this call; sizes launches, never results.
    public let maximumQueryLength: Int
    /// Upper bound of ``lengths``; sizes launches, never results.
    public let maximumLength: Int

    public init(
        tokens: Tensor, positions: Tensor, rows: Tensor, queryOffsets: Tensor, lengths: Tensor, blockTable: Tensor,
        tokenCount: Int, rowCount: Int, maximumQueryLength: Int, maximumLength: Int
    ) {
        self.tokens = tokens
        self.positions = positions
        self.rows = rows
        self.queryOffsets = queryOffsets
        self.lengths = lengths
        self.blockTable = blockTable
        self.tokenCount = tokenCount
        self.rowCount = rowCount
        self.maximumQueryLength = maximumQueryLength
        self.maximumLength = maximumLength
    }
}
