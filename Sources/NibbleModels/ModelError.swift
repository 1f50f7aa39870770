public import NibbleCore

/// What can be wrong with a model's config, its description or its weights.
public enum ModelError: Error, Sendable, Equatable {
    /// The family is not supported, or `model_type` is missing (`nil`).
    case unknownModelType(String?, file: String, known: [String])
    /// config.json lacks a field.
    case missingField(String, file: String)
    /// A field of config.json has a value that cannot be used.
    case wrongField(String, file: String, expected: String, found: String)
    /// A family's description and its module tree contradict each other.
    case wrongDescription(module: String, expected: String, found: String)
    /// A module was built without its weight.
    case missingWeight(String, module: String)
    /// A weight has another shape than its module.
    case wrongWeight(String, expected: Shape, found: Shape)
    /// An encoder-decoder got no encoder input.
    case encoderInputsMissing
    /// A decoder-only model got encoder input.
    case notEncoderDecoder
    /// A token id that the vocabulary does not have.
    case tokenOutOfRange(token: Int32, vocabularySize: Int)
    /// A size of an engine is below 1.
    case invalidEngineSize(field: String, found: Int, limit: Int)
    /// An adapter does not fit the model's layer.
    case adapterMismatch(adapter: String, layer: String, expected: String, found: String)
    /// More adapters than a model can have at once.
    case tooManyAdapters(limit: Int)
}

extension ModelError: CustomStringConvertible {
    /// The error as a sentence for the user.
    public var description: String {
        switch self {
        case .unknownModelType(let type, let file, let known):
            "\(file): model_type \(type.map { "\"\($0)\"" } ?? "is missing and") is not supported; known are \(known.joined(separator: ", "))"
        case .missingField(let field, let file):
            "\(file): the field \"\(field)\" is missing"
        case .wrongField(let field, let file, let expected, let found):
            "\(file): \"\(field)\" should be \(expected), found \(found)"
        case .wrongDescription(let module, let expected, let found):
            "the description of the model is wrong: \(module.isEmpty ? "the root" : module) should be \(expected), found \(found)"
        case .missingWeight(let weight, let module):
            "the weight \(weight) of \(module) was not loaded"
        case .wrongWeight(let weight, let expected, let found):
            "\(weight) has shape \(found), expected \(expected)"
        case .encoderInputsMissing:
            "an encoder-decoder model needs encoder inputs"
        case .notEncoderDecoder:
            "a decoder-only model takes no encoder inputs"
        case .tokenOutOfRange(let token, let size):
            "token id \(token) is outside the vocabulary of \(size)"
        case .invalidEngineSize(let field, let found, let limit):
            "\(field) of an engine must be from 1 to \(limit), found \(found)"
        case .adapterMismatch(let adapter, let layer, let expected, let found):
            "the adapter \(adapter) does not fit \(layer): expected \(expected), found \(found)"
        case .tooManyAdapters(let limit):
            "a model can have \(limit) adapters at once: unload one first"
        }
    }
}
