package import NibbleCore

/// How the weights of a checkpoint are quantized by another method than bitsandbytes, as its `quantization_config` says.
///
/// Such weights are read as floats. Which modules are quantized, the names of the tensors tell.
package struct StoredFormat: Sendable {
    /// In messages: `fp8`, `awq`, `compressed-tensors pack-quantized` …
    package let name: String
    let scheme: Scheme

    enum Scheme: Sendable {
        /// FP8 codes; `block`: rows and columns that share a scale, where scales form a grid.
        case float8(block: (rows: Int, columns: Int)?)
        case compressedTensors([CompressedTensorsGroup])
        /// FP8 or NVFP4, module by module.
        case modelOpt(block: (rows: Int, columns: Int)?)
        case mxfp4
        case awq(groupSize: Int?)
        case gptq(GPTQParameters)
    }

    struct GPTQParameters: Sendable {
        /// `nil`: modules differ.
        var bits: Int?
        /// `nil`: one group for all columns.
        var groupSize: Int?
        var zeroOffset: UInt32
    }

    /// Whether experts may stay in the stored form (MXFP4).
    package var keepsExperts: Bool { if case .mxfp4 = scheme { true } else { false } }

    /// Whether linear layers that a family stores transposed may be in this form, too, with a shape that does not tell.
    package var mayTranspose: Bool {
        switch scheme {
        case .awq, .gptq: true
        default: false
        }
    }

    /// Reads the `quantization_config` of a `config.json`. `nil` if its method is not one of these.
    /// - Parameter file: for messages.
    /// - Throws: ``CheckpointError/refused(file:what:)`` for a variant of the method that is not read;
    ///   ``CheckpointError/malformed(file:tensor:expected:found:)``.
    package init?(_ json: JSONObject, file: String) throws {
        let fields = StoredFormatFields(json, file: file)
        guard let method = try fields.string("quant_method") else { return nil }
        switch method {
        case "fp8", "fbgemm_fp8":
            (name, scheme) = (method, .float8(block: try fields.block("weight_block_size")))
        case "mxfp4":
            (name, scheme) = (method, .mxfp4)
        case "awq":
            (name, scheme) = (method, try fields.awq())
        case "gptq":
            (name, scheme) = (method, .gptq(try fields.gptq()))
        case "compressed-tensors":
            let format = try fields.string("format") ?? "dense"
            (name, scheme) = ("\(method) \(format)", .compressedTensors(try fields.compressedTensors(format)))
        case "modelopt", "modelopt_fp4", "modelopt_fp8":
            let algorithm = try fields.string("quant_algo") ?? fields.object("quantization")?.string("quant_algo")
            (name, scheme) = ("modelopt" + (algorithm.map { " \($0)" } ?? ""), try fields.modelOpt(algorithm))
        default:
            return nil
        }
    }

    /// Reads the `hf_quant_config.json` that ModelOpt writes beside a `config.json`. `nil` if it names no quantization.
    /// - Throws: as ``init(_:file:)``.
    package init?(modelOpt json: JSONObject, file: String) throws {
        guard let quantization = json["quantization"]?.object, quantization["quant_algo"]?.string != nil else { return nil }
        var config = quantization
        config["quant_method"] = "modelopt"
        try self.init(config, file: file)
    }
}

/// Reads the fields of a quantization config, with errors that name them.
struct StoredFormatFields {
    let json: JSONObject
    let file: String
    private let path: String

    init(_ json: JSONObject, file: String, path: String = "quantization_config") {
        (self.json, self.file, self.path) = (json, file, path)
    }

    func malformed(_ field: String, expected: String, found: String) -> CheckpointError {
        .malformed(file: file, tensor: nil, expected: "\(path).\(field) to be \(expected)", found: found)
    }

    func refused(_ what: String) -> CheckpointError {
        .refused(file: file, what: "\(what) are not read; load the 16-bit model that these weights were made from")
    }

    private func value<T>(_ field: String, _ expected: String, _ read: (JSONValue) -> T?) throws -> T? {
        guard let value = json[field], !value.isNull else { return nil }
        guard let converted = read(value) else { throw malformed(field, expected: expected, found: value.summary) }
        return converted
    }

    func string(_ field: String) throws -> String? { try value(field, "a string", \.string) }
    func integer(_ field: String) throws -> Int? { try value(field, "a whole number", \.int) }
    func bool(_ field: String) throws -> Bool? { try value(field, "true or false", \.bool) }

    func object(_ field: String) throws -> StoredFormatFields? {
        try value(field, "an object", \.object).map { StoredFormatFields($0, file: file, path: "\(path).\(field)") }
    }

    func strings(_ field: String) throws -> [String]? {
        try value(field, "a list of strings") { value in
            value.array.flatMap { array in
                let strings = array.compactMap(\.string)
                return strings.count == array.count ? strings : nil
            }
        }
    }

    /// Rows and columns of a block.
    func block(_ field: String) throws -> (rows: Int, columns: Int)? {
        try value(field, "two positive numbers") { value in
            guard let extents = value.array?.compactMap(\.int), extents.count == 2, extents.allSatisfy({ $0 > 0 }) else {
                return nil
            }
            return (extents[0], extents[1])
        }
    }

    /// The first of `fields` that is there. `nil` where it is −1: one group for all columns.
    func groupSize(_ fields: String..., default standard: Int?) throws -> Int? {
        for field in fields {
            guard let size = try integer(field) else { continue }
            guard size == -1 || size > 0 else { throw malformed(field, expected: "a positive number or -1", found: "\(size)") }
            return size == -1 ? nil : size
        }
        return standard
    }
}

extension StoredFormatFields {
    func awq() throws -> StoredFormat.Scheme {
        let version = try string("version") ?? string("format") ?? "gemm"
        guard version.lowercased() == "gemm" else { throw refused("AWQ weights in the layout \"\(version)\"") }
        let bits = try integer("bits") ?? integer("w_bit") ?? 4
        guard bits == 4 else { throw refused("AWQ weights of \(bits) bits") }
        return .awq(groupSize: try groupSize("group_size", "q_group_size", default: 128))
    }

    func gptq() throws -> StoredFormat.GPTQParameters {
        let format = try string("checkpoint_format") ?? string("format") ?? "gptq"
        if try bool("is_marlin_format") == true { throw refused("GPTQ weights in the layout \"marlin\"") }
        guard let offset = ["gptq": UInt32(1), "gptq_v2": 0][format] else {
            throw refused("GPTQ weights in the layout \"\(format)\"")
        }
        // Modules may have parameters of their own.
        let differ = try object("dynamic").map { !$0.json.isEmpty } ?? false
        let bits = try integer("bits")
        if let bits, ![2, 4, 8].contains(bits) { throw refused("GPTQ weights of \(bits) bits") }
        return .init(
            bits: differ ? nil : bits, groupSize: try groupSize("group_size", default: nil), zeroOffset: offset)
    }

    func modelOpt(_ algorithm: String?) throws -> StoredFormat.Scheme {
        let known = [
            "FP8", "FP8_PB_WO", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PC_PT", "NVFP4", "NVFP4_AWQ", "W4A16_NVFP4", "MIXED_PRECISION",
        ]
        if let algorithm, !known.contains(algorithm) { throw refused("ModelOpt weights of type \"\(algorithm)\"") }
        return .modelOpt(block: algorithm == "FP8_PB_WO" ? (128, 128) : nil)
    }
}
