import ArgumentParser
import Foundation
import NibbleGeneration

/// The arguments of a user, in the form that the argument parser expects.
enum CommandArguments {
    /// - Throws: `ValidationError` if the first argument, or the one behind `help`, is a word, but no command.
    static func checkCommand(_ arguments: [String], names: [String]) throws {
        var arguments = arguments[...]
        if arguments.first == "help" { arguments = arguments.dropFirst() }
        let names = names + ["help"]
        guard let word = arguments.first, !word.hasPrefix("-"), !names.contains(word) else { return }
        throw ValidationError("there is no command \"\(word)\": \(advice(for: word, names))")
    }

    /// What programs of the same kind call our commands.
    private static let otherNames = [
        "run": "generate or chat", "complete": "generate", "server": "serve", "start": "serve", "api": "serve",
        "download": "pull", "fetch": "pull", "get": "pull", "list": "models", "ls": "models", "cache": "models",
        "rm": "models remove", "remove": "models remove", "delete": "models remove", "convert": "quantize",
        "benchmark": "bench", "tokenizer": "tokenize", "encode": "tokenize", "version": "--version",
    ]

    private static func advice(for word: String, _ names: [String]) -> String {
        if let other = otherNames[word.lowercased()] { return "did you mean \(other)?" }
        let distances = names.map { (name: $0, distance: editDistance(word.lowercased(), $0)) }
        if let nearest = distances.min(by: { ($0.distance, $0.name) < ($1.distance, $1.name) }), nearest.distance <= 2 {
            return "did you mean \(nearest.name)?"
        }
        if word.contains("/") || FileManager.default.fileExists(atPath: word) {
            return "to use a model, write nibble generate \(word) \"PROMPT\""
        }
        return "nibble --help lists them"
    }

    /// Joins values to their options where the parser would take the value for something else: negative numbers
    /// (`--temperature -1`) and the value of `--do-sample`, which may stand alone.
    static func joiningValues(_ arguments: [String]) -> [String] {
        var joined: [String] = []
        var rest = arguments[...]
        while let argument = rest.popFirst() {
            if argument == "--" { return joined + [argument] + rest }
            if argument == "--do-sample" {
                let value = rest.first.flatMap { ["true", "false"].contains($0) ? $0 : nil }
                joined.append("--do-sample=\(value ?? "true")")
                if value != nil { rest = rest.dropFirst() }
            } else if isLongOption(argument), let value = rest.first, isNegativeNumber(value) {
                joined.append("\(argument)=\(value)")
                rest = rest.dropFirst()
            } else {
                joined.append(argument)
            }
        }
        return joined
    }

    private static func isLongOption(_ argument: String) -> Bool { argument.hasPrefix("--") && !argument.contains("=") }

    private static func isNegativeNumber(_ argument: String) -> Bool {
        argument.utf8.first == UInt8(ascii: "-") && Double(argument) != nil
    }
}
