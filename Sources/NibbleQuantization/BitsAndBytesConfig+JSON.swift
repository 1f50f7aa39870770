package import NibbleCore

extension BitsAndBytesConfig {
    /// Reads `quantization_config` of a `config.json`.
    ///
    /// - Parameter unknown: called for every option that is not known. The reference logs and ignores those.
    /// - Throws: ``QuantizationConfigError``
    package init(_ json: JSONObject, unknown: (String) -> Void = { _ in }) throws {
        self.init()
        let known = Set(BitsAndBytesConfig.example.json.keys).union(["bnb_4bit_blocksize"])
        for (key, _) in json where !known.contains(key) { unknown(key) }
        let reader = OptionReader(json: json)
        if let method = try reader.string("quant_method"), method != "bitsandbytes" {
            throw QuantizationConfigError.unknownMethod(method)
        }
        loadIn8Bit = try reader.bool("load_in_8bit") ?? reader.bool("_load_in_8bit") ?? false
        loadIn4Bit = try reader.bool("load_in_4bit") ?? reader.bool("_load_in_4bit") ?? false
        int8Threshold = try reader.number("llm_int8_threshold") ?? int8Threshold
        int8SkipModules = try reader.strings("llm_int8_skip_modules")
        int8EnableFP32CPUOffload = try reader.bool("llm_int8_enable_fp32_cpu_offload") ?? false
        int8HasFP16Weight = try reader.bool("llm_int8_has_fp16_weight") ?? false
        // An absent compute dtype is float32, as in the reference.
        computeDType = try reader.dtype("bnb_4bit_compute_dtype") ?? .float32
        if let word = try reader.string("bnb_4bit_quant_type") {
            guard let type = FourBitFormat.Codebook(rawValue: word) else {
                throw QuantizationConfigError.wrongValue("bnb_4bit_quant_type", expected: "fp4 or nf4", found: "\"\(word)\"")
            }
            quantType = type
        }
        useDoubleQuant = try reader.bool("bnb_4bit_use_double_quant") ?? false
        quantStorage = try reader.dtype("bnb_4bit_quant_storage") ?? .uint8
        if let size = try reader.number("bnb_4bit_blocksize") { blockSize = Int(exactly: size) ?? 0 }
        try validate()
    }

    /// Reads the `quantization_config` of a checkpoint. `nil` if it asks for neither 4 nor 8 bits: the checkpoint is not
    /// quantized then.
    /// - Throws: ``QuantizationConfigError``
    package static func stored(in json: JSONObject, unknown: (String) -> Void = { _ in }) throws -> BitsAndBytesConfig? {
        do {
            return try BitsAndBytesConfig(json, unknown: unknown)
        } catch QuantizationConfigError.neitherLoad {
            return nil
        }
    }

    private static let example = BitsAndBytesConfig(loadIn4Bit: true)

    /// The object as `save_pretrained` writes it: every option, in alphabetical order. ``computeDType`` must be set before, or
    /// float32 is written.
    package var json: JSONObject {
        JSONObject([
            ("_load_in_4bit", .bool(loadIn4Bit)),
            ("_load_in_8bit", .bool(loadIn8Bit)),
            ("bnb_4bit_compute_dtype", .string((computeDType ?? .float32).rawValue)),
            ("bnb_4bit_quant_storage", .string(quantStorage.rawValue)),
            ("bnb_4bit_quant_type", .string(quantType.rawValue)),
            ("bnb_4bit_use_double_quant", .bool(useDoubleQuant)),
            ("llm_int8_enable_fp32_cpu_offload", .bool(int8EnableFP32CPUOffload)),
            ("llm_int8_has_fp16_weight", .bool(int8HasFP16Weight)),
            ("llm_int8_skip_modules", int8SkipModules.map { .array($0.map(JSONValue.string)) } ?? .null),
            ("llm_int8_threshold", .double(int8Threshold)),
            ("load_in_4bit", .bool(loadIn4Bit)),
            ("load_in_8bit", .bool(loadIn8Bit)),
            ("quant_method", .string("bitsandbytes")),
        ])
    }
}

/// Reads options and checks their types.
private struct OptionReader {
    let json: JSONObject

    private func read<T>(_ key: String, _ expected: String, _ convert: (JSONValue) -> T?) throws -> T? {
        guard let value = json[key], !value.isNull else { return nil }
        guard let converted = convert(value) else {
            throw QuantizationConfigError.wrongValue(key, expected: expected, found: value.encoded(.spaced))
        }
        return converted
    }

    func bool(_ key: String) throws -> Bool? { try read(key, "true or false", \.bool) }
    func string(_ key: String) throws -> String? { try read(key, "a string", \.string) }
    func number(_ key: String) throws -> Double? { try read(key, "a number", \.double) }
    func dtype(_ key: String) throws -> DType? { try read(key, "a dtype") { $0.string.flatMap(DType.init(name:)) } }

    func strings(_ key: String) throws -> [String]? {
        try read(key, "a list of strings") { value in
            value.array.flatMap { array in
                let strings = array.compactMap(\.string)
                return strings.count == array.count ? strings : nil
            }
        }
    }
}
