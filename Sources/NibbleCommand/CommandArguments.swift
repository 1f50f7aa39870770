import ArgumentParser
import NibbleGeneration

/// The arguments of a user, in the form that the argument parser expects.
enum CommandArguments {
    /// - Throws: `ValidationError` if the first argument is a word, but no command.
    static func checkCommand(_ arguments: [String], names: [String]) throws {
        let names = names + ["help"]
        guard let word = arguments.first, !word.hasPrefix("-"), !names.contains(word) else { return }
        let nearest = names.min { (editDistance(word, $0), $0) < (editDistance(word, $1), $1) }
        let suggestion = nearest.flatMap { editDistance(word, $0) <= 2 ? ": did you mean \($0)?" : nil }
        throw ValidationError("there is no command \"\(word)\"\(suggestion ?? ": nibble --help lists them")")
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
