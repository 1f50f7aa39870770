import Foundation
import NibbleCheckpoint
import NibbleCore
import NibbleTestSupport

/// A recorded checkpoint as a GGUF file of float32, laid out as llama.cpp's converter does it.
struct GGUFConversion {
    let architecture: String
    /// Keys of `config.json` beside the usual ones, by the metadata they become.
    var keys: [(gguf: String, key: String)] = []
    /// Names in a block beside the usual ones, by those that they become.
    var names: [String: String] = [:]
    var interleavesHeads = false
    var addsOne = false
    /// How tensors of experts and of shared experts change before they are named.
    var merged: (inout [String: ConvertedTensor]) -> Void = { _ in }

    func builder(_ model: FixtureModel) throws -> GGUFBuilder {
        let config = try JSONValue(contentsOf: model.folder.appending(path: "config.json"))
        var builder = GGUFBuilder()
        builder.add("general.architecture", architecture)
        for (gguf, key) in Self.usualKeys + keys {
            guard let value = config[key] ?? config["rope_parameters"]?[key] else { continue }
            if let whole = value.int {
                builder.add("\(architecture).\(gguf)", UInt32(whole))
            } else if let number = value.double {
                builder.add("\(architecture).\(gguf)", Float(number))
            }
        }
        var tensors = try Self.tensors(model.folder)
        merged(&tensors)
        for (name, tensor) in tensors.sorted(by: { $0.key < $1.key }) {
            let changed = changed(name, tensor, config)
            builder.add(ggufName(name), changed.shape.map { UInt64($0) }, floats: changed.values)
        }
        addRotary(config, to: &builder)
        return builder
    }

    private static let usualKeys = [
        ("embedding_length", "hidden_size"), ("block_count", "num_hidden_layers"), ("feed_forward_length", "intermediate_size"),
        ("attention.head_count", "num_attention_heads"), ("attention.head_count_kv", "num_key_value_heads"),
        ("attention.layer_norm_rms_epsilon", "rms_norm_eps"), ("rope.freq_base", "rope_theta"),
        ("context_length", "max_position_embeddings"), ("attention.key_length", "head_dim"),
    ]

    private static let usualNames = [
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "model.embed_tokens": "token_embd", "model.norm": "output_norm",
        "lm_head": "output",
    ]

    private static func tensors(_ folder: URL) throws -> [String: ConvertedTensor] {
        let checkpoint = try CheckpointFiles.open(folder: folder)
        var tensors: [String: ConvertedTensor] = [:]
        for name in checkpoint.names {
            let tensor = try checkpoint.tensor(name)
            let values =
                tensor.dtype == .bfloat16
                ? tensor.hostElements(BFloat16.self).map { Float($0) } : Array(tensor.hostElements(Float.self))
            tensors[name] = ConvertedTensor(shape: Array(tensor.shape.dimensions), values: values)
        }
        return tensors
    }

    private func ggufName(_ name: String) -> String {
        var parts = name.split(separator: ".").map(String.init)
        let suffix = parts.removeLast()
        var block = ""
        if parts.count > 3, parts[1] == "layers" {
            block = "blk.\(parts[2])."
            parts.removeFirst(3)
        }
        let stem = parts.joined(separator: ".")
        return "\(block)\(names[stem] ?? Self.usualNames[stem] ?? stem).\(suffix)"
    }

    private func changed(_ name: String, _ tensor: ConvertedTensor, _ config: JSONValue) -> ConvertedTensor {
        if addsOne, name.hasSuffix("norm.weight") {
            return ConvertedTensor(shape: tensor.shape, values: tensor.values.map { $0 + 1 })
        }
        guard interleavesHeads, let heads = config["num_attention_heads"]?.int else { return tensor }
        if name.contains(".q_proj.") { return tensor.interleaved(heads) }
        if name.contains(".k_proj.") { return tensor.interleaved(config["num_key_value_heads"]?.int ?? heads) }
        return tensor
    }

    private func addRotary(_ config: JSONValue, to builder: inout GGUFBuilder) {
        let rotary = config["rope_parameters"]
        let heads = config["num_attention_heads"]?.int ?? 1
        let headSize = config["head_dim"]?.int ?? (config["hidden_size"]?.int ?? 0) / heads
        if let share = rotary?["partial_rotary_factor"]?.double {
            builder.add("\(architecture).rope.dimension_count", UInt32(share * Double(headSize)))
        }
        if let original = rotary?["original_max_position_embeddings"]?.double,
            let positions = config["max_position_embeddings"]?.double
        {
            let factor = (1 + log(positions / original) / log(original)).squareRoot()
            builder.add("\(architecture).rope.scaling.attn_factor", Float(factor))
        }
        for (name, key) in [("rope_factors_long", "long_factor"), ("rope_factors_short", "short_factor")] {
            guard let factors = rotary?[key]?.array else { continue }
            builder.add("\(name).weight", [UInt64(factors.count)], floats: factors.map { Float($0.double ?? 0) })
        }
    }
}

struct ConvertedTensor {
    /// Outermost first.
    var shape: [Int]
    var values: [Float]

    /// The halves of each head's rows by turns.
    func interleaved(_ heads: Int) -> ConvertedTensor {
        let (width, headSize) = (values.count / shape[0], shape[0] / heads)
        let rows = (0..<shape[0]).map { row in
            let (head, within) = row.quotientAndRemainder(dividingBy: headSize)
            return head * headSize + within % 2 * (headSize / 2) + within / 2
        }
        return ConvertedTensor(shape: shape, values: rows.flatMap { values[$0 * width..<($0 + 1) * width] })
    }

    /// The first or the second half of the rows of each matrix.
    func half(_ index: Int) -> ConvertedTensor {
        var shape = shape
        shape[shape.count - 2] /= 2
        let size = shape[shape.count - 2] * shape[shape.count - 1]
        let matrices = values.count / (2 * size)
        return ConvertedTensor(
            shape: shape, values: (0..<matrices).flatMap { values[(2 * $0 + index) * size..<(2 * $0 + index + 1) * size] })
    }
}

// MARK: Experts

extension [String: ConvertedTensor] {
    /// `L.experts.0.NAME.weight`, `L.experts.1.NAME.weight` … become one `L.experts.NAME.weight`.
    mutating func stackExperts() {
        for name in keys.filter({ $0.contains(".experts.0.") }) {
            var tensors: [ConvertedTensor] = []
            while let tensor = removeValue(forKey: name.replacing(".experts.0.", with: ".experts.\(tensors.count).")) {
                tensors.append(tensor)
            }
            self[name.replacing(".experts.0.", with: ".experts.")] = ConvertedTensor(
                shape: [tensors.count] + tensors[0].shape, values: tensors.flatMap(\.values))
        }
    }

    /// Granite's `input_linear` becomes `gate` and `up`.
    mutating func splitInputs() {
        for name in keys.filter({ $0.hasSuffix(".input_linear.weight") }) {
            guard let tensor = removeValue(forKey: name) else { continue }
            self[name.replacing(".input_linear.", with: ".gate.")] = tensor.half(0)
            self[name.replacing(".input_linear.", with: ".up.")] = tensor.half(1)
        }
    }

    /// Older converters drop dimensions of one.
    mutating func squeezeGates() {
        for name in keys where name.hasSuffix(".shared_expert_gate.weight") { self[name]?.shape.removeFirst() }
    }
}
