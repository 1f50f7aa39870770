package import NibbleCore

/// The sizes from which everything follows that a decoder keeps between calls: caches, index buffers, activations, workspace.
package struct SessionShape: Sendable {
    /// R: sequences side by side.
    package var rows: Int
    /// Tokens that a call may have, all rows together.
    package var chunkTokens: Int
    /// Positions that a row can reach.
    package var context: Int
    /// Which layers share block tables, and the physical blocks of each.
    package var layout: CacheLayout
    package var cacheFormat: KeyValueFormat

    package init(rows: Int, chunkTokens: Int, context: Int, layout: CacheLayout, cacheFormat: KeyValueFormat) {
        self.rows = rows
        self.chunkTokens = chunkTokens
        self.context = context
        self.layout = layout
        self.cacheFormat = cacheFormat
    }

    package var blocksPerRow: Int { max(KeyValueGeometry.blocks(for: context), 1) }

    var limits: IndexBuffers.Limits {
        .init(
            tokens: chunkTokens, rows: rows, blocksPerRow: blocksPerRow, tables: layout.keyValueTables,
            hasStates: layout.stateTable != nil)
    }

    /// Whether buffers of this shape serve a session of `other` as well.
    func serves(_ other: SessionShape) -> Bool {
        rows == other.rows && chunkTokens >= other.chunkTokens && context >= other.context && cacheFormat == other.cacheFormat
            && layout.kinds == other.layout.kinds && layout.tableOfLayer == other.layout.tableOfLayer
            && zip(layout.blocks, other.layout.blocks).allSatisfy { $0 >= $1 }
    }
}
