import NibbleCore

/// What is wrong with a checkpoint. `file` is always the full path.
public enum CheckpointError: Error, Equatable {
    /// The file is missing, is not a regular file, or the system refused to open or map it.
    case unreadable(file: String, reason: String)
    /// No weights in a folder.
    case noWeights(folder: String, tried: [String], hint: String?)
    /// A name in an index or configuration would leave the checkpoint's folder.
    case unsafePath(file: String, name: String)
    /// An index names a shard that is not there.
    case missingShard(index: String, shard: String)
    /// An index promises a tensor that no shard holds.
    case missingFromShard(index: String, tensor: String, shard: String)
    /// The checkpoint does not hold the tensor that was asked for.
    case noSuchTensor(name: String, files: [String])
    /// The file does not have the form that its name or its beginning claims.
    case malformed(file: String, tensor: String?, expected: String, found: String)
    /// The file names an element type that does not exist.
    case unknownDType(file: String, tensor: String, found: String)
    /// More dimensions than `Shape` holds.
    case unsupportedRank(file: String, tensor: String, shape: [Int])
    /// Well-formed, but of a kind that is not read: a pickle that names another global, a web page, an encrypted archive …
    case refused(file: String, what: String)
    /// The file cannot be written.
    case unwritable(file: String, reason: String)
}

extension CheckpointError: CustomStringConvertible {
    /// The error as a sentence for the user.
    public var description: String {
        switch self {
        case .unreadable(let file, let reason):
            "\(file.printablePath) cannot be read: \(reason)"
        case .noWeights(let folder, let tried, let hint):
            "no weights in \(folder.printablePath): looked for \(tried.map { $0.printable() }.joined(separator: ", "))"
                + (hint.map { "; \($0.printablePath)" } ?? "")
        case .unsafePath(let file, let name):
            "\(file.printablePath) names the file \"\(name.printable())\", which is not a plain path inside its folder"
        case .missingShard(let index, let shard):
            "\(index.printablePath) names the shard \(shard.printable()), which is not there"
        case .missingFromShard(let index, let tensor, let shard):
            "\(index.printablePath) puts \(tensor.printable()) in \(shard.printable()), which does not hold it"
        case .noSuchTensor(let name, let files):
            "no tensor \(name.printable()) in \(files.map(\.printablePath).joined(separator: ", "))"
        case .malformed(let file, let tensor, let expected, let found):
            Self.place(file, tensor) + ": expected \(expected.printable(limit: 400)), found \(found.printable(limit: 400))"
        case .unknownDType(let file, let tensor, let found):
            Self.place(file, tensor) + ": unknown dtype \(found.printable())"
        case .unsupportedRank(let file, let tensor, let shape):
            Self.place(file, tensor)
                + ": shape \(shape) has \(shape.count) dimensions; at most \(Shape.maximumRank) are supported"
        case .refused(let file, let what):
            "\(file.printablePath) is refused: \(what.printable(limit: 600))"
        case .unwritable(let file, let reason):
            "\(file.printablePath) cannot be written: \(reason)"
        }
    }

    private static func place(_ file: String, _ tensor: String?) -> String {
        file.printablePath + (tensor.map { ", tensor \($0.printable())" } ?? "")
    }
}
