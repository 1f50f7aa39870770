import Foundation
import NibbleTestSupport
import Testing

/// What a shell offers behind a part of a command.
@Suite(.computing) struct CompletionTests {
    /// Runs a shell's script in a folder with a model, an empty cache entry, two files and the shells' completion scripts.
    private func output(of shell: String, _ script: String, _ arguments: [String]) throws -> String {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        for name in ["model", "cache/models--owner--small"] {
            try FileManager.default.createDirectory(at: folder.appending(path: name), withIntermediateDirectories: true)
        }
        for name in ["ids.safetensors", "schema.json"] { try Data().write(to: folder.appending(path: name)) }
        try Data(CommandLineTool.run(["--generate-completion-script", shell]).output.utf8)
            .write(to: folder.appending(path: "_nibble"))
        let process = Process()
        process.executableURL = URL(filePath: "/bin/\(shell)")
        process.currentDirectoryURL = folder
        process.environment = [
            "PATH": CommandLineTool.url.deletingLastPathComponent().path + ":/usr/bin:/bin", "TERM": "dumb",
            "HF_HUB_CACHE": folder.appending(path: "cache").path,
        ]
        process.arguments = ["-c", script, shell] + arguments
        let output = Pipe()
        process.standardOutput = output
        try process.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        return text
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
        let script = """
            source _nibble
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
            _nibble nibble "${@: -1}" "${@: -2:1}" 2> /dev/null
            printf '%s\\n' "${COMPREPLY[@]}"
            """
        let offers = try output(of: "bash", script, words).split(separator: "\n").map(String.init).sorted()
        #expect(offers == expected)
    }

    /// A command, and the same after Tab.
    @Test(
        "zsh completes commands, values and names",
        .enabled(if: FileManager.default.isExecutableFile(atPath: "/bin/zsh"), "zsh is not installed"),
        arguments: [
            ("nibble gen", "nibble generate "),
            ("nibble generate m", "nibble generate model/"),
            ("nibble generate model --quant-type n", "nibble generate model --quant-type nf4 "),
            ("nibble plan model --device-map balanced_", "nibble plan model --device-map balanced_low_0 "),
            ("nibble forward model --input i", "nibble forward model --input ids.safetensors "),
            ("nibble generate model --json-schema s", "nibble generate model --json-schema schema.json "),
            ("nibble models remove own", "nibble models remove owner/small "),
        ])
    func zsh(_ typed: String, _ expected: String) throws {
        // Another zsh runs in a pseudo-terminal; a key of its line editor writes the line to a file and ends it.
        let script = """
            zmodload zsh/zpty
            zpty shell zsh -f -i
            zpty -w shell 'fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -D; bindkey "^I" complete-word'
            zpty -w shell 'show() { print -r -- "$BUFFER" > line; exit }; zle -N show; bindkey "^T" show'
            zpty -w -n shell "$1"$'\\t\\x14'
            while zpty -r shell text; do :; done
            cat line
            """
        #expect(try output(of: "zsh", script, [typed]) == expected + "\n")
    }

    @Test("every shell has a script", arguments: ["bash", "zsh", "fish"])
    func scripts(_ shell: String) throws {
        let outcome = try CommandLineTool.run(["--generate-completion-script", shell])
        #expect(outcome.status == 0 && outcome.errors.isEmpty)
        #expect(outcome.output.contains("balanced_low_0") && outcome.output.contains("quant-type"))
    }
}
