import NibbleCore

/// How the layers of a stack share block tables: layers with the same window share one, and all recurrent layers another.
///
/// The table of a window keeps only the blocks that a row's next tokens can see and reuses the others. Where windows and full
/// attention mix, the table of the full layers keeps everything. A table of states has a few blocks a row, however long rows are.
package struct CacheLayout: Sendable {
    /// What the blocks of each table hold. A table of states is the last.
    package let kinds: [CacheKind]
    /// The table of each layer's keys and values; of a layer without attention, that of its states.
    package let tableOfLayer: [Int]
    /// Physical blocks of each table's caches.
    package let blocks: [Int]

    /// One table that keeps everything.
    package init(blocks: Int, layers: Int) {
        kinds = [.full]
        tableOfLayer = Array(repeating: 0, count: layers)
        self.blocks = [blocks]
    }

    /// - Parameters:
    ///   - capacity: tokens of a row that blocks are counted for.
    ///   - limit: tokens that a row may grow to; `nil`: `capacity`. A window that reaches further keeps every position.
    package init(_ layers: [LayerDescription], rows: Int, capacity: Int, limit: Int? = nil, chunkTokens: Int) {
        self.init(layers, limit: limit ?? capacity) {
            CacheBlocks.count($0, rows: rows, capacity: capacity, chunkTokens: chunkTokens)
        }
    }

    /// - Parameters:
    ///   - limit: tokens that a row may grow to. A window that reaches further keeps every position.
    ///   - count: blocks of a table of this kind.
    init(_ layers: [LayerDescription], limit: Int, blocks count: (CacheKind) -> Int) {
        var kinds: [CacheKind] = []
        let tables = layers.map { layer -> Int? in
            guard let attention = layer.selfAttention else { return nil }
            let kind = attention.window.flatMap { $0 < limit ? .window($0) : nil } ?? CacheKind.full
            if let place = kinds.firstIndex(of: kind) { return place }
            kinds.append(kind)
            return kinds.count - 1
        }
        if layers.contains(where: { $0.recurrence != nil }) { kinds.append(.state) }
        if kinds.isEmpty { kinds = [.full] }
        self.kinds = kinds
        tableOfLayer = tables.map { [last = kinds.count - 1] in $0 ?? last }
        blocks = kinds.map(count)
    }

    /// What a pool has to know of the tables.
    var tables: [CacheTable] { zip(kinds, blocks).map { CacheTable($0, blockCount: $1) } }

    /// The number of the table of states; `nil` if no layer is recurrent.
    package var stateTable: Int? { kinds.firstIndex(of: .state) }

    /// How many tables hold keys and values.
    var keyValueTables: Int { kinds.count - (stateTable == nil ? 0 : 1) }
}

extension CacheLayout {
    init(_ other: CacheLayout, blocks: [Int]) {
        kinds = other.kinds
        tableOfLayer = other.tableOfLayer
        self.blocks = blocks
    }

    /// The same tables with `count` more blocks each.
    func adding(blocks count: Int) -> CacheLayout { CacheLayout(self, blocks: blocks.map { $0 + count }) }
}

/// The size of a cache in blocks.
package enum CacheBlocks {
    /// How many tokens a row with a window can always be rolled back. Drafts are seldom longer.
    package static let rollback = 64

    /// Positions before a row's next one that are kept for layers with this window.
    package static func kept(_ window: Int) -> Int { window - 1 + rollback }

    /// Blocks that `rows` rows of up to `capacity` tokens need in a layer.
    ///
    /// - Parameters:
    ///   - window: how many of the last keys the layer sees; `nil`: all.
    ///   - chunkTokens: tokens that are appended at once, all rows together.
    package static func count(rows: Int, capacity: Int, window: Int?, chunkTokens: Int) -> Int {
        let all = rows * max(KeyValueGeometry.blocks(for: capacity), 1)
        guard let window else { return all }
        // The kept positions and the new ones may begin and end anywhere within a block.
        let windowed = rows * (KeyValueGeometry.blocks(for: kept(window)) + 2) + KeyValueGeometry.blocks(for: chunkTokens)
        return min(all, windowed)
    }

    /// As ``count(rows:capacity:window:chunkTokens:)``, of any kind of table.
    package static func count(_ kind: CacheKind, rows: Int, capacity: Int, chunkTokens: Int) -> Int {
        switch kind {
        case .full: count(rows: rows, capacity: capacity, window: nil, chunkTokens: chunkTokens)
        case .window(let window): count(rows: rows, capacity: capacity, window: window, chunkTokens: chunkTokens)
        case .state: rows * StateTable.blocksPerRow
        }
    }

    /// Tokens that a session with these sizes feeds at once.
    package static func chunkTokens(_ limit: Int, rows: Int, capacity: Int) -> Int {
        max(rows, min(limit, rows * capacity))
    }
}
