import NibbleCore

/// How the layers of a stack share block tables: layers that see equally far share one.
///
/// A table whose layers see a window only keeps the blocks that a row's next tokens can see; the others are handed to
/// positions to come. Where windows and full attention mix, the full layers' table keeps everything.
struct CacheLayout: Sendable {
    /// Of each table; `nil`: every position is kept.
    let windows: [Int?]
    let tableOfLayer: [Int]
    /// Physical blocks of each table's caches.
    let blocks: [Int]

    /// One table that keeps everything.
    init(blocks: Int, layers: Int) {
        windows = [nil]
        tableOfLayer = Array(repeating: 0, count: layers)
        self.blocks = [blocks]
    }

    /// - Parameters:
    ///   - capacity: tokens of a row that blocks are counted for.
    ///   - limit: tokens that a row may grow to; `nil`: `capacity`. A window that reaches further keeps every position.
    init(_ layers: [LayerDescription], rows: Int, capacity: Int, limit: Int? = nil, chunkTokens: Int) {
        var windows: [Int?] = []
        tableOfLayer = layers.map { layer in
            let window = layer.attention.window.flatMap { $0 < limit ?? capacity ? $0 : nil }
            if let place = windows.firstIndex(of: window) { return place }
            windows.append(window)
            return windows.count - 1
        }
        if windows.isEmpty { windows = [nil] }
        self.windows = windows
        blocks = windows.map { CacheBlocks.count(rows: rows, capacity: capacity, window: $0, chunkTokens: chunkTokens) }
    }
}

/// The size of a cache in blocks.
package enum CacheBlocks {
    /// How far rows can always be rolled back where a window is all that is kept: as far as drafts usually reach.
    package static let rollback = 64

    /// Positions before a row's next one that are kept for layers with this window.
    static func kept(_ window: Int) -> Int { window - 1 + rollback }

    /// Blocks that `rows` rows of up to `capacity` tokens need in a layer.
    ///
    /// - Parameters:
    ///   - window: how many of the last keys the layer sees; `nil`: all.
    ///   - chunkTokens: tokens that are appended at once, all rows together.
    package static func count(rows: Int, capacity: Int, window: Int?, chunkTokens: Int) -> Int {
        let all = rows * max(KeyValueGeometry.blocks(for: capacity), 1)
        guard let window else { return all }
        // A row's kept positions and its new ones begin and end anywhere in a block.
        let windowed = rows * (KeyValueGeometry.blocks(for: kept(window)) + 2) + KeyValueGeometry.blocks(for: chunkTokens)
        return min(all, windowed)
    }

    /// Tokens that a session with these sizes feeds at once.
    package static func chunkTokens(_ limit: Int, rows: Int, capacity: Int) -> Int {
        max(rows, min(limit, rows * capacity))
    }
}
