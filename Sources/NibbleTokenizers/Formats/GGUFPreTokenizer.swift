/// How a byte-level BPE model cuts text into words, by the name that a GGUF file gives in `tokenizer.ggml.pre`. The names
/// and their meaning are llama.cpp's.
struct GGUFPreTokenizer {
    enum Cut {
        /// Each match is a piece, and so is what lies between two matches.
        case pattern(String)
        /// Each digit is a piece.
        case digits
        /// GPT-2's own pattern.
        case gpt2
    }

    /// Applied one after the other, each to the pieces of the one before.
    var cuts: [Cut]
    /// A word that is a token is not merged from smaller ones.
    var ignoresMerges = false
    /// Whether a text begins with bos where the file does not say.
    var addsBos = false
    var normalizesToNFC = false

    init?(named name: String) {
        if let known = Self.words(name) ?? Self.patterns(name) { self = known } else { return nil }
    }

    private init(_ cuts: [Cut], ignoresMerges: Bool = false, addsBos: Bool = false, normalizesToNFC: Bool = false) {
        self.cuts = cuts
        self.ignoresMerges = ignoresMerges
        self.addsBos = addsBos
        self.normalizesToNFC = normalizesToNFC
    }

    /// Those that derive from GPT-2's pattern.
    private static func words(_ name: String) -> GGUFPreTokenizer? {
        switch name {
        case "default", "gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais", "trillion", "modern-bert", "gigachat", "a.x-4.0",
            "mellum", "exaone4", "granite-docling", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de":
            GGUFPreTokenizer([.gpt2])
        case "smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2":
            GGUFPreTokenizer([.digits, .gpt2])
        case "falcon":
            GGUFPreTokenizer([.pattern(#"[\p{P}$+<=>^~|`]+"#), .gpt2, .pattern("[0-9][0-9][0-9]")])
        default: nil
        }
    }

    private static func patterns(_ name: String) -> GGUFPreTokenizer? {
        switch name {
        case "llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano":
            GGUFPreTokenizer([.pattern(KnownPatterns.llama3)], ignoresMerges: true, addsBos: true)
        case "smaug-bpe", "dbrx", "glm4", "chatglm-bpe":
            GGUFPreTokenizer([.pattern(KnownPatterns.llama3)])
        case "qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "kormo", "f2llmv2":
            GGUFPreTokenizer([.pattern(KnownPatterns.qwen2)], normalizesToNFC: true)
        case "hunyuan", "solar-open", "grok-2": GGUFPreTokenizer([.pattern(KnownPatterns.qwen2)])
        case "qwen35": GGUFPreTokenizer([.pattern(KnownPatterns.qwen35)], normalizesToNFC: true)
        case "seed-coder": GGUFPreTokenizer([.pattern(KnownPatterns.seedCoder)])
        case "bailingmoe", "bailingmoe2", "llada-moe": GGUFPreTokenizer([.pattern(KnownPatterns.bailing)])
        case "bloom", "poro-chat", "gpt3-finnish": GGUFPreTokenizer([.pattern(KnownPatterns.bloom)])
        case "viking": GGUFPreTokenizer([.pattern(KnownPatterns.bloom), .digits])
        case "tekken": GGUFPreTokenizer([.pattern(KnownPatterns.tekken)], ignoresMerges: true, addsBos: true)
        case "gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2": GGUFPreTokenizer([.pattern(KnownPatterns.gpt4o)])
        case "tiny_aya", "cohere2moe":
            GGUFPreTokenizer([.pattern(#"\d{1,3}(?=(?:\d{3})*(?!\w))"#), .pattern(KnownPatterns.gpt4o)])
        case "deepseek-llm": GGUFPreTokenizer(KnownPatterns.deepSeek.map(Cut.pattern))
        case "deepseek-coder": GGUFPreTokenizer(KnownPatterns.deepSeekCoder.map(Cut.pattern))
        case "deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4":
            GGUFPreTokenizer(KnownPatterns.deepSeek3.map(Cut.pattern))
        default: nil
        }
    }

    /// - Parameter file: for error messages.
    func preTokenizer(file: String) throws(TokenizerError) -> PreTokenizer {
        let field = "tokenizer.ggml.pre"
        if case .pattern(let pattern)? = cuts.first, cuts.count == 1 {
            return try KnownPatterns.preTokenizer(pattern, file: file, field: field)
        }
        var parts: [PreTokenizer] = []
        for (index, cut) in cuts.enumerated() {
            switch cut {
            case .pattern(let pattern): parts.append(try KnownPatterns.split(pattern, file: file, field: field))
            case .digits: parts.append(.digits(individual: true))
            case .gpt2 where index == cuts.count - 1: parts.append(.byteLevel(addsPrefixSpace: false, splits: true))
            case .gpt2: parts.append(.split(.regex(PreTokenizer.byteLevelPattern), .isolated, isInverted: false))
            }
        }
        if case .gpt2? = cuts.last {} else { parts.append(.byteLevel(addsPrefixSpace: false, splits: false)) }
        return parts.count == 1 ? parts[0] : .sequence(parts)
    }
}
