import NibbleCore
import NibbleGeneration

/// Wrong usage as a user reads it: what is wrong, and where to look, on two lines.
struct UsageMessage {
    let text: String

    /// - Parameters:
    ///   - parserText: ArgumentParser's message: `Error: …`, then `Help: …`, `Usage: …` and `See '…'`.
    ///   - arguments: what the user typed, without the program's name.
    ///   - help: the command's help with hidden options, which tells the options that there are.
    init(parserText: String, arguments: [String], help: String) {
        var lines = parserText.textLines.map(String.init).filter { !$0.isEmpty }
        guard let first = lines.first, first.hasPrefix("Error: ") else {
            text = parserText
            return
        }
        // A misspelt option first: what it leaves out ("give --output") is a consequence.
        lines[0] = Self.unknownOption(arguments, help).map { "Error: \($0)" } ?? Self.withExpectedValue(first)
        let isMissing = lines[0].hasPrefix("Error: Missing expected argument")
        var (message, place): ([String], String?) = ([], nil)
        for line in lines.map({ $0.trimmingPrefix(while: { $0 == " " }) }) {
            switch line {
            case _ where line.hasPrefix("Help:"): continue
            case _ where line.hasPrefix("Usage:"): place = isMissing ? String(line) : place
            case _ where line.hasPrefix("See '"): place = isMissing ? place : String(line)
            default: message.append(String(line))
            }
        }
        text = [message.joined(separator: " "), place].compactMap(\.self).joined(separator: "\n")
    }

    /// The first option among `arguments` that the command does not have, with the nearest one that it has.
    private static func unknownOption(_ arguments: [String], _ help: String) -> String? {
        let known = Set(help.matches(of: #/--[a-z0-9][a-z0-9-]*/#).map { String($0.output) })
        for argument in arguments.prefix(while: { $0 != "--" }) where argument.hasPrefix("--") {
            let name = String(argument.prefix { $0 != "=" })
            guard !known.contains(name) else { continue }
            let near = known.map { (name: $0, distance: $0.hasPrefix(name) ? 0 : editDistance(name, $0)) }
                .filter { $0.distance <= max(2, name.count / 3) }
                .min { ($0.distance, $0.name) < ($1.distance, $1.name) }
            return "Unknown option '\(name)'" + (near.map { ". Did you mean '\($0.name)'?" } ?? "")
        }
        return nil
    }

    /// `The value 'x' is invalid for '--top-k <top-k>'` → `--top-k should be a number, found "x"`.
    private static func withExpectedValue(_ line: String) -> String {
        let form = #/Error: The value '(?<value>.*)' is invalid for '(?<option>-[a-z0-9-]*)(?: <[^>]*>)?'(?<rest>.*)/#
        guard let match = line.wholeMatch(of: form) else { return line }
        let rest = match.rest
        if rest.hasPrefix(": ") { return "Error: " + rest.dropFirst(2) }
        let expected: String
        if let words = rest.wholeMatch(of: #/\. Please provide one of (.*)\.?/#)?.1 {
            expected = String(
                words.replacing("'", with: "").replacing(" and ", with: " or ").trimmingSuffix(while: { $0 == "." }))
        } else if match.option == "--do-sample" {
            expected = "true or false"
        } else if Int(match.value) != nil {
            expected = "a smaller number"
        } else if let number = Double(match.value) {
            expected =
                number.isFinite && number.rounded() == number && abs(number) >= 0x1p63 ? "a smaller number" : "a whole number"
        } else {
            expected = "a number"
        }
        return "Error: \(match.option) should be \(expected), found \"\(match.value)\""
    }
}

extension StringProtocol {
    fileprivate func trimmingSuffix(while isCut: (Character) -> Bool) -> SubSequence {
        var rest = self[...]
        while let last = rest.last, isCut(last) { rest.removeLast() }
        return rest
    }
}
