import NibbleCore

/// A group of `config_groups` of compressed-tensors: modules, and how their weights are stored.
struct CompressedTensorsGroup: Sendable {
    let name: String
    /// Names or classes of modules; after `re:` a regular expression.
    let targets: [String]
    let bits: Int
    let isFloat: Bool
    let isSymmetric: Bool
    /// Rows and columns that share a scale, where scales form a grid.
    let block: (rows: Int, columns: Int)?

    /// How closely a target names a module: 0 by name, 1 by pattern, 2 by class. `nil`: not at all.
    func rank(_ module: String) -> Int? {
        targets.compactMap { target -> Int? in
            if target.hasSameBytes(as: module) { return 0 }
            if target.hasBytePrefix("re:") {
                return (try? Regex(String(target.dropFirst(3))).prefixMatch(in: module)) == nil ? nil : 1
            }
            // Classes are not known here. A weight in the form of the group belongs to one of them.
            return !target.contains(".") && target.first?.isUppercase == true ? 2 : nil
        }.min()
    }

    /// The group of a module.
    static func group(of module: String, _ groups: [CompressedTensorsGroup]) -> CompressedTensorsGroup? {
        if groups.count == 1 { return groups[0] }
        return groups.enumerated().compactMap { index, group in group.rank(module).map { (rank: $0, index: index, group: group) }
        }
        .min { ($0.rank, $0.index) < ($1.rank, $1.index) }?.group
    }
}

extension StoredFormatFields {
    private static let formats = [
        "dense", "float-quantized", "int-quantized", "naive-quantized", "pack-quantized", "nvfp4-pack-quantized",
        "mxfp4-pack-quantized", "mixed-precision",
    ]

    func compressedTensors(_ format: String) throws -> [CompressedTensorsGroup] {
        try requireKnown(format)
        if let sparsity = try object("sparsity_config")?.string("format"), sparsity != "dense" {
            throw refused("sparse weights (\"\(sparsity)\")")
        }
        if let transforms = try object("transform_config"), !transforms.json.isEmpty {
            throw refused("weights with a transform_config")
        }
        guard let groups = try object("config_groups") else {
            throw malformed("config_groups", expected: "an object", found: "none")
        }
        return try groups.json.compactMap { name, _ in
            guard let group = try groups.object(name) else { return nil }
            return try group.compressedTensorsGroup(name)
        }
    }

    private func requireKnown(_ format: String) throws {
        guard !StoredFormatFields.formats.contains(format) else { return }
        throw refused("compressed-tensors weights in the format \"\(format)\"")
    }

    /// `nil` where activations alone are quantized.
    private func compressedTensorsGroup(_ name: String) throws -> CompressedTensorsGroup? {
        guard let weights = try object("weights") else { return nil }
        if let format = try string("format") { try requireKnown(format) }
        guard let targets = try strings("targets") else {
            throw malformed("targets", expected: "a list of strings", found: "none")
        }
        for target in targets where target.hasBytePrefix("re:") {
            guard (try? Regex(String(target.dropFirst(3)))) != nil else {
                throw malformed("targets", expected: "regular expressions after re:", found: target)
            }
        }
        let type = try weights.string("type") ?? "int"
        guard ["int", "float"].contains(type) else { throw weights.malformed("type", expected: "int or float", found: type) }
        let bits = try weights.integer("num_bits") ?? 8
        guard [4, 8].contains(bits) else { throw refused("compressed-tensors weights of \(bits) bits") }
        return CompressedTensorsGroup(
            name: name, targets: targets, bits: bits, isFloat: type == "float",
            isSymmetric: try weights.bool("symmetric") ?? true, block: try weights.strategyBlock())
    }

    /// Rows and columns that share a scale by the fields `strategy`, `group_size` and `block_structure`.
    private func strategyBlock() throws -> (rows: Int, columns: Int)? {
        let size = try groupSize("group_size", default: nil)
        switch try string("strategy") {
        case "tensor", "channel", "token": return nil
        case "group", "tensor_group":
            guard let size else { throw malformed("group_size", expected: "a positive number", found: "none") }
            return (1, size)
        case "block":
            guard let block = try block("block_structure") else {
                throw malformed("block_structure", expected: "two positive numbers", found: "none")
            }
            return block
        case nil: return size.map { (1, $0) }
        case let strategy?:
            throw malformed("strategy", expected: "tensor, channel, group, tensor_group or block", found: strategy)
        }
    }
}
