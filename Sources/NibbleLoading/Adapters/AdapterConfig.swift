import Foundation
import NibbleCore

/// What `adapter_config.json` says of a LoRA adapter (arXiv 2106.09685), as peft writes it.
package struct AdapterConfig: Sendable {
    /// The path of the file, for messages.
    let file: String
    /// `base_model_name_or_path`
    package let baseModel: String?
    let rank: Int
    let alpha: Double
    /// Whether the scale is α/√r (arXiv 2312.03732), not α/r.
    let usesRankStabilization: Bool
    let rankPatterns: [(pattern: AdapterPattern, value: Double)]
    let alphaPatterns: [(pattern: AdapterPattern, value: Double)]
    /// Whether low-rank sums are applied to direction and magnitude apart (arXiv 2402.09353).
    let usesDoRA: Bool
    /// Whether `lora_B` has a bias.
    let hasBias: Bool
    /// Modules that the file holds as a whole.
    let savedModules: [String]
    /// By a module's name or its ending; `nil` for the input embedding.
    let tokenIndices: [(module: String?, indices: [Int])]
    /// Parameters of sets of experts that have low-rank sums.
    let targetParameters: [String]
    let targets: AdapterTargets
    package private(set) var warnings: [String] = []

    /// Reads `adapter_config.json` of a folder.
    /// - Throws: ``LoadError/notAdapter(folder:)``, ``LoadError/unsupportedAdapter(file:field:found:remedy:)``, `JSONError`.
    init(folder: URL) throws {
        let url = folder.appending(path: AdapterConfig.name)
        guard FileManager.default.fileExists(atPath: url.path) else { throw LoadError.notAdapter(folder: folder.path) }
        let root = try JSONField(contentsOf: url)
        guard root.value.object != nil else { throw root.unexpected("an object") }
        file = url.path
        warnings = try AdapterRefusals(root).check()
        baseModel = try root.child("base_model_name_or_path")?.string()
        rank = try root.child("r")?.integer(in: 1...AdapterConfig.maximumRank) ?? 8
        alpha = try AdapterConfig.finite(root.child("lora_alpha")) ?? 8
        usesRankStabilization = try root.flag("use_rslora", default: false)
        usesDoRA = try root.flag("use_dora", default: false)
        hasBias = try root.flag("lora_bias", default: false)
        rankPatterns = try AdapterConfig.patterns(root.child("rank_pattern")) {
            Double(try $0.integer(in: 1...AdapterConfig.maximumRank))
        }
        alphaPatterns = try AdapterConfig.patterns(root.child("alpha_pattern")) { try AdapterConfig.finite($0) ?? 0 }
        savedModules = try AdapterConfig.names(root.child("modules_to_save"))
        targetParameters = try AdapterConfig.names(root.child("target_parameters"))
        tokenIndices = try AdapterConfig.tokens(root.child("trainable_token_indices"))
        targets = try AdapterTargets(root)
    }

    static let name = "adapter_config.json"
    static let maximumRank = 1 << 16

    private static func finite(_ field: JSONField?) throws -> Double? {
        guard let field else { return nil }
        let number = try field.double()
        guard number.isFinite, abs(number) < 1e30 else { throw field.unexpected("a finite number") }
        return number
    }

    private static func patterns(
        _ field: JSONField?, _ value: (JSONField) throws -> Double
    ) throws -> [(pattern: AdapterPattern, value: Double)] {
        try field?.members().map { (try AdapterPattern(suffix: $0.key, $0.field), try value($0.field)) } ?? []
    }

    static func names(_ field: JSONField?) throws -> [String] { try field?.elements().map { try $0.string() } ?? [] }

    private static func tokens(_ field: JSONField?) throws -> [(module: String?, indices: [Int])] {
        guard let field else { return [] }
        func indices(_ list: JSONField) throws -> [Int] {
            let indices = try list.elements().map { try $0.integer(in: 0...Int(Int32.max)) }
            guard Set(indices).count == indices.count else { throw list.unexpected("token ids, each once") }
            return indices
        }
        if field.value.array != nil { return [(nil, try indices(field))] }
        return try field.members().map { ($0.key, try indices($0.field)) }
    }

    // MARK: Rank and scale

    /// r of a module: that of the first pattern that matches its name.
    /// - Parameter module: its name in the library that wrote the file.
    func rank(of module: String) throws -> Int {
        try rankPatterns.first { try $0.pattern.matches(module) }.map { Int($0.value) } ?? rank
    }

    /// What low-rank sums of a module are multiplied by.
    func scale(of module: String) throws -> Double {
        let alpha = try alphaPatterns.first { try $0.pattern.matches(module) }?.value ?? alpha
        let rank = Double(try rank(of: module))
        return usesRankStabilization ? alpha / rank.squareRoot() : alpha / rank
    }
}

/// What of an adapter's config is not supported, with what to do instead.
private struct AdapterRefusals {
    private let root: JSONField

    init(_ root: JSONField) { self.root = root }

    /// - Returns: warnings.
    func check() throws -> [String] {
        try checkType()
        try checkFields()
        return try initialisationWarnings() + unknownFields()
    }

    private func refuse(_ field: String, _ found: String, _ remedy: String) -> LoadError {
        .unsupportedAdapter(file: root.file, field: field, found: found, remedy: remedy)
    }

    private func checkType() throws {
        let type = try root.text("peft_type")
        guard type.uppercased().hasSameBytes(as: "LORA") else {
            throw refuse(
                "peft_type", "\"\(type)\"",
                "only LORA is read: merge the adapter into its base with peft (merge_and_unload) and load the merged model")
        }
    }

    /// Initialisations that do not touch the base.
    private static let harmless: Set = ["gaussian", "eva", "orthogonal", "mica", "true", "false"]
    /// Those that change the base, so that A and B are only right over a base that the file does not hold.
    private static let changing = ["pissa", "olora", "corda", "loftq"]

    private func initialisationWarnings() throws -> [String] {
        guard let field = root.child("init_lora_weights"), field.value.bool == nil else { return [] }
        let word = try field.string()
        if AdapterRefusals.harmless.contains(word.lowercased()) { return [] }
        if word == "lora_ga" {
            return ["\(root.file): with init_lora_weights \"lora_ga\" the base was changed for training: results may differ"]
        }
        guard AdapterRefusals.changing.contains(where: { word.hasBytePrefix($0) }) else {
            throw refuse(
                "init_lora_weights", "\"\(word)\"", "it is not known whether it changes the base: save the adapter with true")
        }
        throw refuse(
            "init_lora_weights", "\"\(word)\"",
            "this initialisation changes the base's weights: save the adapter again as a plain one, with peft's "
                + "save_pretrained(…, path_initial_model_for_weight_conversion=FOLDER), or merge it with peft")
    }

    private static let remedies: [(field: String, remedy: String)] = [
        ("layer_replication", "it repeats layers of the base: merge the adapter with peft and load the merged model"),
        ("use_qalora", "QA-LoRA pools its input: merge the adapter with peft and load the merged model"),
        ("alora_invocation_tokens", "activated LoRA starts at its invocation tokens: use an adapter that is always active"),
        ("arrow_config", "routing between adapters is not supported: give one adapter with --adapter"),
        ("megatron_config", "Megatron's parallel layers are not supported: save the adapter over the transformers model"),
        ("use_bdlora", "block-diagonal LoRA is not supported: merge the adapter with peft"),
        ("velora_config", "VeLoRA is not supported: merge the adapter with peft"),
        ("monteclora_config", "MonteCLoRA is not supported: merge the adapter with peft"),
        ("kasa_config", "KaSA is not supported: merge the adapter with peft"),
        ("use_kasa", "KaSA is not supported: merge the adapter with peft"),
        ("use_velora", "VeLoRA is not supported: merge the adapter with peft"),
    ]

    private func checkFields() throws {
        for (name, remedy) in AdapterRefusals.remedies {
            guard let field = root.child(name), !AdapterRefusals.isNothing(field.value) else { continue }
            throw refuse(name, field.value.summary, remedy)
        }
    }

    private static func isNothing(_ value: JSONValue) -> Bool {
        switch value {
        case .null, .bool(false): true
        case .array(let elements): elements.isEmpty
        case .object(let members): members.isEmpty
        default: false
        }
    }

    private static let known: Set = [
        "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "ensure_weight_tying", "eva_config",
        "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform",
        "loftq_config", "lora_alpha", "lora_bias", "lora_dropout", "lora_ga_config", "megatron_core", "modules_to_save",
        "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern", "revision", "runtime_config",
        "target_modules", "target_parameters", "task_type", "trainable_token_indices", "use_dora", "use_rslora",
        "enable_lora", "merge_weights",
    ]

    private func unknownFields() throws -> [String] {
        let supported = AdapterRefusals.known.union(AdapterRefusals.remedies.map(\.field))
        return try root.members().filter { !supported.contains($0.key) && !AdapterRefusals.isNothing($0.field.value) }.map {
            "\(root.file): the field \($0.key.printable()) is not known and has no effect"
        }
    }
}
