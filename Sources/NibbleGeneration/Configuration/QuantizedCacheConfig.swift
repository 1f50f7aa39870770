internal import NibbleCore

/// `cache_config`: how a quantized cache stores keys and values (transformers' QuantizedCacheConfig). Unset fields have the
/// defaults 8 bits, groups of 64.
public struct QuantizedCacheConfig: Sendable, Equatable {
    /// 8, 4 or 2
    public var nbits: Int?
    /// Elements that share a scale: 16, 32, 64 or 128.
    public var qGroupSize: Int?
    /// In the reference so many tokens stay unquantized. Nibble quantizes every token as it is stored, so that blocks can be
    /// shared, copied and dropped; only 0 says what happens.
    public var residualLength: Int?

    /// Unset fields have the defaults.
    public init(nbits: Int? = nil, qGroupSize: Int? = nil, residualLength: Int? = nil) {
        self.nbits = nbits
        self.qGroupSize = qGroupSize
        self.residualLength = residualLength
    }
}

extension GenerationConfig {
    /// The format of the KV cache, if the configuration asks for a quantized one.
    var cacheQuantization: KeyValueQuantization? {
        guard cacheImplementation == .quantized else { return nil }
        return KeyValueQuantization(
            bits: cacheConfig?.nbits ?? 8, groupSize: cacheConfig?.qGroupSize ?? KeyValueQuantization.defaultGroupSize)
    }
}

extension ValueForm where Value == QuantizedCacheConfig {
    static let cacheConfig = ValueForm(expected: "an object with nbits, q_group_size and residual_length") { json in
        guard let object = json.object else { return nil }
        // Settings of transformers' cache backends that have no meaning here.
        let ignored: Set<String> = ["backend", "axis_key", "axis_value", "compute_dtype", "device"]
        let known: Set<String> = ["nbits", "q_group_size", "residual_length"]
        guard object.keys.allSatisfy({ known.contains($0) || ignored.contains($0) }) else { return nil }
        var config = QuantizedCacheConfig()
        for (key, field) in [
            ("nbits", \QuantizedCacheConfig.nbits), ("q_group_size", \.qGroupSize), ("residual_length", \.residualLength),
        ] {
            guard let value = object[key], !value.isNull else { continue }
            guard let number = value.int else { return nil }
            config[keyPath: field] = number
        }
        return config
    }
}
