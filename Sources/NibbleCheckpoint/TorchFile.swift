public import Foundation
public import NibbleCore

/// A `pytorch_model.bin`. Not read yet.
public struct TorchFile: Checkpoint {
    public let names: [String] = []
    public let metadata: [String: String] = [:]
    public let files: [URL] = []

    public init(_ url: URL) throws { throw CheckpointError.refused(file: url.path, what: "pickles are not read yet") }

    public func descriptor(_ name: String) -> TensorDescriptor? { nil }
    public func tensor(_ name: String) throws -> Tensor { throw CheckpointError.noSuchTensor(name: name, files: []) }
    public func prefetch(_ name: String) {}
    public func dropPages(_ name: String) {}
}
