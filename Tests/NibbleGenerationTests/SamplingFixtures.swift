import Foundation
import NibbleCheckpoint
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

    func tensors() throws -> SafetensorsFile { try SafetensorsFile(Fixtures.url(path + "/expected.safetensors")) }
}
