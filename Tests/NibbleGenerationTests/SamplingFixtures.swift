import Foundation
import NibbleCore
import NibbleTestSupport

/// Recorded distributions of the reference: logits, and probabilities after its processors and warpers.
struct SamplingFixture: CustomStringConvertible, Sendable {
    let path: String

    var description: String { path }

    /// The repository's own, and those of the full set where it is there.
    static let all: [SamplingFixture] =
        ["fixtures/sampling", "fixtures/models"].flatMap { folder in
            Fixtures.folders(in: folder).map { SamplingFixture(path: "\(folder)/\($0)") }
        }.filter { fixture in
            FileManager.default.fileExists(atPath: Fixtures.url(fixture.path + "/expected.safetensors").path)
        }

    func cases() throws -> [JSONValue] {
        try JSONValue(contentsOf: Fixtures.url(path + "/expected.json"))["sampling"]?.array ?? []
    }

    func tensors() throws -> TensorFile { try TensorFile(Fixtures.url(path + "/expected.safetensors")) }
}

/// Just enough of safetensors for these tests.
struct TensorFile {
    private let header: JSONValue
    private let data: [UInt8]

    init(_ file: URL) throws {
        let bytes = [UInt8](try Data(contentsOf: file))
        let length = bytes[0..<8].reversed().reduce(0) { $0 << 8 | Int($1) }
        header = try JSONValue.parse(bytes[8..<(8 + length)])
        data = Array(bytes[(8 + length)...])
    }

    private func bytes(_ name: String) -> ArraySlice<UInt8>? {
        guard let offsets = header[name]?["data_offsets"], let start = offsets[0]?.int, let end = offsets[1]?.int else {
            return nil
        }
        return data[start..<end]
    }

    func floats(_ name: String) -> [Float]? {
        bytes(name).map { bytes in
            bytes.withUnsafeBytes { raw in
                (0..<raw.count / 4).map { raw.loadUnaligned(fromByteOffset: $0 * 4, as: Float.self) }
            }
        }
    }

    func ids(_ name: String) -> [Int32]? {
        bytes(name).map { bytes in
            bytes.withUnsafeBytes { raw in
                (0..<raw.count / 8).map { Int32(raw.loadUnaligned(fromByteOffset: $0 * 8, as: Int64.self)) }
            }
        }
    }
}
