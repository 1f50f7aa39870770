import Foundation
import Nibble
import NibbleCheckpoint
import NibbleCore
import NibbleModels
import NibbleTestSupport

/// One folder of recorded results: a tiny checkpoint and what the reference answered.
struct FixtureModel: Sendable, CustomStringConvertible {
    let name: String
    let folder: URL

    init(_ name: String, in root: URL = Fixtures.root) {
        self.name = name
        folder = root.appending(path: "fixtures/models/\(name)")
    }

    var description: String { name }

    /// All folders whose family is supported: those of the full set, and the repository's own.
    static let all: [FixtureModel] = {
        let own = Fixtures.repository.appending(path: "Tests/Fixtures")
        let names = Fixtures.folders(in: "fixtures/models")
        let more = Fixtures.folders(in: "fixtures/models", of: own).filter { !names.contains($0) }
        return (names.map { FixtureModel($0) } + more.map { FixtureModel($0, in: own) }).filter { $0.isSupported }
    }()

    private var isSupported: Bool {
        guard let root = try? JSONValue(contentsOf: folder.appending(path: "config.json")),
            let object = root.object.map({ TextTower($0)?.config ?? $0 }), let type = object["model_type"]?.string
        else { return false }
        return ModelRegistry.modelTypes.contains(type)
    }

    func expected() throws -> JSONValue { try JSONValue(contentsOf: folder.appending(path: "expected.json")) }

    func recorded() throws -> any Checkpoint { try CheckpointFiles.open(file: folder.appending(path: "expected.safetensors")) }

    /// Loads as the fixture was recorded: float32, the reference's behaviour, quantized by `config`.
    func load(_ config: JSONValue? = nil, dtype: DType = .float32) throws -> PretrainedModel {
        var configuration = try configuration(config)
        configuration.dtype = dtype
        return try PretrainedModel.load(folder: folder, configuration)
    }

    func configuration(_ config: JSONValue? = nil) throws -> LoadConfiguration {
        var configuration = LoadConfiguration()
        configuration.dtype = .float32
        configuration.followsReference = true
        configuration.quantization = try config?.object.map { try BitsAndBytesConfig($0) }
        return configuration
    }
}

extension Checkpoint {
    func ids(_ name: String) throws -> [[Int32]]? {
        guard descriptor(name) != nil else { return nil }
        let tensor = try tensor(name)
        let flat = tensor.hostElements(Int64.self).map { Int32($0) }
        let width = tensor.shape[1]
        return (0..<tensor.shape[0]).map { Array(flat[$0 * width..<($0 + 1) * width]) }
    }
}

/// ‖y − r‖₂ / ‖r‖₂ over the positions that attention covers.
struct LogitsComparison {
    private var difference = 0.0
    private var norm = 0.0

    /// - Parameters:
    ///   - recorded: [rows, positions, V], the last `positions` of each row.
    ///   - mask: which positions of a row count; `nil`: all.
    init(_ logits: Tensor, _ recorded: Tensor, mask: [[Int32]]?, rows: Range<Int>) {
        let (width, size) = (logits.shape[1], logits.shape[2])
        let kept = recorded.shape[1]
        let ours = logits.hostElements(Float.self)
        let theirs = recorded.hostElements(Float.self)
        for row in rows {
            for position in 0..<kept where mask?[row][width - kept + position] != 0 {
                let from = (row * width + width - kept + position) * size
                let to = ((row - rows.lowerBound) * kept + position) * size
                for column in 0..<size {
                    let reference = Double(theirs[to + column])
                    let delta = Double(ours[from + column]) - reference
                    difference += delta * delta
                    norm += reference * reference
                }
            }
        }
    }

    var relativeError: Double { (difference / max(norm, 1e-300)).squareRoot() }
}
