import NibbleCore

/// How the layers of a stack share block tables: layers with the same window share one.
///
/// The table of a window keeps only the blocks that a row's next tokens can see and reuses the others. Where windows and full
/// attention mix, the table of the full layers keeps everything.
package struct CacheLayout: Sendable {
    /// The window of each table; `nil`: every position is kept.
    package let windows: [Int?]
    package let tableOfLayer: [Int]
    /// Physical blocks of each table's caches.
    package let blocks: [Int]

    /// One table that keeps everything.
    package init(blocks: Int, layers: Int) {
        windows = [nil]
        tableOfLayer = Array(repeating: 0, count: layers)
        self.blocks = [blocks]
    }

    /// - Parameters:
    ///   - capacity: tokens of a row that blocks are counted for.
    ///   - limit: tokens that a row may grow to; `nil`: `capacity`. A window that reaches further keeps every position.
    package init(_ layers: [LayerDescription], rows: Int, capacity: Int, limit: Int? = nil, chunkTokens: Int) {
        self.init(layers, limit: limit ?? capacity) {
            CacheBlocks.count(rows: rows, capacity: capacity, window: $0, chunkTokens: chunkTokens)
        }
    }

    /// - Parameters:
    ///   - limit: tokens that a row may grow to. A window that reaches further keeps every position.
    ///   - count: blocks of a table with this window.
    init(_ layers: [LayerDescription], limit: Int, blocks count: (_ window: Int?) -> Int) {
        var windows: [Int?] = []
        tableOfLayer = layers.map { layer in
            let window = layer.attention.window.flatMap { $0 < limit ? $0 : nil }
            if let place = windows.firstIndex(of: window) { return place }
            windows.append(window)
            return windows.count - 1
        }
        if windows.isEmpty { windows = [nil] }
        self.windows = windows
        blocks = windows.map(count)
    }

    /// What a pool has to know of the tables.
    var tables: [CacheTable] {
        zip(windows, blocks).map { window, count in CacheTable(window.map { .window($0) } ?? .full, blockCount: count) }
    }
}

extension CacheLayout {
    init(_ other: CacheLayout, blocks: [Int]) {
        windows = other.windows
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

    /// Tokens that a session with these sizes feeds at once.
    package static func chunkTokens(_ limit: Int, rows: Int, capacity: Int) -> Int {
        max(rows, min(limit, rows * capacity))
    }
}
