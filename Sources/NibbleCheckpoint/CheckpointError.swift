/// What is wrong with a checkpoint. `file` is always the full path.
public enum CheckpointError: Error, Equatable {
    /// The file is missing, not a regular file, or the system refused to open or map it.
    case unreadable(file: String, reason: String)
    /// No weights in a folder.
    case noWeights(folder: String, tried: [String], hint: String?)
    /// A name in an index or configuration would leave the checkpoint's folder.
    case unsafePath(file: String, name: String)
    /// An index names a shard that is not there.
    case missingShard(index: String, shard: String)
    /// An index puts a tensor in a shard that does not hold it.
    case missingFromShard(index: String, tensor: String, shard: String)
    /// A tensor was asked for that the checkpoint does not hold.
    case noSuchTensor(name: String, files: [String])
    /// The file is not of the form it claims.
    case malformed(file: String, tensor: String?, expected: String, found: String)
    /// The file names an element type that does not exist.
    case unknownDType(file: String, tensor: String, found: String)
    /// More dimensions than ``Shape`` holds.
    case unsupportedRank(file: String, tensor: String, shape: [Int])
    /// Well-formed, but of a kind that is not read: a pickle that names another global, a compressed archive …
    case refused(file: String, what: String)
    /// The file cannot be written.
    case unwritable(file: String, reason: String)
}

extension CheckpointError: CustomStringConvertible {
    /// The error as a sentence for the user.
    public var description: String {
        switch self {
        case .unreadable(let file, let reason):
            "\(file) cannot be read: \(reason)"
        case .noWeights(let folder, let tried, let hint):
            "no weights in \(folder): looked for \(tried.joined(separator: ", "))" + (hint.map { "; \($0)" } ?? "")
        case .unsafePath(let file, let name):
            "\(file) names the file \"\(name)\", which is not a plain path inside its folder"
        case .missingShard(let index, let shard):
            "\(index) names the shard \(shard), which is not there"
        case .missingFromShard(let index, let tensor, let shard):
            "\(index) puts \(tensor) in \(shard), which does not hold it"
        case .noSuchTensor(let name, let files):
            "no tensor \(name) in \(files.joined(separator: ", "))"
        case .malformed(let file, let tensor, let expected, let found):
            "\(file)\(tensor.map { ", tensor \($0)" } ?? ""): expected \(expected), found \(found)"
        case .unknownDType(let file, let tensor, let found):
            "\(file), tensor \(tensor): unknown element type \(found)"
        case .unsupportedRank(let file, let tensor, let shape):
            "\(file), tensor \(tensor): shape \(shape) has \(shape.count) dimensions; at most 4 are supported"
        case .refused(let file, let what):
            "\(file) is refused: \(what)"
        case .unwritable(let file, let reason):
            "\(file) cannot be written: \(reason)"
        }
    }
}
