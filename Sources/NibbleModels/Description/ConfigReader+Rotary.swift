import Foundation

extension ConfigReader {
    /// The rotary embedding described by `rope_parameters`, or by the older `rope_scaling` and `rope_theta`.
    ///
    /// - Parameter headSize: D; `partial_rotary_factor` of it is rotated.
    package func rotary(
        headSize: Int, partial: Double? = nil, isInterleaved: Bool = false, layerType: String? = nil, defaultTheta: Double = 10000
    ) throws -> RotaryDescription {
        var parameters = try object("rope_parameters", "rope_scaling") ?? ConfigReader(.init(), file: file)
        if let layerType, let nested = try parameters.object(layerType) { parameters = nested }
        let theta = try parameters.optionalDouble("rope_theta") ?? double("rope_theta", "rotary_emb_base", default: defaultTheta)
        let share =
            try parameters.optionalDouble("partial_rotary_factor")
            ?? optionalDouble("partial_rotary_factor", "rotary_pct") ?? partial ?? 1
        let rotated = share > 0 && share <= 1 ? Int(Double(headSize) * share) : 0
        guard rotated > 0, rotated % 2 == 0, theta > 0 else {
            throw ModelError.wrongField(
                "rope_parameters", file: file,
                expected: "a positive theta and an even number of rotated elements within the head size \(headSize)",
                found: "theta \(theta), \(share) of the head")
        }
        return RotaryDescription(
            rotated: rotated, theta: theta, isInterleaved: isInterleaved,
            scaling: try rotaryScaling(parameters, rotated: rotated))
    }

    private func rotaryScaling(_ parameters: ConfigReader, rotated: Int) throws -> RotaryDescription.Scaling {
        let positions = try int("max_position_embeddings", default: 2048)
        func factor() throws -> Double {
            guard let factor = try parameters.optionalDouble("factor"), factor > 0 else {
                throw ModelError.missingField("rope_scaling.factor", file: file)
            }
            return factor
        }
        let type = try parameters.string("rope_type", "type", default: "default")
        switch type {
        case "default": return .none
        case "linear": return .linear(factor: try factor())
        case "dynamic": return .dynamic(factor: try factor(), original: positions)
        case "llama3":
            return .llama3(
                factor: try factor(), lowFrequency: try parameters.double("low_freq_factor", default: 1),
                highFrequency: try parameters.double("high_freq_factor", default: 4),
                original: try parameters.size("original_max_position_embeddings", default: max(positions, 1)))
        // The first Phi-3 configs called their long rope so.
        case "yarn" where parameters.value("short_factor") != nil:
            return try longRope(parameters, positions: positions, rotated: rotated)
        case "yarn": return .yarn(try yarn(parameters, positions: positions))
        case "longrope", "su": return try longRope(parameters, positions: positions, rotated: rotated)
        default:
            throw ModelError.wrongField(
                "rope_scaling.rope_type", file: file, expected: "default, linear, dynamic, llama3, yarn or longrope",
                found: "\"\(type)\"")
        }
    }

    private func yarn(_ parameters: ConfigReader, positions: Int) throws -> RotaryDescription.Yarn {
        let original = try parameters.size("original_max_position_embeddings", default: max(positions, 1))
        let factor = try parameters.double("factor", default: Double(positions) / Double(original))
        func magnitude(_ scale: Double) -> Double { factor <= 1 ? 1 : 0.1 * scale * log(factor) + 1 }
        let attention: Double
        if let given = try parameters.optionalDouble("attention_factor") {
            attention = given
        } else if let scale = try parameters.optionalDouble("mscale"), let all = try parameters.optionalDouble("mscale_all_dim"),
            scale != 0, all != 0
        {
            attention = magnitude(scale) / magnitude(all)
        } else {
            attention = magnitude(1)
        }
        return .init(
            factor: factor, original: original, betaFast: try parameters.double("beta_fast", default: 32),
            betaSlow: try parameters.double("beta_slow", default: 1), attention: attention,
            truncates: try parameters.bool("truncate", default: true))
    }

    private func longRope(_ parameters: ConfigReader, positions: Int, rotated: Int) throws -> RotaryDescription.Scaling {
        let original =
            try parameters.optionalInt("original_max_position_embeddings")
            ?? int("original_max_position_embeddings", default: positions)
        guard let short = try parameters.doubles("short_factor"), let long = try parameters.doubles("long_factor"),
            short.count == rotated / 2, long.count == rotated / 2, original > 1
        else {
            throw ModelError.wrongField(
                "rope_scaling", file: file, expected: "short_factor and long_factor with \(rotated / 2) numbers each",
                found: parameters.values["short_factor"]?.kind ?? "nothing")
        }
        let stretch = try parameters.optionalDouble("factor") ?? Double(positions) / Double(original)
        let attention =
            try parameters.optionalDouble("attention_factor")
            ?? (stretch <= 1 ? 1 : sqrt(1 + log(stretch) / log(Double(original))))
        return .longRope(short: short, long: long, original: original, attention: attention)
    }
}
