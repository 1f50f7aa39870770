import ArgumentParser
import Foundation
import Nibble
import NibbleCore

struct PlanCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "plan",
        abstract: "Tell what would go where, and why; load nothing.",
        discussion: """
            Needs config.json only, and downloads no more. Devices named in --max-memory are taken as present. The exit code is \
            1 if the model does not fit. With --json: \
            {"device_map": {"module": "device", …}, "devices": {"0": {"weights": …, "kv_cache": …, …}}, …}.

            Example: nibble plan bigscience/bloom-3b --load-in-4bit --max-memory 0=600MB,1=1GB
            """)

    @Argument(help: "A model folder, a GGUF file, or owner/name on the Hub.", completion: .file())
    var model: String

    @Flag(help: "Print JSON.")
    var json = false

    @Flag(help: "Print rough sizes in float32, float16, int8 and int4, as accelerate estimates them.")
    var estimate = false

    @OptionGroup(title: "Adapters")
    var adapters: AdapterOptionsGroup

    @OptionGroup(title: "Load options")
    var load: LoadOptionsGroup

    func run() async throws {
        let configuration = try load.configuration(adapters)
        let folder = try await PretrainedFiles.folder(for: model, .config, configuration)
        let preview = try LoadPreview(folder: folder, configuration)
        if estimate {
            Console.output(
                json ? EstimateReport.json(preview.estimate).encoded(.pretty) : EstimateReport.text(preview.estimate))
        } else {
            Console.output(json ? PlanReport.json(preview).encoded(.pretty) : PlanReport(preview, name: model).text)
            if case .doesNotFit? = preview.placement.refusal { throw ExitCode.failure }
        }
    }
}

/// A placement as text and as JSON.
struct PlanReport {
    let preview: LoadPreview
    let name: String

    init(_ preview: LoadPreview, name: String) {
        self.preview = preview
        self.name = name
    }

    // MARK: JSON

    static func json(_ preview: LoadPreview) -> JSONValue {
        let plan = preview.placement
        let map = plan.deviceMap.entries.sorted { $0.key < $1.key }.map { ($0.key, JSONValue.string($0.value.mapKey)) }
        let devices = plan.devices.map { use -> (String, JSONValue) in
            var members: [(String, JSONValue)] = [
                ("weights", .int(use.weights)), ("scales", .int(use.scales)), ("kv_cache", .int(use.cache)),
                ("workspace", .int(use.workspace)), ("loading", .int(use.loading)), ("context", .int(use.context)),
                ("total", .int(use.total)),
            ]
            if let budget = use.budget { members.append(("budget", .int(budget))) }
            return (use.device.mapKey, .object(JSONObject(members)))
        }
        var members: [(String, JSONValue)] = [
            ("device_map", .object(JSONObject(map))), ("devices", .object(JSONObject(devices))),
            ("planner", .string(plan.planner.rawValue)), ("dtype", .string(preview.dtype.rawValue)),
            ("quantization", preview.quantization.map { .string($0.method) } ?? .null),
            ("context", .int(preview.context)), ("batch_size", .int(preview.batchSize)),
            ("memory_footprint", .int(preview.footprint)), ("stored_bytes", .int(plan.storedBytes)),
            ("warnings", .array(preview.warnings.map(JSONValue.string))),
            ("hints", .array(plan.hints.map(JSONValue.string))),
        ]
        if plan.stateBytes > 0 { members.append(("recurrent_state", .int(plan.stateBytes))) }
        if let refusal = plan.refusal {
            members += [("error", .string(refusal.code)), ("message", .string(refusal.description))]
        }
        return .object(JSONObject(members))
    }

    // MARK: Text

    var text: String {
        let plan = preview.placement
        let format = preview.quantization.map { "\($0.method), the rest \(preview.dtype)" } ?? "\(preview.dtype)"
        let planner =
            switch plan.planner {
            case .reference: "transformers' plan"
            case .nibble: "Nibble's plan"
            case .explicit: "the given map"
            }
        var lines = ["\(name): \(format); \(planner), for \(preview.batchSize) × \(preview.context) tokens", ""]
        lines += TextTable.lines([["MODULES", "DEVICE", "BYTES", "WHY"]] + plan.ranges.map(row), rightAligned: [2])
        lines.append("")
        let header = ["DEVICE", "WEIGHTS", "SCALES", "KV CACHE", "WORKSPACE", "LOADING", "CONTEXT", "TOTAL", "BUDGET"]
        lines += TextTable.lines([header] + plan.devices.map(row), rightAligned: Set(1...8))
        lines += [
            "",
            "footprint as transformers counts it: \(ByteCount.text(preview.footprint)); stored by Nibble: \(ByteCount.text(plan.storedBytes))",
        ]
        if plan.stateBytes > 0 {
            lines.append(
                "of the KV cache, \(ByteCount.text(plan.stateBytes)) are the state of recurrent layers, which does not grow with the context"
            )
        }
        lines += preview.warnings.map { "warning: \($0)" }
        lines += plan.hints.map { "hint: \($0)" }
        if let refusal = plan.refusal { lines.append("loading would stop: \(refusal)") }
        return lines.joined(separator: "\n")
    }
}

extension PlanReport {
    private func row(_ range: PlacementPlan.ModuleRange) -> [String] {
        let modules = range.first == range.last ? range.first : "\(range.first) … \(range.last)"
        return [modules, "\(range.device)", ByteCount.text(range.bytes), range.reason]
    }

    private func row(_ use: PlacementPlan.DeviceMemory) -> [String] {
        let counts: [Int] = [use.weights, use.scales, use.cache, use.workspace, use.loading, use.context, use.total]
        return ["\(use.device)"] + counts.map(ByteCount.text) + [use.budget.map(ByteCount.text) ?? "none"]
    }
}

/// The size table as text and as JSON.
enum EstimateReport {
    static func text(_ estimate: MemoryEstimate) -> String {
        TextTable.lines(
            [["DTYPE", "LARGEST LAYER", "TOTAL SIZE", "TRAINING USING ADAM"]]
                + estimate.rows.map { row in
                    [
                        row.dtype, MemoryEstimate.text(row.largestLayer), MemoryEstimate.text(row.total),
                        row.training.map(MemoryEstimate.text) ?? "N/A",
                    ]
                }, rightAligned: [1, 2, 3]
        ).joined(separator: "\n")
    }

    static func json(_ estimate: MemoryEstimate) -> JSONValue {
        let rows = estimate.rows.map { row -> JSONValue in
            let training = row.training.map(MemoryEstimate.text) ?? "N/A"
            let members: [(String, JSONValue)] = [
                ("dtype", .string(row.dtype)), ("largest_layer", .string(MemoryEstimate.text(row.largestLayer))),
                ("total_size", .string(MemoryEstimate.text(row.total))), ("training", .string(training)),
                ("largest_layer_bytes", .double(row.largestLayer)), ("total_bytes", .double(row.total)),
            ]
            return .object(JSONObject(members))
        }
        return .object(JSONObject([("estimate", .array(rows))]))
    }
}

/// Columns of text.
enum TextTable {
    static func lines(_ rows: [[String]], rightAligned: Set<Int>) -> [String] {
        let columns = rows.map(\.count).max() ?? 0
        let widths = (0..<columns).map { column in rows.map { $0.count > column ? $0[column].count : 0 }.max() ?? 0 }
        return rows.map { row in
            let cells = row.enumerated().map { column, text in
                let padding = String(repeating: " ", count: widths[column] - text.count)
                if rightAligned.contains(column) { return padding + text }
                return column == row.count - 1 ? text : text + padding
            }
            return cells.joined(separator: "  ")
        }
    }
}
