import Foundation
import NibbleCore
import NibbleModels
import NibbleTestSupport
import Testing

/// The rotary fields of configs, read as transformers reads them.
@Suite struct RotaryReadingTests {
    /// A config, and what `make_rotary_readings.py` recorded of it: frequencies by the length of the call, one entry a rotary
    /// embedding, or an error. The file has whole configs, and changes to a common one; a case
    /// names its reading by number, and has none where there is an error.
    struct Reading: Sendable, CustomStringConvertible {
        let config: JSONObject
        let read: JSONObject?

        var description: String {
            let fields = config.members.filter { name, _ in
                ["rop", "rot", "par", "ori"].contains { name.hasPrefix($0) }
            }
            return (config["model_type"]?.string ?? "") + " "
                + JSONValue.object(JSONObject(fields.map { ($0.key, $0.value) })).description
        }
    }

    static let readings: [Reading] = {
        let file = Fixtures.repository.appending(path: "Tests/Fixtures/rotary_readings.json")
        guard let recorded = try? JSONValue(contentsOf: file), let common = recorded["common"]?.object else { return [] }
        return (recorded["cases"]?.array ?? []).compactMap { item in
            let changed = item["changes"]?.object.map { changes in changes.members.reduce(into: common) { $0[$1.key] = $1.value }
            }
            let read = item["reading"]?.int.flatMap { recorded["readings"]?[$0]?.object }
            return (item["config"]?.object ?? changed).map { Reading(config: $0, read: read) }
        }
    }()

    @Test("the recorded readings are there")
    func recorded() { #expect(Self.readings.count > 400) }

    @Test("frequencies are the reference's, or an error where it has one", arguments: readings)
    func reading(_ reading: Reading) throws {
        guard let read = reading.read else {
            // "su" is read as long rope, as the reference means to and fails to.
            let found = Result { try ModelRegistry.architecture(ConfigReader(reading.config)) }
            if reading.isPhiWithOldName {
                #expect(throws: Never.self) { try found.get() }
            } else {
                #expect(throws: ModelError.self) { try found.get() }
            }
            return
        }
        let rotary = try ModelRegistry.architecture(ConfigReader(reading.config)).decoder.rotary
        for length in [1, 100] {
            let wanted = try #require((read[String(length)] ?? read["1"])?.array)
            #expect(rotary.count == wanted.count)
            for (rotary, wanted) in zip(rotary, wanted) {
                let (inverse, attention) = rotary.frequencies(length: length)
                let numbers = (wanted["inverse"]?.array ?? []).compactMap(\.double)
                #expect(inverse.count == numbers.count)
                for (found, number) in zip(inverse, numbers) { #expect(abs(Double(found) - number) <= 2e-6 * number) }
                #expect(abs(Double(attention) - (wanted["attention"]?.double ?? .nan)) < 1e-6)
            }
        }
    }

    private static let llama: JSONObject = [
        "model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 32,
        "vocab_size": 64, "max_position_embeddings": 64,
    ]

    private func warnings(_ changes: JSONObject, of family: String = "llama") throws -> [String] {
        var config = Self.llama
        config["model_type"] = .string(family)
        for (key, value) in changes { config[key] = value }
        return try ModelRegistry.architecture(ConfigReader(config)).warnings
    }

    /// Configs, and the field that a warning has to name; `nil`: no warning.
    static let unread: [(family: String, changes: JSONObject, field: String?)] = [
        ("llama", [:], nil),
        ("llama", ["rope_theta": 500.0, "rope_scaling": nil], nil),
        ("llama", ["partial_rotary_factor": 1.0], nil),
        ("llama", ["partial_rotary_factor": 0.5], "partial_rotary_factor"),
        ("llama", ["rope_parameters": ["rope_theta": 5.0], "rope_theta": 5.0], nil),
        ("llama", ["rope_parameters": ["rope_theta": 5.0], "rope_theta": 6.0], "rope_theta"),
        (
            "llama", ["rope_scaling": ["type": "linear", "factor": 2.0], "rope_parameters": ["rope_theta": 5.0]],
            "rope_parameters"
        ),
        ("llama", ["rope_scaling": ["type": "default", "factor": 2.0]], "factor"),
        ("llama", ["rope_scaling": ["type": "linear", "factor": 2.0, "beta_fast": 4]], "beta_fast"),
        ("llama", ["original_max_position_embeddings": 32], "original_max_position_embeddings"),
        (
            "llama",
            [
                "original_max_position_embeddings": 32,
                "rope_scaling": ["type": "yarn", "factor": 2.0, "original_max_position_embeddings": 16],
            ], "original_max_position_embeddings of the rotary parameters"
        ),
        ("phi3", ["original_max_position_embeddings": 32], nil),
        ("gpt_neox", ["rope_theta": 5.0], "rope_theta"),
        ("gpt_neox", ["partial_rotary_factor": 0.5], "partial_rotary_factor"),
        ("gemma3_text", ["head_dim": 16, "rope_parameters": ["rope_type": "linear", "factor": 2.0]], "rope_parameters"),
        ("gemma3_text", ["head_dim": 16, "rope_scaling": ["rope_type": "linear", "factor": 2.0]], nil),
    ]

    @Test("a value that nothing reads is named in a warning", arguments: unread.indices)
    func warnings(_ index: Int) throws {
        let (family, changes, field) = Self.unread[index]
        let found = try warnings(changes, of: family)
        if let field {
            #expect(found.count == 1 && found[0].contains("\(field) ") && found[0].contains("has no effect"), "\(found)")
        } else {
            #expect(found.isEmpty, "\(found)")
        }
    }

    @Test(
        "a length that no text reaches is no reason to refuse a model",
        arguments: [.int(1 << 31), 1_000_000_000_000, 1e30] as [JSONValue])
    func hugeLength(_ length: JSONValue) throws {
        for changes in [[:], ["rope_scaling": ["rope_type": "dynamic", "factor": 2.0]]] as [JSONObject] {
            var config = Self.llama
            for (key, value) in changes { config[key] = value }
            config["max_position_embeddings"] = length
            let architecture = try ModelRegistry.architecture(ConfigReader(config))
            #expect(architecture.maximumPositions == Int(Int32.max))
            #expect(architecture.positionLimit == nil)
        }
    }

    @Test("frequencies that are no numbers are refused")
    func finite() throws {
        var config = Self.llama
        config["rope_scaling"] = ["rope_type": "yarn", "factor": 2.0, "attention_factor": .double(.nan)]
        #expect(throws: ModelError.self) { try ModelRegistry.architecture(ConfigReader(config)) }
    }

    @Test("only tables limit positions", arguments: ["gpt2", "opt", "gpt_neo", "pegasus", "bart"])
    func tables(name: String) throws {
        let file = Fixtures.repository.appending(path: "Tests/Fixtures/trees/\(name).json")
        let config = try #require(try JSONValue(contentsOf: file)["config"]?.object)
        let architecture = try ModelRegistry.architecture(ConfigReader(config))
        let positions = try #require(architecture.maximumPositions)
        #expect(architecture.positionLimit == positions)
    }
}

extension RotaryReadingTests.Reading {
    fileprivate var isPhiWithOldName: Bool {
        guard config["model_type"]?.string == "phi3" else { return false }
        let fields = config["rope_scaling"] ?? config["rope_parameters"]
        return (fields?["rope_type"] ?? fields?["type"])?.string == "su" && fields?["short_factor"] != nil
    }
}
