import NibbleCore

/// `add_prefix_space` of `tokenizer_config.json`.
///
/// In transformers it applies to the classes that build their own pipeline. The generic classes use `tokenizer.json` as it is.
extension Tokenizer.Components {
    private static let byteLevelClasses: Set<ByteText> = [
        "Bart", "Blenderbot", "CodeGen", "Cohere", "Deberta", "GPT2", "GPTNeoX", "LED", "Longformer", "Mvp", "Qwen2", "Roberta",
        "Whisper",
    ]
    private static let metaspaceClasses: Set<ByteText> = [
        "Albert", "Barthez", "BigBird", "Camembert", "CodeLlama", "Llama", "RemBert", "XGLM", "XLMRoberta", "XLNet",
    ]
    /// Those of `metaspaceClasses` whose `legacy` is false by default: only the start of the text gets a space.
    private static let firstOnlyClasses: Set<ByteText> = ["CodeLlama", "Llama"]

    mutating func apply(_ configuration: TokenizerConfiguration) {
        guard let adds = configuration.addsPrefixSpace else { return }
        let name = Self.family(configuration.tokenizerClass)
        if name.map(Self.byteLevelClasses.contains) ?? true {
            preTokenizer = preTokenizer?.withPrefixSpace(adds)
        } else if let name, Self.metaspaceClasses.contains(name) {
            let isFirstOnly = Self.firstOnlyClasses.contains(name) && configuration.isLegacy != true
            preTokenizer = preTokenizer?.withScheme(adds ? (isFirstOnly ? .first : .always) : .never)
            if !adds { (normalizer, decoder) = (normalizer?.withoutPrepending, decoder?.withoutStripping) }
        }
    }

    /// `LlamaTokenizerFast` → `Llama`; `nil` where no class is named.
    private static func family(_ name: String?) -> ByteText? {
        guard var name = name?[...] else { return nil }
        for suffix in ["Fast", "Tokenizer"] where name.hasByteSuffix(suffix) { name = name.dropLast(suffix.count) }
        return ByteText(name)
    }
}

extension PreTokenizer {
    fileprivate func withPrefixSpace(_ adds: Bool) -> PreTokenizer {
        switch self {
        case .sequence(let parts): .sequence(parts.map { $0.withPrefixSpace(adds) })
        case .byteLevel(_, let splits): .byteLevel(addsPrefixSpace: adds, splits: splits)
        default: self
        }
    }

    fileprivate func withScheme(_ scheme: PrependScheme) -> PreTokenizer {
        switch self {
        case .sequence(let parts): .sequence(parts.map { $0.withScheme(scheme) })
        case .metaspace(let replacement, _, let splits): .metaspace(replacement: replacement, scheme, splits: splits)
        default: self
        }
    }

    /// Whether a stage asks if a word stands at the start of the text.
    var asksForStart: Bool {
        switch self {
        case .sequence(let parts): parts.contains(where: \.asksForStart)
        case .metaspace(_, .first, _): true
        default: false
        }
    }
}

extension Normalizer {
    fileprivate var withoutPrepending: Normalizer {
        switch self {
        case .sequence(let parts): .sequence(parts.map(\.withoutPrepending))
        case .prepend: .sequence([])
        default: self
        }
    }

    /// Whether the normalized text may start elsewhere than the text as given.
    var mayDelete: Bool {
        switch self {
        case .sequence(let parts): parts.contains(where: \.mayDelete)
        case .strip, .replace, .precompiled, .removeExtraSpaces: true
        case .unicode, .lowercase, .prepend: false
        }
    }
}

extension Decoder {
    fileprivate var withoutStripping: Decoder {
        switch self {
        case .sequence(let parts): .sequence(parts.map(\.withoutStripping))
        case .strip: .sequence([])
        case .metaspace(let replacement, _): .metaspace(replacement: replacement, keepsFirst: true)
        default: self
        }
    }
}
