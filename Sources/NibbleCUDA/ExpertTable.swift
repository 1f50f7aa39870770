internal import CNibbleCUDA
internal import NibbleCore

/// The layers of a mixture's experts in device memory, for kernels that choose an expert by its number.
struct ExpertTable: Sendable {
    /// NibbleLinearLayer [X, layers of a group]
    let gateUp: Tensor
    let down: Tensor
    /// Whether layer i of every expert has the form of layer i of the first one.
    let isUniform: Bool

    /// - Throws: ``BackendError`` where it cannot be allocated, or while a graph is recorded.
    init(_ experts: [Expert], on backend: CUDABackend) throws {
        gateUp = try ExpertTable.table(experts.map { Array($0.gateUp.layers) }, on: backend)
        down = try ExpertTable.table(experts.map { [$0.down] }, on: backend)
        isUniform =
            ExpertTable.isUniform(experts.map { Array($0.gateUp.layers) }) && ExpertTable.isUniform(experts.map { [$0.down] })
    }

    private static func table(_ groups: [[Linear]], on backend: CUDABackend) throws -> Tensor {
        var layers: [NibbleLinearLayer] = []
        for group in groups {
            var column = 0
            for layer in group {
                layers.append(NibbleLinearLayer(layer, firstColumn: column))
                column += layer.outFeatures
            }
        }
        let bytes = layers.withUnsafeBytes { [UInt8]($0) }
        let table = try backend.allocate(.uint8, [bytes.count])
        try backend.copy(.host(bytes, .uint8, [bytes.count]), to: table)
        return table
    }

    private static func isUniform(_ groups: [[Linear]]) -> Bool {
        guard let first = groups.first, first.count <= Int(NIBBLE_MAX_LAYERS) else { return false }
        // Any dtype will do: kinds are compared with one another.
        let kinds = first.map { LinearKind($0, input: .float32) }
        return groups.allSatisfy { group in
            group.count == first.count
                && zip(group, first).allSatisfy { $0.outFeatures == $1.outFeatures && $0.inFeatures == $1.inFeatures }
                && zip(group, kinds).allSatisfy { LinearKind($0, input: .float32) == $1 && $1 == kinds[0] }
        }
    }
}

extension ExpertSet {
    /// The table of these experts, made at the first call.
    func table(on backend: CUDABackend) throws -> ExpertTable {
        try deviceTable.withLock { stored in
            if let table = stored as? ExpertTable { return table }
            let table = try ExpertTable(experts, on: backend)
            stored = table
            return table
        }
    }
}
