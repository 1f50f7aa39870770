/// The shape of one layer's key/value cache.
///
/// The cache is block-wise: position p of a row lies in slot p mod ``blockSize`` of block `blockTable[row][p / blockSize]`.
/// Beams, shared prefixes and sliding windows differ only in their block tables.
package struct KeyValueGeometry: Sendable, Hashable {
    /// Positions a block holds.
    package static let blockSize = 32

    package let heads: Int
    /// D of keys
    package let keySize: Int
    /// D of values
    package let valueSize: Int
    package let format: KeyValueFormat

    package init(heads: Int, keySize: Int, valueSize: Int, format: KeyValueFormat) {
        self.heads = heads
        self.keySize = keySize
        self.valueSize = valueSize
        self.format = format
    }

    /// Bytes of `blocks` blocks, keys and values together.
    package func byteCount(blocks: Int) -> Int {
        blocks * heads * KeyValueGeometry.blockSize * (format.byteCount(keySize) + format.byteCount(valueSize))
    }

    /// Elements' dtype in ``KeyValueCache``: uint8 where they are codes.
    package var dtype: DType {
        switch format {
        case .dense(let dtype): dtype
        case .quantized: .uint8
        }
    }

    package var quantization: KeyValueQuantization? {
        if case .quantized(let quantization) = format { quantization } else { nil }
    }

    /// The shape of `blocks` blocks of keys (`size` = ``keySize``) or values.
    package func shape(blocks: Int, size: Int) -> Shape {
        [blocks, heads, KeyValueGeometry.blockSize, format.byteCount(size) / dtype.byteCount]
    }

    /// Blocks that hold `positions` positions.
    package static func blocks(for positions: Int) -> Int { (positions + blockSize - 1) / blockSize }
}

/// One layer's keys and values: [blocks, heads, blockSize, D], or as many bytes of ``KeyValueQuantization`` for each head of a
/// block.
package struct KeyValueCache: Sendable {
    package let geometry: KeyValueGeometry
    package let keys: Tensor
    package let values: Tensor

    package init(geometry: KeyValueGeometry, keys: Tensor, values: Tensor) {
        self.geometry = geometry
        self.keys = keys
        self.values = values
    }
}

/// The tokens of a call, their positions and their rows. Everything that changes from step to step is a device buffer, so that
/// one captured graph serves every step. Rows are ragged; there is no padding.
package struct BatchIndices: Sendable {
    /// int32 [T]
    package let tokens: Tensor
    /// int32 [T]: each token's position in its row, and in the cache.
    package let positions: Tensor
    /// int32 [T]: the row it belongs to.
    package let rows: Tensor
    /// int32 [R + 1]: row r's tokens are `queryOffsets[r] ..< queryOffsets[r + 1]`.
    package let queryOffsets: Tensor
    /// int32 [R]: keys of each row, those that this call writes included.
    package let lengths: Tensor
    /// int32 [R, B]: physical block of each logical block.
    package let blockTable: Tensor

    /// T
    package let tokenCount: Int
    /// R
    package let rowCount: Int
    /// Upper bound of the tokens a row has in this call. Sizes launches; results do not depend on it.
    package let maximumQueryLength: Int
    /// Upper bound of ``lengths``. Sizes launches; results do not depend on it.
    package let maximumLength: Int
    /// The same tokens in pieces that attention runs one by one, in the order of the tokens; empty: all at once. Rows that decode
    /// are apart from prompts, whose length would size their launches.
    package var parts: [BatchIndices] = []

    package init(
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
