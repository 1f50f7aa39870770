import Foundation
import NibbleCheckpoint
import NibbleCore
import NibbleTestSupport
import Testing

/// A folder that goes away with the test.
final class TemporaryFolder {
    let url: URL

    init() throws { url = try Fixtures.temporaryFolder() }
    deinit { try? FileManager.default.removeItem(at: url) }

    @discardableResult
    func write(_ bytes: some Sequence<UInt8>, to name: String) throws -> URL {
        let file = url.appending(path: name)
        try Data(bytes).write(to: file)
        return file
    }

    @discardableResult
    func write(_ text: String, to name: String) throws -> URL { try write(text.utf8, to: name) }

    var contents: [String] { get throws { try FileManager.default.contentsOfDirectory(atPath: url.path).sorted() } }
}

/// A safetensors file with this header text, whatever it says.
func safetensors(_ header: String, data: Int, headerLength: UInt64? = nil) -> [UInt8] {
    let length = headerLength ?? UInt64(header.utf8.count)
    return littleEndian(length) + header.utf8 + (0..<data).map { UInt8(truncatingIfNeeded: $0) }
}

extension Tensor {
    var bytes: [UInt8] { Array(hostBytes) }
    var floats: [Float] { Array(hostElements(Float.self)) }
    var halves: [Float16] { Array(hostElements(Float16.self)) }
}

/// The full path stands in every message.
func expectCheckpointError(
    naming file: URL, containing words: String..., sourceLocation: SourceLocation = #_sourceLocation,
    _ body: () throws -> some Any
) {
    let error = #expect(throws: CheckpointError.self, sourceLocation: sourceLocation) { _ = try body() }
    guard let text = error?.description else { return }
    for word in [file.path] + words {
        #expect(text.contains(word), "\(text) does not mention \(word)", sourceLocation: sourceLocation)
    }
}
