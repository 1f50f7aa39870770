import Foundation
import NibbleCore
import NibbleTestSupport
import Testing

@Suite struct JSONFieldTests {
    private static let root = JSONField(
        ["model": ["type": "BPE", "sizes": [1, 2.5, "x"], "none": nil], "flag": true], file: "t.json")

    private func message(_ body: () throws -> Void) -> String {
        do { try body() } catch { return "\(error)" }
        return "no error"
    }

    @Test func errorsNameFileFieldAndValue() throws {
        let model = try Self.root.required("model")
        #expect(message { _ = try model.required("vocab") } == "t.json: field 'model.vocab' is missing")
        #expect(message { _ = try model.required("none") } == "t.json: field 'model.none' is missing")
        #expect(
            message { _ = try model.required("type").bool() } == "t.json: field 'model.type': expected true or false, found 'BPE'"
        )
        let sizes = try model.required("sizes").elements()
        #expect(
            message { _ = try sizes[1].integer(in: 0...9) }
                == "t.json: field 'model.sizes[1]': expected a whole number from 0 to 9, found 2.5")
        #expect(message { _ = try sizes[2].double() } == "t.json: field 'model.sizes[2]': expected a number, found 'x'")
        #expect(message { _ = try Self.root.elements() } == "t.json: expected an array, found an object")
        #expect(try Self.root.flag("flag", default: false) && Self.root.flag("absent", default: true))
        #expect(try sizes[0].integer(in: 0...1) == 1)
    }

    @Test func linesOfAFileAreNamed() throws {
        #expect(try JSONField(line: "\"a\"", number: 3, of: "s.jsonl").string() == "a")
        #expect(
            message { _ = try JSONField(line: "{\"a\": x}", number: 3, of: "s.jsonl") }
                == "s.jsonl, line 3, column 7, in a: expected a value, found 'x'")
        #expect(
            message { _ = try JSONField(line: "5", number: 4, of: "s.jsonl").string() }
                == "s.jsonl, line 4: expected a string, found 5")
    }

    @Test func hostilePathsAreCut() {
        let deep = String(repeating: "{\"\(String(repeating: "k", count: 500))\":", count: 200)
        #expect(message { _ = try JSONValue.parse(deep) }.utf8.count < 500)
    }

    @Test("files are read whole, folders and missing files are named")
    func files() throws {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        #expect(message { _ = try JSONField(contentsOf: folder) } == "\(folder.path): cannot be read: a folder, not a file")
        let file = folder.appending(path: "x.json")
        #expect(message { _ = try JSONField(contentsOf: file) } == "\(file.path): cannot be read: no such file")
        try Data("{\"eps\": NaN, \"big\": 1000000000000000019884624838656}".utf8).write(to: file)
        let field = try JSONField(contentsOf: file)
        #expect(try field.required("eps").double().isNaN && field.required("big").double() == 1e30)
    }
}
