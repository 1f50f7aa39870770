/// The chains of tokens whose cache blocks are known, and the blocks that hold them.
///
/// A chain is a path of nodes. A node stands for one block's tokens behind its predecessor, so that equal tokens behind
/// different beginnings are different nodes. In each table a block of the node's contents may be known or not: a window's
/// blocks come and go while the chain stays. A node lives as long as a block, a following node or a sequence needs it, so that
/// its number cannot be mistaken for another's. Hashes only find candidates; tokens and predecessor decide.
struct PrefixIndex: Sendable {
    private let blockSize: Int
    private let hashMask: UInt64
    private let tableCount: Int
    private var nodes: [Node] = []
    private var freeNodes: [Int32] = []
    /// By node, `blockSize` each.
    private var tokens: [Int32] = []
    /// By node, one for each table; ``SequenceBlocks/noBlock`` where none is known.
    private var blocks: [Int32] = []
    /// By table and block: the node whose contents it holds; -1: none.
    private var nodeOfBlock: [[Int32]]
    private var nodesByHash: [UInt64: Int32] = [:]
    /// The nodes that follow a place, for searches by less than a block.
    private var followers: [ChainPlace: [Int32]] = [:]

    private struct Node: Sendable {
        var predecessor: ChainPlace
        var hash: UInt64
        /// Blocks, following nodes and sequences that need it.
        var users: Int32
    }

    init(tables: [CacheTable], blockSize: Int, hashMask: UInt64) {
        self.blockSize = blockSize
        self.hashMask = hashMask
        tableCount = tables.count
        nodeOfBlock = tables.map { Array(repeating: -1, count: $0.blockCount) }
    }

    var nodeCount: Int { nodes.count - freeNodes.count }

    // MARK: Search

    func find(_ content: ArraySlice<Int32>, after place: ChainPlace) -> Int32? {
        guard let node = nodesByHash[hash(content, place)], nodes[Int(node)].predecessor == place,
            held(node).elementsEqual(content)
        else { return nil }
        return node
    }

    /// The node behind `place` that is known in every table and begins with the most of `content`, at least one token, and how
    /// many those are.
    func findBeginning(_ content: ArraySlice<Int32>, after place: ChainPlace) -> (node: Int32, count: Int)? {
        var best: (node: Int32, count: Int)?
        for node in (followers[place] ?? []).prefix(16)
        where (0..<tableCount).allSatisfy({ block(of: node, table: $0) != nil }) {
            let count = zip(held(node), content).prefix { $0 == $1 }.count
            if count > best?.count ?? 0 { best = (node, count) }
        }
        return best
    }

    func predecessor(of place: ChainPlace) -> ChainPlace { place.node.map { nodes[Int($0)].predecessor } ?? place }

    // MARK: Blocks

    func block(of node: Int32, table: Int) -> Int32? {
        let block = blocks[Int(node) * tableCount + table]
        return block == SequenceBlocks.noBlock ? nil : block
    }

    func contains(_ block: Int32, table: Int) -> Bool { nodeOfBlock[table][Int(block)] >= 0 }

    /// - Precondition: neither is known: the node in this table, or the block.
    mutating func setBlock(_ block: Int32, of node: Int32, table: Int) {
        blocks[Int(node) * tableCount + table] = block
        nodeOfBlock[table][Int(block)] = node
        nodes[Int(node)].users += 1
    }

    /// The block gets other contents.
    mutating func forget(_ block: Int32, table: Int) {
        let node = nodeOfBlock[table][Int(block)]
        guard node >= 0 else { return }
        nodeOfBlock[table][Int(block)] = -1
        blocks[Int(node) * tableCount + table] = SequenceBlocks.noBlock
        letGo(.node(node))
    }

    // MARK: Nodes

    /// A new node without blocks. Whoever inserts it has to ``hold(_:)`` its place.
    mutating func insert(_ content: ArraySlice<Int32>, after place: ChainPlace) -> Int32 {
        let new = Node(predecessor: place, hash: hash(content, place), users: 0)
        let node: Int32
        if let free = freeNodes.popLast() {
            node = free
            nodes[Int(node)] = new
            for (offset, token) in content.enumerated() { tokens[Int(node) * blockSize + offset] = token }
        } else {
            node = Int32(nodes.count)
            nodes.append(new)
            tokens += content
            for _ in 0..<tableCount { blocks.append(SequenceBlocks.noBlock) }
        }
        // Of two nodes with one hash, the first is found.
        if nodesByHash[new.hash] == nil { nodesByHash[new.hash] = node }
        followers[place, default: []].append(node)
        hold(place)
        return node
    }

    mutating func hold(_ place: ChainPlace) {
        if let node = place.node { nodes[Int(node)].users += 1 }
    }

    /// Takes ``hold(_:)`` back. What nobody needs goes, from the end of a chain to its beginning.
    mutating func letGo(_ place: ChainPlace) {
        var place = place
        while let node = place.node {
            nodes[Int(node)].users -= 1
            guard nodes[Int(node)].users == 0 else { return }
            place = nodes[Int(node)].predecessor
            remove(node)
        }
    }

    private mutating func remove(_ node: Int32) {
        let (place, hash) = (nodes[Int(node)].predecessor, nodes[Int(node)].hash)
        if nodesByHash[hash] == node { nodesByHash[hash] = nil }
        if var siblings = followers.removeValue(forKey: place) {
            siblings.removeAll { $0 == node }
            if !siblings.isEmpty { followers[place] = siblings }
        }
        freeNodes.append(node)
    }

    private func held(_ node: Int32) -> ArraySlice<Int32> {
        tokens[Int(node) * blockSize..<(Int(node) + 1) * blockSize]
    }

    /// FNV-1a over the place and the tokens.
    private func hash(_ content: ArraySlice<Int32>, _ place: ChainPlace) -> UInt64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        hash = (hash ^ UInt64(bitPattern: place.number)) &* 0x100_0000_01B3
        for token in content { hash = (hash ^ UInt64(UInt32(bitPattern: token))) &* 0x100_0000_01B3 }
        return hash & hashMask
    }
}

/// A place in the index's chains: behind a node, or the beginning under a root.
struct ChainPlace: Sendable, Hashable {
    /// A node's number; below zero: −1 − the root's.
    let number: Int64

    static func node(_ node: Int32) -> ChainPlace { ChainPlace(number: Int64(node)) }
    static func root(_ number: UInt32) -> ChainPlace { ChainPlace(number: -1 - Int64(number)) }

    var node: Int32? { number >= 0 ? Int32(number) : nil }
}
