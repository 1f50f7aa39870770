import Foundation
import NibbleTestSupport
import Testing

/// What a shell offers behind a part of a command.
@Suite(.computing) struct CompletionTests {
    private func offers(_ words: [String]) throws -> [String] {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        for name in ["model", "cache/models--owner--small"] {
            try FileManager.default.createDirectory(at: folder.appending(path: name), withIntermediateDirectories: true)
        }
        for name in ["ids.safetensors", "schema.json"] { try Data().write(to: folder.appending(path: name)) }
        try Data(CommandLineTool.run(["--generate-completion-script", "bash"]).output.utf8)
            .write(to: folder.appending(path: "completion.bash"))
        let process = Process()
        process.executableURL = URL(filePath: "/bin/bash")
        process.currentDirectoryURL = folder
        process.environment = [
            "PATH": CommandLineTool.url.deletingLastPathComponent().path + ":/usr/bin:/bin",
            "HF_HUB_CACHE": folder.appending(path: "cache").path,
        ]
        let script = """
            source completion.bash
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
            _nibble nibble "${@: -1}" "${@: -2:1}" 2> /dev/null
            printf '%s\\n' "${COMPREPLY[@]}"
            """
        process.arguments = ["-c", script, "bash"] + words
        let output = Pipe()
        process.standardOutput = output
        try process.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        return text.split(separator: "\n").map(String.init).sorted()
    }

    @Test(
        "values of options, models of the cache, and files of the right kind",
        arguments: [
            (["nibble", "gen"], ["generate"]),
            (["nibble", "generate", "m"], ["model"]),
            (["nibble", "generate", "model", "--quant-type", ""], ["fp4", "nf4"]),
            (["nibble", "generate", "model", "--do-sample", ""], ["false", "true"]),
            (["nibble", "plan", "model", "--dtype", "b"], ["bfloat16"]),
            (["nibble", "plan", "model", "--planner", ""], ["nibble", "reference"]),
            (["nibble", "plan", "model", "--device-map", "bal"], ["balanced", "balanced_low_0"]),
            (["nibble", "serve", "model", "--cache-bits", ""], ["2", "4", "8"]),
            (["nibble", "quantize", "model", "--quant-storage", "u"], ["uint8"]),
            (["nibble", "forward", "model", "--input", "i"], ["ids.safetensors"]),
            (["nibble", "generate", "model", "--json-schema", "s"], ["schema.json"]),
            (["nibble", "chat", "model", "--offload-folder", ""], ["cache", "model"]),
            (["nibble", "grammar", "--json-whitespace", ""], ["compact", "flexible"]),
            (["nibble", "models", "remove", "own"], ["owner/small"]),
        ])
    func bash(_ words: [String], _ expected: [String]) throws {
        #expect(try offers(words) == expected)
    }

    @Test("every shell has a script", arguments: ["bash", "zsh", "fish"])
    func scripts(_ shell: String) throws {
        let outcome = try CommandLineTool.run(["--generate-completion-script", shell])
        #expect(outcome.status == 0 && outcome.errors.isEmpty)
        #expect(outcome.output.contains("balanced_low_0") && outcome.output.contains("quant-type"))
    }
}
