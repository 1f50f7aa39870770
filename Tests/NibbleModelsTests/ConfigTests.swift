import Foundation
import NibbleCore
import NibbleModels
import NibbleTestSupport
import Testing

/// Configs that no model has: every one must end in a ``ModelError`` or a model, never in a trap.
@Suite(.computing) struct ConfigTests {
    static let names: [String] = {
        let files = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        return files.filter { $0.hasSuffix(".json") }.map { String($0.dropLast(5)) }.sorted()
    }()
    private static let folder = Fixtures.repository.appending(path: "Tests/Fixtures/trees")

    private func config(_ name: String) throws -> JSONObject {
        try #require(try JSONValue(contentsOf: Self.folder.appending(path: name + ".json"))["config"]?.object)
    }

    private func read(_ config: JSONObject) throws {
        let architecture = try ModelRegistry.architecture(ConfigReader(config))
        let plan = QuantizationPlan(architecture.tree, config: nil)
        #expect(architecture.tree.footprint(plan, loadDType: .float16) >= 0)
    }

    private static let replacements: [JSONValue] = [
        0, -1, 1, 7, .int(1 << 30), .int(.max), .int(.min), 0.5, 1e300, .double(.nan), true, "x", .null, [1], .object([:]),
    ]

    @Test("any field replaced by anything", arguments: names)
    func replacedFields(name: String) throws {
        let config = try config(name)
        var refused = 0
        for key in config.keys {
            for value in Self.replacements {
                var changed = config
                changed[key] = value
                do { try read(changed) } catch is ModelError { refused += 1 }
            }
            var without = config
            without[key] = nil
            do { try read(without) } catch is ModelError { refused += 1 }
        }
        #expect(refused > 100)
    }

    @Test("rotary parameters replaced by anything", arguments: ["llama", "phi3_longrope", "gemma3_text", "gpt_neox"])
    func replacedRotary(name: String) throws {
        let config = try config(name)
        let parameters = try #require(config["rope_parameters"]?.object)
        for key in parameters.keys + ["factor", "short_factor", "original_max_position_embeddings"] {
            for type: JSONValue in ["default", "linear", "dynamic", "llama3", "yarn", "longrope"] {
                for value in Self.replacements {
                    var changed = parameters
                    changed["rope_type"] = type
                    changed[key] = value
                    var config = config
                    config["rope_parameters"] = .object(changed)
                    do { try read(config) } catch is ModelError {}
                }
            }
        }
    }

    @Test("Gemma 3's older configs scale the full layers' positions only")
    func gemma3Rotary() throws {
        var config = try config("gemma3_text")
        config["rope_parameters"] = nil
        config["rope_theta"] = 500_000
        config["rope_local_base_freq"] = 20_000
        config["rope_scaling"] = ["rope_type": "linear", "factor": 8.0]
        let rotary = try ModelRegistry.architecture(ConfigReader(config)).decoder.rotary
        #expect(rotary.map(\.theta) == [500_000, 20_000])
        guard case .linear(factor: 8) = rotary[0].scaling, case .none = rotary[1].scaling else {
            Issue.record("\(rotary)")
            return
        }
    }

    @Test("an explicit null is no window, a missing field the default one")
    func nullIsNotMissing() throws {
        var config = try config("mistral")
        config["sliding_window"] = .null
        #expect(try ModelRegistry.architecture(ConfigReader(config)).decoder.layers.allSatisfy { $0.attention.window == nil })
        config["sliding_window"] = nil
        #expect(try ModelRegistry.architecture(ConfigReader(config)).decoder.layers.allSatisfy { $0.attention.window == 4096 })
    }

    @Test("the error names file, field and what was found")
    func message() throws {
        var config = try config("llama")
        config["num_key_value_heads"] = 3
        #expect(
            throws: ModelError.wrongField(
                "num_key_value_heads", file: "config.json", expected: "a divisor of the 4 heads", found: "3")
        ) { try read(config) }
        config["hidden_size"] = nil
        #expect(throws: ModelError.missingField("hidden_size", file: "config.json")) { try read(config) }
        config["model_type"] = "perceptron"
        #expect(throws: ModelError.self) { try read(config) }
    }
}

/// docs/families.md against the registry.
@Suite struct FamilyTableTests {
    private struct Row {
        let types: [String]
        let fixtures: [String]

        init?(_ line: Substring) {
            let cells = line.split(separator: "|", omittingEmptySubsequences: false)
            guard cells.count == 5 else { return nil }
            func words(_ cell: Substring) -> [String] {
                cell.split(separator: "`", omittingEmptySubsequences: false).enumerated()
                    .filter { $0.offset % 2 == 1 }.map { String($0.element) }
            }
            (types, fixtures) = (words(cells[1]), words(cells[3]))
            guard !types.isEmpty, types != ["model_type"] else { return nil }
        }
    }

    private func rows() throws -> [Row] {
        let text = try String(contentsOf: Fixtures.repository.appending(path: "docs/families.md"), encoding: .utf8)
        return text.split(separator: "\n").compactMap(Row.init)
    }

    @Test("the table lists the registry's families, each once")
    func families() throws {
        #expect(try rows().flatMap(\.types).sorted() == ModelRegistry.modelTypes)
    }

    @Test("what the table calls tested is recorded")
    func fixtures() throws {
        for row in try rows() {
            // The reference does not hold InternLM2's code.
            #expect(!row.fixtures.isEmpty || row.types == ["internlm2"], "\(row.types)")
            for name in row.fixtures {
                #expect(ConfigTests.names.contains(name), "\(name)")
            }
        }
    }
}
