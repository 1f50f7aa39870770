internal import CNibbleCPU
internal import NibbleCore

/// The layers of a mixture's experts as the C kernels address them.
struct CPUExpertTable: @unchecked Sendable {
    /// The descriptions of one layer group of every expert; m layers each.
    struct Group {
        /// [X × m]: columns are those of one expert's row.
        let layers: [nibble_linear_layer]
        let layersPerExpert: Int
        let inFeatures: Int
        let outFeatures: Int
        let format: WeightFormat
        let arithmetic: LinearArithmetic
    }

    /// `nil` where the experts' layers multiply their input in different forms.
    let gateUp: Group?
    let down: Group?

    init(_ experts: [Expert], on backend: CPUBackend) throws {
        gateUp = try CPUExpertTable.group(experts.map(\.gateUp), backend)
        down = try CPUExpertTable.group(experts.map { LinearGroup([$0.down]) }, backend)
    }

    private static func group(_ groups: [LinearGroup], _ backend: CPUBackend) throws -> Group? {
        guard let first = groups.first, let layer = first.layers.first else { return nil }
        let isUniform = groups.allSatisfy { group in
            group.layers.count == first.layers.count && group.outFeatures == first.outFeatures
                && group.layers.allSatisfy {
                    $0.weight.format == layer.weight.format && $0.arithmetic == layer.arithmetic
                        && $0.inFeatures == layer.inFeatures
                }
        }
        guard isUniform else { return nil }
        var layers: [nibble_linear_layer] = []
        for group in groups {
            var column = 0
            for layer in group.layers {
                layers.append(try backend.description(of: layer, column: column))
                column += layer.outFeatures
            }
        }
        return Group(
            layers: layers, layersPerExpert: first.layers.count, inFeatures: layer.inFeatures, outFeatures: first.outFeatures,
            format: layer.weight.format, arithmetic: layer.arithmetic)
    }
}

extension ExpertSet {
    /// The table of these experts, made at the first call.
    func table(on backend: CPUBackend) throws -> CPUExpertTable {
        try deviceTable.withLock { stored in
            if let table = stored as? CPUExpertTable { return table }
            let table = try CPUExpertTable(experts, on: backend)
            stored = table
            return table
        }
    }
}
