import Foundation
import NibbleCheckpoint
import NibbleCore
import NibbleTestSupport

/// A folder in which the commands of a page run: `Models` and `Tests` are the repository's, `my-adapter` is a LoRA adapter of
/// `bloom-stories`, and names on the Hub lead to stand-ins.
struct DocumentationFolder {
    let url: URL

    /// The shipped model whose files a name on the Hub leads to.
    private static let standIns = [
        "bigscience/bloom-560m": "bloom-stories", "bigscience/bloom-3b": "bloom-stories", "google-t5/t5-11b": "t5-spelling",
        "HuggingFaceTB/SmolLM2-135M-Instruct": "bloom-stories",
    ]
    /// The recorded case that holds the model's own configuration; `plan` reads nothing else.
    private static let configurations = [
        "bigscience/bloom-3b": "bloom3b_nf4_fits_one", "google-t5/t5-11b": "t5_11b_int8_one_gpu",
    ]

    init() throws {
        url = try Fixtures.temporaryFolder()
        let files = FileManager.default
        for name in ["Models", "Tests"] {
            try files.createSymbolicLink(
                at: url.appending(path: name), withDestinationURL: Fixtures.repository.appending(path: name))
        }
        for (name, model) in Self.standIns { try standIn(name, for: Fixtures.models.appending(path: model)) }
        for (name, golden) in Self.configurations {
            let config = try JSONValue(contentsOf: Fixtures.url("golden/device_map/\(golden).json"))["config"]
            let snapshot = try snapshot(name, in: "planned")
            try Data((config ?? .null).encoded().utf8).write(to: snapshot.appending(path: "config.json"))
        }
        try writeAdapter()
    }

    func remove() throws { try FileManager.default.removeItem(at: url) }

    /// The environment of a command: no network, no GPU, `nibble` on the path.
    func environment(for command: String) -> [String: String] {
        let path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"
        return [
            "HF_HUB_CACHE": url.appending(path: command.hasPrefix("nibble plan") ? "planned" : "hub").path,
            "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "",
            "PATH": "\(CommandLineTool.url.deletingLastPathComponent().path):\(path)",
        ]
    }

    /// Runs a line of the shell. A chat hears "Hello".
    ///
    /// - Parameter hasKnownOutput: whether the page shows the whole output. It is computed by the plain kernels then, whose results
    ///   are the same on every machine.
    func run(_ command: String, hasKnownOutput: Bool = false) throws -> CommandLineTool.Outcome {
        var environment = environment(for: command)
        if hasKnownOutput { environment["NIBBLE_CPU"] = "generic" }
        let line = command.hasPrefix("nibble chat") ? "echo Hello | \(command)" : command
        return try CommandLineTool.run(["-c", line], environment: environment, program: URL(filePath: "/bin/sh"), folder: url)
    }

    /// Starts `nibble serve` on a free port. The command has no quoted words.
    func serve(_ command: String) throws -> ServeProcess {
        try ServeProcess(
            command.split(separator: " ").dropFirst(2).map(String.init), environment: environment(for: command), folder: url)
    }

    private func snapshot(_ name: String, in cache: String) throws -> URL {
        let commit = String(repeating: "0", count: 40)
        let model = url.appending(path: cache).appending(path: "models--" + name.replacing("/", with: "--"))
        let snapshot = model.appending(path: "snapshots/\(commit)")
        try FileManager.default.createDirectory(at: snapshot, withIntermediateDirectories: true)
        try FileManager.default.createDirectory(at: model.appending(path: "refs"), withIntermediateDirectories: true)
        try Data(commit.utf8).write(to: model.appending(path: "refs/main"))
        return snapshot
    }

    /// The model's files, with a chat template for names of chat models.
    private func standIn(_ name: String, for model: URL) throws {
        let snapshot = try snapshot(name, in: "hub")
        for file in try FileManager.default.contentsOfDirectory(atPath: model.path) {
            try FileManager.default.createSymbolicLink(
                at: snapshot.appending(path: file), withDestinationURL: model.appending(path: file))
        }
        guard name.hasSuffix("Instruct") else { return }
        let template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
        try Data(template.utf8).write(to: snapshot.appending(path: "chat_template.jinja"))
    }

    private func writeAdapter() throws {
        let folder = url.appending(path: "my-adapter")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let config = #"{"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["h.0.self_attention.query_key_value"]}"#
        try Data(config.utf8).write(to: folder.appending(path: "adapter_config.json"))
        let name = "base_model.model.transformer.h.0.self_attention.query_key_value"
        let values = (0..<2 * 768).map { Float($0 % 7) / 100 }
        try SafetensorsWriter().write(
            [
                ("\(name).lora_A.weight", .host(Array(values.prefix(2 * 256)), .float32, [2, 256])),
                ("\(name).lora_B.weight", .host(values, .float32, [768, 2])),
            ], to: folder.appending(path: "adapter_model.safetensors"))
    }
}
