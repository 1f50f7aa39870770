import Foundation
import NibbleCore
import NibbleTestSupport
import Testing

/// `nibble plan` as other programs use it.
@Suite(.computing) struct PlanCommandTests {
    /// A folder with nothing but the config of a recorded case.
    private func folder(_ golden: JSONValue) throws -> URL {
        let folder = try Fixtures.temporaryFolder()
        let config = try #require(golden["config"])
        try Data(config.encoded().utf8).write(to: folder.appending(path: "config.json"))
        return folder
    }

    private func golden(_ name: String) throws -> JSONValue {
        try JSONValue(contentsOf: Fixtures.url("golden/device_map/\(name).json"))
    }

    private func plan(_ folder: URL, _ arguments: String...) throws -> JSONValue {
        let outcome = try CommandLineTool.run(["plan", folder.path, "--json"] + arguments)
        try #require(outcome.status == 0, "\(outcome.errors)")
        return try JSONValue.parse(outcome.output)
    }

    @Test("the reference's refusal is reported beside its map, with exit code 0") func refusal() throws {
        let golden = try golden("bloom3b_nf4_two_gpus_600MB_1GB")
        let folder = try folder(golden)
        defer { try? FileManager.default.removeItem(at: folder) }
        let arguments = ["--dtype", "float16", "--load-in-4bit", "--max-memory", "0=600MB,1=1GB"]
        for switches in [["--planner", "reference"], ["--reference-behaviour"]] {
            let outcome = try CommandLineTool.run(["plan", folder.path, "--json"] + arguments + switches)
            #expect(outcome.status == 0)
            let plan = try JSONValue.parse(outcome.output)
            #expect(plan["error"]?.string == "offload_of_quantized_modules")
            #expect(plan["device_map"]?[""]?.string == "disk")
        }
    }

    @Test(
        "Nibble's plan stays within the budgets and says what each device holds",
        arguments: [("--load-in-4bit", "0=600MB,1=1GB"), ("--load-in-8bit", "0=1GB,1=2GB")])
    func budgets(form: String, limits: String) throws {
        let folder = try folder(try golden("bloom3b_nf4_two_gpus_600MB_1GB"))
        defer { try? FileManager.default.removeItem(at: folder) }
        let plan = try plan(folder, "--dtype", "float16", form, "--max-memory", limits)
        #expect(plan["error"] == nil)
        for device in ["0", "1"] {
            let use = try #require(plan["devices"]?[device])
            let parts = ["weights", "scales", "kv_cache", "workspace", "loading", "context"].compactMap { use[$0]?.int }
            #expect(parts.count == 6)
            #expect(parts.reduce(0, +) == use["total"]?.int)
            #expect((use["total"]?.int ?? .max) <= (use["budget"]?.int ?? 0))
        }
        #expect(plan["device_map"]?["transformer.word_embeddings"]?.string == "cpu")
        #expect(plan["devices"]?["disk"] == nil)
    }

    @Test("the state of recurrent layers is named, and the same for every context") func states() throws {
        let folder = Fixtures.repository.appending(path: "Tests/Fixtures/fixtures/models/qwen3_5_tiny")
        let plans = try [1000, 32000].map { try plan(folder, "--context", "\($0)", "--max-memory", "cpu=1GB") }
        let states = plans.compactMap { $0["recurrent_state"]?.int }
        let caches = plans.compactMap { $0["devices"]?["cpu"]?["kv_cache"]?.int }
        try #require(states.count == 2 && caches.count == 2)
        #expect(states[0] > 0 && states[0] == states[1])
        // Blocks of 32 positions.
        #expect((caches[1] - states[1]) * 32 == (caches[0] - states[0]) * 1000)
        let text = try CommandLineTool.run(["plan", folder.path, "--max-memory", "cpu=1GB"]).output
        #expect(text.contains("are the state of recurrent layers, which does not grow with the context"))
    }

    private let bloom = "bloom3b_nf4_two_gpus_600MB_1GB"

    @Test("a quantized head on the CPU takes no loading room of the GPUs") func quantizedHead() throws {
        let folder = try folder(try golden(bloom))
        defer { try? FileManager.default.removeItem(at: folder) }
        let arguments = ["--dtype", "float16", "--load-in-4bit", "--max-memory", "0=600MB,1=1GB"]
        func devices(_ more: String...) throws -> JSONValue {
            let outcome = try CommandLineTool.run(["plan", folder.path, "--json"] + arguments + more)
            try #require(outcome.status == 0, "\(outcome.errors)")
            return try #require(try JSONValue.parse(outcome.output)["devices"])
        }
        let (without, with) = (try devices(), try devices("--quantize-head", "nf4"))
        #expect(with["disk"] == nil)
        for device in ["0", "1"] {
            #expect(with[device]?["loading"]?.int == without[device]?["loading"]?.int)
            #expect(with[device]?["weights"]?.int == without[device]?["weights"]?.int)
        }
    }

    @Test("the guide's budgets keep the tied head on a GPU") func guide() throws {
        let folder = try folder(try golden(bloom))
        defer { try? FileManager.default.removeItem(at: folder) }
        let plan = try plan(folder, "--dtype", "float16", "--load-in-4bit", "--max-memory", "0=1GB,1=2GB")
        #expect(plan["device_map"]?["transformer.word_embeddings"]?.string == "1")
        #expect(plan["device_map"]?["lm_head"]?.string == "1")
        for device in ["0", "1"] {
            let use = try #require(plan["devices"]?[device])
            #expect((use["total"]?.int ?? .max) <= (use["budget"]?.int ?? 0))
        }
        #expect(plan["hints"]?.array?.isEmpty == true)
    }

    @Test("a tied head that does not fit is told of options that bring it back, and they do") func hints() throws {
        let folder = try folder(try golden(bloom))
        defer { try? FileManager.default.removeItem(at: folder) }
        let arguments = ["plan", folder.path, "--dtype", "float16", "--load-in-4bit", "--max-memory", "0=900MB,1=1950MB"]
        let text = try CommandLineTool.run(arguments).output
        let hint = try #require(text.split(separator: "\n").first { $0.hasPrefix("hint: ") })
        #expect(hint.contains("--double-quant") && hint.contains("--context 256"))
        for option in [["--double-quant"], ["--context", "256"]] {
            let plan = try JSONValue.parse(try CommandLineTool.run(arguments + option + ["--json"]).output)
            #expect(plan["device_map"]?["lm_head"]?.string == "1", "\(option)")
        }
    }

    @Test("a T5 that does not fit is told of its float32 layers, and fits with them quantized") func float32Layers() throws {
        let folder = try folder(try golden("t5_11b_int8_one_gpu"))
        defer { try? FileManager.default.removeItem(at: folder) }
        let arguments = ["--dtype", "bfloat16", "--load-in-8bit", "--max-memory", "0=15GB,cpu=1GB"]
        let text = try CommandLineTool.run(["plan", folder.path] + arguments).output
        #expect(text.contains("--quantize-wo"))
        let plan = try JSONValue.parse(
            try CommandLineTool.run(["plan", folder.path, "--json", "--quantize-wo"] + arguments).output)
        #expect(plan["devices"]?["disk"] == nil)
        #expect(try #require(plan["devices"]?["0"]?["total"]?.int) < 15_000_000_000)
        #expect(plan["hints"]?.array?.isEmpty == true)
    }

    @Test("the exit code says that a model does not fit; the plan is printed all the same", arguments: [[], ["--json"]])
    func doesNotFit(form: [String]) throws {
        let folder = try folder(try golden("bloom560m_f16_seed"))
        defer { try? FileManager.default.removeItem(at: folder) }
        let outcome = try CommandLineTool.run(["plan", folder.path, "--max-memory", "cpu=1MB"] + form)
        #expect(outcome.status == 1)
        #expect(outcome.output.contains("does not fit"))
        #expect(try CommandLineTool.run(["plan", folder.path, "--max-memory", "cpu=8GB"] + form).status == 0)
    }

    @Test("--estimate gives the size table") func estimate() throws {
        let folder = try folder(try golden("bloom560m_f16_seed"))
        defer { try? FileManager.default.removeItem(at: folder) }
        let rows = try plan(folder, "--estimate")["estimate"]?.array ?? []
        #expect(rows.map { $0["total_size"]?.string } == ["2.08 GB", "1.04 GB", "533.31 MB", "266.65 MB"])
        #expect(rows.map { $0["training"]?.string } == ["8.33 GB", "4.17 GB", "N/A", "N/A"])
    }

    @Test(
        "mistakes are one clear line",
        arguments: [
            (["--max-memory", "gpu=1GB"], "\"gpu\" is no device"), (["--max-memory", "0=1TB"], "\"1TB\" is no size of memory"),
            (["--device-map", "fast"], "\"fast\" is no device map"),
            (["--device-map", "{\"transformer.h.0\": 0}"], "names no device for"),
        ])
    func mistakes(arguments: [String], message: String) throws {
        let folder = try folder(try golden("bloom560m_f16_seed"))
        defer { try? FileManager.default.removeItem(at: folder) }
        let outcome = try CommandLineTool.run(["plan", folder.path] + arguments)
        #expect(outcome.status != 0)
        #expect(outcome.errors.contains(message))
    }
}
