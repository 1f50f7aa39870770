import Foundation
import NibbleCore
import NibbleModels
import NibbleTestSupport
import Testing

/// The module tree that a config gives, against the reference's own.
@Suite struct ModuleTreeTests {
    static let names: [String] = {
        let files = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        return files.filter { $0.hasSuffix(".json") }.map { String($0.dropLast(5)) }.sorted()
    }()
    private static let folder = Fixtures.repository.appending(path: "Tests/Fixtures/trees")

    @Test("names, classes, order, shapes, buffers and ties are the reference's", arguments: names)
    func tree(name: String) throws {
        let recorded = try JSONValue(contentsOf: Self.folder.appending(path: name + ".json"))
        let config = ConfigReader(try #require(recorded["config"]?.object), file: name)
        let tree = try ModelRegistry.architecture(config).tree

        let expected = try #require(recorded["modules"]?.array).map(Line.init)
        let found = tree.modules.map(Line.init)
        for (found, expected) in zip(found, expected) where found != expected {
            Issue.record("\(found) should be \(expected)")
            break
        }
        #expect(found.count == expected.count)
        #expect(tree.noSplitClasses == Set((recorded["no_split"]?.array ?? []).compactMap(\.string)))
        let ties = (recorded["tied"]?.array ?? []).map { ($0.array ?? []).compactMap(\.string) }
        #expect(tree.tied.map { [$0.target, $0.source] } == ties)
    }

    @Test("every family has a recorded tree")
    func coverage() throws {
        let types = try Self.names.map {
            try JSONValue(contentsOf: Self.folder.appending(path: $0 + ".json"))["config"]?["model_type"]?.string ?? ""
        }
        // The reference does not hold InternLM2's code.
        #expect(Set(types).union(["internlm2"]) == Set(ModelRegistry.modelTypes))
    }
}

/// A module as text, so that a difference can be read.
private struct Line: Equatable, CustomStringConvertible {
    let description: String

    init(_ module: LocatedModule) {
        let parameters = module.node.parameters.map { "\($0.name)\($0.shape.dimensions)" }
        let buffers = module.node.buffers.map { "\($0.name)(\($0.count) \($0.dtype) \($0.isPersistent))" }
        description = ([module.path, module.node.className] + parameters + buffers).joined(separator: " ")
    }

    init(_ recorded: JSONValue) {
        let fields = recorded.array ?? []
        let parameters = (fields[2].object?.members ?? []).map { key, value in
            "\(key)\((value.array ?? []).compactMap(\.int))"
        }
        let buffers = (fields[3].object?.members ?? []).map { key, value in
            let parts = value.array ?? []
            return "\(key)(\(parts[0].int ?? 0) \(parts[1].string ?? "") \(parts[2].bool ?? false))"
        }
        description = ([fields[0].string ?? "", fields[1].string ?? ""] + parameters + buffers).joined(separator: " ")
    }
}
