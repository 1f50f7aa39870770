import NibbleCore

/// A model without weights: what `config.json` says, in Nibble's terms.
public struct ModelArchitecture: Sendable {
    public let modelType: String
    public let tree: ModuleTree
    public let keys: CheckpointKeys
    public let decoder: StackDescription
    public let encoder: StackDescription?
    public let head: HeadDescription
    public let vocabularySize: Int
    public let maximumPositions: Int?

    public init(
        modelType: String, tree: ModuleTree, keys: CheckpointKeys, decoder: StackDescription, encoder: StackDescription? = nil,
        head: HeadDescription = .init(), vocabularySize: Int, maximumPositions: Int? = nil
    ) {
        self.modelType = modelType
        self.tree = tree
        self.keys = keys
        self.decoder = decoder
        self.encoder = encoder
        self.head = head
        self.vocabularySize = vocabularySize
        self.maximumPositions = maximumPositions
    }
}

/// Reads a family's `config.json`.
public typealias ArchitectureReader = @Sendable (ConfigReader) throws -> ModelArchitecture

/// The families Nibble runs, by `model_type`.
public enum ModelRegistry {
    static let readers: [String: ArchitectureReader] = [
        "bloom": Bloom.architecture,
        "llama": Llama.architecture,
        "t5": T5.architecture,
        "mt5": T5.architecture,
    ]

    /// Supported `model_type` words, sorted.
    public static var modelTypes: [String] { readers.keys.sorted() }

    /// - Throws: ``ModelError/unknownModelType(_:file:known:)``, or what is wrong with a field.
    public static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let type = try config.optionalString("model_type")
        guard let type, let reader = readers[type] else {
            throw ModelError.unknownModelType(type, file: config.file, known: modelTypes)
        }
        return try reader(config)
    }
}

extension Array where Element == (target: String, source: String) {
    /// `pairs` if the config ties its embeddings.
    static func tied(_ isTied: Bool, _ pairs: (String, String)...) -> [(target: String, source: String)] {
        isTied ? pairs.map { (target: $0.0, source: $0.1) } : []
    }
}
