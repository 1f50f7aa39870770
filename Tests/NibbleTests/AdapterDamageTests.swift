import Foundation
import Nibble
import NibbleCheckpoint
import NibbleCore
import NibbleLoading
import NibbleModels
import NibbleTestSupport
import Testing

/// Adapters that are refused, or broken: each gets a typed error that says where and what.
@Suite struct AdapterDamageTests {
    @Test("adapters of other kinds are refused by field, with what to do instead")
    func refused() throws {
        let folder = AdapterFixture.refused
        let cases = try #require(try JSONValue(contentsOf: folder.appending(path: "expected.json"))["refused"]?.object)
        #expect(cases.count >= 8)
        for (name, expected) in cases {
            let place = folder.appending(path: try #require(expected["folder"]?.string))
            #expect("\(name)") {
                _ = try AdapterFile(folder: place)
            } throws: { error in
                guard case .unsupportedAdapter(let file, let field, _, let remedy)? = error as? LoadError else { return false }
                return file.hasSuffix("adapter_config.json") && field == expected["field"]?.string && remedy.count > 20
            }
        }
    }

    @Test(
        "further kinds are refused",
        arguments: [
            ("alora_invocation_tokens", JSONValue.array([1, 2])), ("arrow_config", ["top_k": 3]), ("use_bdlora", true),
            ("init_lora_weights", "loftq"), ("init_lora_weights", "something"), ("megatron_config", ["a": 1]),
        ] as [(String, JSONValue)])
    func refused(field: String, value: JSONValue) throws {
        let adapter = try Copy(of: Self.adapter("llama_qv"))
        defer { adapter.remove() }
        try adapter.config { $0[field] = value }
        #expect {
            _ = try AdapterFile(folder: adapter.folder)
        } throws: { error in
            guard case .unsupportedAdapter(_, field, _, _)? = error as? LoadError else { return false }
            return true
        }
    }

    @Test("a broken adapter is a typed error that names file and place", arguments: cases)
    func broken(fixture: AdapterFixture) throws {
        let source = try ModelSource(folder: try fixture.base().folder)
        var count = 0
        for folder in try fixture.adapters() {
            for damage in try Self.damages(folder, fixture) {
                let adapter = try Copy(of: folder)
                defer { adapter.remove() }
                try damage.apply(adapter)
                let model = damage.base ?? source
                do {
                    _ = try MatchedAdapter(
                        try AdapterFile(folder: adapter.folder), model.architecture, tree: model.architecture.tree)
                    Issue.record("\(fixture) \(damage.name): no error")
                } catch let error as any Error & CustomStringConvertible {
                    let isTyped = error is LoadError || error is CheckpointError || error is JSONError
                    #expect(isTyped, "\(damage.name): \(error)")
                    #expect("\(error)".contains("adapter_"), "\(damage.name): \(error)")
                    count += 1
                }
            }
        }
        #expect(count >= 20)
    }

    @Test("there are 200 of them") func enough() throws {
        let count = try Self.cases.reduce(0) { sum, fixture in
            try sum + fixture.adapters().reduce(0) { try $0 + Self.damages($1, fixture).count }
        }
        print("  \(count) broken adapters")
        #expect(count >= 200)
    }

    @Test("a scale that is not there, or a folder without an adapter") func noAdapter() throws {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        #expect(throws: LoadError.notAdapter(folder: folder.path)) { _ = try AdapterFile(folder: folder) }
        let adapter = try Self.adapter("llama_qv")
        try FileManager.default.copyItem(
            at: adapter.appending(path: "adapter_config.json"), to: folder.appending(path: "adapter_config.json"))
        #expect(throws: CheckpointError.self) { _ = try AdapterFile(folder: folder) }
    }

    // MARK: The damage

    private static let cases = AdapterFixture.all

    private static func adapter(_ name: String) throws -> URL {
        try #require(AdapterFixture.all.first { $0.name == name }).folder
    }

    private struct Damage {
        var name: String
        /// The model that it is loaded onto instead of its own.
        var base: ModelSource?
        var apply: (Copy) throws -> Void
    }

    private static func damages(_ folder: URL, _ fixture: AdapterFixture) throws -> [Damage] {
        try configDamages() + tensorDamages(folder) + fileDamages(folder) + wrongBases(fixture)
    }

    private static func configDamages() -> [Damage] {
        func config(_ name: String, _ change: @escaping (inout JSONObject) -> Void) -> Damage {
            Damage(name: name) { try $0.config(change) }
        }
        return [
            config("another rank") {
                $0["r"] = .int(($0["r"]?.int ?? 0) + 1)
                $0["rank_pattern"] = nil
            },
            config("r of zero") { $0["r"] = 0 }, config("r as text") { $0["r"] = "eight" },
            config("infinite alpha") { $0["lora_alpha"] = .double(.infinity) },
            config("alpha as a list") { $0["lora_alpha"] = [1] },
            config("a pattern that is none") { $0["rank_pattern"] = ["(": 3] },
            config("no type") { $0["peft_type"] = nil },
            config("a flag as text") { $0["use_rslora"] = "yes" },
            config("modules to save as a number") { $0["modules_to_save"] = 3 },
            config("tokens twice") { $0["trainable_token_indices"] = [5, 5] },
            Damage(name: "a list as config") { try $0.write("[]", to: "adapter_config.json") },
            Damage(name: "half a config") { copy in
                let text = try String(contentsOf: copy.folder.appending(path: "adapter_config.json"), encoding: .utf8)
                try copy.write(String(text.prefix(text.count / 2)), to: "adapter_config.json")
            },
            config("DoRA without magnitudes, or magnitudes without DoRA") {
                $0["use_dora"] = .bool($0["use_dora"]?.bool != true)
            },
            config("a bias of B that is not there, or one too many") { $0["lora_bias"] = .bool($0["lora_bias"]?.bool != true) },
        ]
    }

    private static func tensorDamages(_ folder: URL) throws -> [Damage] {
        let names = try Copy.tensors(of: folder).map(\.name).filter { $0.contains("lora_") }
        func change(_ name: String, _ tensor: @escaping (Tensor) -> Tensor?) -> [Damage] {
            [names.first, names.last].compactMap(\.self).map { key in
                Damage(name: "\(name): \(key)") { copy in
                    try copy.tensors { $0.name == key ? tensor($0.tensor).map { (key, $0) } : $0 }
                }
            }
        }
        func all(_ name: String, _ rename: @escaping (String) -> String) -> Damage {
            Damage(name: name) { try $0.tensors { (rename($0.name), $0.tensor) } }
        }
        return change("missing") { _ in nil }
            + change("a row too few") { tensor in tensor.shape[0] > 1 ? tensor.rows(0..<tensor.shape[0] - 1) : nil }
            + change("flat") { $0.viewed(as: [$0.count, 1, 1]) }
            + change("not a number") { .host([Float](repeating: .nan, count: $0.count), .float32, $0.shape) }
            + change("infinite") { tensor in
                var values = [Float](repeating: 0, count: tensor.count)
                values[tensor.count - 1] = .infinity
                return .host(values, .float32, tensor.shape)
            }
            + change("integers") { .host([Int32](repeating: 1, count: $0.count), .int32, $0.shape) }
            + [
                all("modules that are not there") { $0.replacing("base_model.model.", with: "base_model.model.other.") },
                all("unknown modules") { $0.replacing("lora_A", with: "lora_X") },
                Damage(name: "an unknown tensor") { copy in
                    try copy.tensors(adding: ("base_model.model.nothing.weight", .host([Float(1)], .float32, [1]))) { $0 }
                },
            ]
    }

    private static func fileDamages(_ folder: URL) throws -> [Damage] {
        let name = Copy.weights(of: folder)
        var damages = [0, 7, 100].map { length in
            Damage(name: "cut at \(length)") { copy in
                let data = try Data(contentsOf: copy.folder.appending(path: name))
                try data.prefix(length).write(to: copy.folder.appending(path: name))
            }
        }
        damages.append(
            Damage(name: "cut at the end") { copy in
                let data = try Data(contentsOf: copy.folder.appending(path: name))
                try data.dropLast(data.count / 4).write(to: copy.folder.appending(path: name))
            })
        damages.append(
            Damage(name: "a pickle that runs a command") { copy in
                try FileManager.default.removeItem(at: copy.folder.appending(path: name))
                try copy.write("cos\nsystem\n(S'true'\ntR.", to: "adapter_model.bin")
            })
        return damages
    }

    /// Bases with other modules.
    private static func wrongBases(_ fixture: AdapterFixture) throws -> [Damage] {
        let own = try fixture.base().name
        return try ["bloom", "t5"].filter { $0 != own }.map { name in
            let base = fixture.other(name)
            let folder =
                FileManager.default.fileExists(atPath: base.folder.path)
                ? base.folder
                : Fixtures.repository.appending(path: "Tests/Fixtures/fixtures/models/\(name)")
            return Damage(name: "over \(name)", base: try ModelSource(folder: folder)) { _ in }
        }
    }
}

/// A copy of an adapter that a test may damage.
private struct Copy {
    let folder: URL

    init(of original: URL) throws {
        folder = try Fixtures.temporaryFolder()
        for name in ["adapter_config.json", Copy.weights(of: original)] {
            try Data(contentsOf: original.appending(path: name)).write(to: folder.appending(path: name))
        }
    }

    func remove() { try? FileManager.default.removeItem(at: folder) }

    static func weights(of folder: URL) -> String {
        let name = "adapter_model.safetensors"
        return FileManager.default.fileExists(atPath: folder.appending(path: name).path) ? name : "adapter_model.bin"
    }

    static func tensors(of folder: URL) throws -> [(name: String, tensor: Tensor)] {
        let file = try CheckpointFiles.open(file: folder.appending(path: weights(of: folder)))
        return try file.names.map { ($0, try file.tensor($0)) }
    }

    func write(_ text: String, to name: String) throws { try Data(text.utf8).write(to: folder.appending(path: name)) }

    func config(_ change: (inout JSONObject) -> Void) throws {
        var object = try #require(try JSONValue(contentsOf: folder.appending(path: "adapter_config.json")).object)
        change(&object)
        try write(JSONValue.object(object).encoded(), to: "adapter_config.json")
    }

    /// Writes the tensors anew, as a safetensors file.
    func tensors(
        adding more: (name: String, tensor: Tensor)? = nil,
        _ change: ((name: String, tensor: Tensor)) -> (name: String, tensor: Tensor)?
    ) throws {
        let changed = try Copy.tensors(of: folder).compactMap(change) + [more].compactMap(\.self)
        try SafetensorsWriter().write(changed, to: folder.appending(path: "new.safetensors"))
        try FileManager.default.removeItem(at: folder.appending(path: Copy.weights(of: folder)))
        try FileManager.default.moveItem(
            at: folder.appending(path: "new.safetensors"), to: folder.appending(path: "adapter_model.safetensors"))
    }
}
