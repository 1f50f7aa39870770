internal import Foundation
import NibbleCore

/// How a family reads the rotary fields of its config, where families differ.
struct RotaryConvention {
    /// The field that holds theta, and its default.
    var thetaKey = "rope_theta"
    var defaultTheta = 10000.0
    /// The field that holds the share of a head that is rotated.
    var shareKey = "partial_rotary_factor"
    /// The default of that share; `nil` for families that always rotate whole heads.
    var defaultShare: Double?
    /// Pairs are (2i, 2i+1).
    var isInterleaved = false
    /// Phi-3 knows no scaling but long rope, which older configs call "su" or "yarn", and takes the original length from
    /// the top level of the config only.
    var isLongRopeOnly = false
    /// Type "dynamic" with a field `alpha` stretches theta once, whatever the length (HunYuan).
    var hasStaticAlpha = false
    /// Fields beside the usual ones that the family itself reads, or that have no effect by design.
    var familyFields: Set<String> = []
}

extension ConfigReader {
    /// The rotary embedding described by `rope_parameters`, or by the older `rope_scaling` and `rope_theta`, read as
    /// transformers reads them: a `rope_scaling` that is not empty takes the place of `rope_parameters`, and each of these
    /// takes precedence over the fields at the top level.
    ///
    /// - Parameter headSize: D
    func rotary(headSize: Int, _ convention: RotaryConvention = .init()) throws -> RotaryDescription {
        let scaling = try object("rope_scaling").flatMap { $0.values.isEmpty ? nil : $0 }
        let parameters = try object("rope_parameters").flatMap { $0.values.isEmpty ? nil : $0 }
        if scaling != nil, let parameters, parameters.values != scaling?.values {
            noteUnread("rope_parameters", because: "rope_scaling takes its place")
        }
        let fields = scaling ?? parameters ?? nested([:])
        let reading = RotaryReading(config: self, fields: fields, convention: convention, headSize: headSize, isNested: false)
        return try reading.description()
    }

    /// As ``rotary(headSize:_:)`` of a layer type with parameters of its own.
    func rotary(headSize: Int, fields: ConfigReader, _ convention: RotaryConvention) throws -> RotaryDescription {
        try RotaryReading(config: self, fields: fields, convention: convention, headSize: headSize, isNested: true).description()
    }
}

/// One reading of the rotary fields.
private struct RotaryReading {
    let config: ConfigReader
    let fields: ConfigReader
    let convention: RotaryConvention
    let headSize: Int
    /// Whether `fields` are those of one layer type. The original length at the top level then counts for nothing.
    let isNested: Bool

    func description() throws -> RotaryDescription {
        let type = try self.type()
        var theta = try preferring(fields: "rope_theta", config: convention.thetaKey) ?? convention.defaultTheta
        if convention.thetaKey != "rope_theta", config.value("rope_theta") != nil {
            config.noteUnread("rope_theta", because: "this family reads \(convention.thetaKey)")
        }
        noteUnknownFields(type)
        if type == "proportional" { return try proportional(theta: theta) }
        let rotated = try rotatedElements(type, theta: theta)
        var scaling: RotaryDescription.Scaling?
        if convention.hasStaticAlpha, type == "dynamic", let alpha = try fields.optionalDouble("alpha"), alpha != 0 {
            theta *= pow(alpha, Double(rotated) / Double(rotated - 2))
            scaling = RotaryDescription.Scaling.none
        }
        return RotaryDescription(
            rotated: rotated, theta: theta, isInterleaved: convention.isInterleaved,
            scaling: try scaling ?? self.scaling(type, rotated: rotated))
    }

    /// The first frequencies of a whole head: a share of them, which the other types take of the head's elements.
    private func proportional(theta: Double) throws -> RotaryDescription {
        let share = try preferring(fields: "partial_rotary_factor", config: convention.shareKey) ?? 1
        let factor = try fields.double("factor", default: 1)
        guard share > 0, share <= 1, theta > 0, factor > 0, headSize % 2 == 0 else {
            throw ModelError.wrongField(
                "rope_parameters", file: config.file,
                expected: "a positive theta and factor, an even head size and a share of it up to 1",
                found: "theta \(theta), factor \(factor), \(share) of a head of \(headSize)")
        }
        let pairs = Int((share * Double(headSize) / 2).rounded(.down))
        return RotaryDescription(
            rotated: headSize, theta: theta, isInterleaved: convention.isInterleaved,
            scaling: .proportional(pairs: pairs, factor: factor))
    }

    private func type() throws -> String {
        let type = try fields.string("rope_type", "type", default: "default")
        guard convention.isLongRopeOnly else { return type }
        if ["su", "yarn"].contains(type) { return "longrope" }
        guard ["default", "longrope"].contains(type) else { throw unknown(type, expected: "default or longrope") }
        return type
    }

    private func unknown(_ type: String, expected: String) -> ModelError {
        .wrongField("rope_scaling.rope_type", file: config.file, expected: expected, found: "\"\(type)\"")
    }

    /// A number among the rotary fields, or else at the top level of the config.
    private func preferring(fields key: String, config topKey: String) throws -> Double? {
        let top = isNested ? nil : try config.optionalDouble(topKey)
        guard let value = try fields.optionalDouble(key) else { return top }
        if let top, top != value { config.noteUnread(topKey, because: "the rotary parameters hold \(key)") }
        return value
    }

    private func rotatedElements(_ type: String, theta: Double) throws -> Int {
        var share = try preferring(fields: "partial_rotary_factor", config: convention.shareKey)
        if convention.shareKey != "partial_rotary_factor", config.value("partial_rotary_factor") != nil {
            config.noteUnread("partial_rotary_factor", because: "this family reads \(convention.shareKey)")
        }
        if convention.defaultShare == nil, let given = share, given != 1, type == "default" {
            config.noteUnread(convention.shareKey, because: "this family rotates whole heads")
            share = 1
        }
        let rotatedShare = share ?? convention.defaultShare ?? 1
        let rotated = rotatedShare > 0 && rotatedShare <= 1 ? Int(Double(headSize) * rotatedShare) : 0
        guard rotated > 0, rotated % 2 == 0, theta > 0, convention.defaultShare != nil || rotated == headSize else {
            throw ModelError.wrongField(
                "rope_parameters", file: config.file,
                expected: convention.defaultShare == nil
                    ? "a positive theta and the whole of an even head size"
                    : "a positive theta and an even number of rotated elements within the head size \(headSize)",
                found: "theta \(theta), \(rotatedShare) of a head of \(headSize)")
        }
        return rotated
    }

    /// The fields that each type reads.
    private static let knownFields: [String: Set<String>] = [
        "default": [], "linear": ["factor"], "dynamic": ["factor"], "proportional": ["factor"],
        "llama3": ["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"],
        "yarn": [
            "factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "mscale",
            "mscale_all_dim", "truncate",
        ],
        "longrope": ["short_factor", "long_factor", "original_max_position_embeddings", "attention_factor", "factor"],
    ]

    private func noteUnknownFields(_ type: String) {
        guard let known = Self.knownFields[type] else { return }
        let common: Set = ["rope_type", "type", "rope_theta", "partial_rotary_factor"]
        let read = known.union(common).union(convention.familyFields)
        for (key, value) in fields.values where !read.contains(key) && !value.isNull {
            config.noteUnread("\(key) of the rotary parameters", because: "rope type \(type) does not use it")
        }
        let original = "original_max_position_embeddings"
        if !known.contains(original), !convention.isLongRopeOnly, config.value(original) != nil {
            config.noteUnread(original, because: "rope type \(type) does not use it")
        }
    }

    private func scaling(_ type: String, rotated: Int) throws -> RotaryDescription.Scaling {
        switch type {
        case "default": return .none
        case "linear": return .linear(factor: try positive("factor"))
        case "dynamic": return .dynamic(factor: try positive("factor"), original: try positions())
        case "llama3":
            return .llama3(
                factor: try positive("factor"), lowFrequency: try number("low_freq_factor"),
                highFrequency: try number("high_freq_factor"), original: try originalPositions())
        case "yarn": return .yarn(try yarn())
        case "longrope": return try longRope(rotated: rotated)
        default: throw unknown(type, expected: "default, linear, dynamic, llama3, yarn, longrope or proportional")
        }
    }

    private func yarn() throws -> RotaryDescription.Yarn {
        let original = try originalPositions()
        // An explicit null asks for the ratio of the lengths; a factor that is not there at all is an error.
        let asksForRatio = fields.values["factor"]?.isNull == true
        let factor = asksForRatio ? Double(try positions()) / Double(original) : try positive("factor")
        func magnitude(_ scale: Double) -> Double { factor <= 1 ? 1 : 0.1 * scale * log(factor) + 1 }
        let attention: Double
        if let given = try fields.optionalDouble("attention_factor") {
            attention = given
        } else if let scale = try fields.optionalDouble("mscale"), let all = try fields.optionalDouble("mscale_all_dim"),
            scale != 0, all != 0
        {
            attention = magnitude(scale) / magnitude(all)
        } else {
            attention = magnitude(1)
        }
        func rotations(_ key: String, default fallback: Double) throws -> Double {
            let value = try fields.double(key, default: fallback)
            return value == 0 ? fallback : value
        }
        return .init(
            factor: factor, original: original, betaFast: try rotations("beta_fast", default: 32),
            betaSlow: try rotations("beta_slow", default: 1), attention: attention,
            truncates: try fields.bool("truncate", default: true))
    }

    private func longRope(rotated: Int) throws -> RotaryDescription.Scaling {
        let original = try originalPositions()
        func factors(_ key: String) throws -> [Double] {
            guard let factors = try fields.doubles(key) else { throw missing(key) }
            // The reference spreads a single factor over all frequencies.
            if factors.count == 1, !convention.isLongRopeOnly { return Array(repeating: factors[0], count: rotated / 2) }
            guard factors.count == rotated / 2 else {
                throw ModelError.wrongField(
                    "rope_scaling.\(key)", file: config.file, expected: "\(rotated / 2) numbers", found: "\(factors.count)")
            }
            return factors
        }
        let (short, long) = (try factors("short_factor"), try factors("long_factor"))
        let factor = try fields.optionalDouble("factor") ?? Double(try positions()) / Double(original)
        let attention =
            try fields.optionalDouble("attention_factor")
            ?? (factor <= 1 ? 1 : sqrt(1 + log(factor) / log(Double(original))))
        return .longRope(short: short, long: long, original: original, attention: attention)
    }

    private func positions() throws -> Int { max(try config.positions("max_position_embeddings", default: 2048), 1) }

    /// The length a model was first trained on. Where the config has it at the top level, that one counts.
    private func originalPositions() throws -> Int {
        let key = "original_max_position_embeddings"
        let inner = try fields.optionalPositions(key)
        let top = isNested ? nil : try config.optionalPositions(key) ?? (convention.isLongRopeOnly ? 4096 : nil)
        if let top, let inner, top != inner {
            config.noteUnread("\(key) of the rotary parameters", because: "the config's own is \(top)")
        }
        return max(try top ?? inner ?? positions(), 1)
    }

    private func missing(_ key: String) -> ModelError { .missingField("rope_scaling.\(key)", file: config.file) }

    private func number(_ key: String) throws -> Double {
        guard let value = try fields.optionalDouble(key) else { throw missing(key) }
        return value
    }

    private func positive(_ key: String) throws -> Double {
        let value = try number(key)
        guard value > 0 else {
            throw ModelError.wrongField(
                "rope_scaling.\(key)", file: config.file, expected: "a positive number", found: String(value))
        }
        return value
    }
}
