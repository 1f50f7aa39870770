import NibbleCore
import NibbleGrammar

/// A regular expression that names modules.
struct AdapterPattern: Sendable {
    private let form: Form

    private enum Form: Sendable {
        /// A name, or an ending of one that begins with a part. `.` stands for any character.
        case ending([UInt8])
        case expression(Grammar, JSONError)
    }

    private init(form: Form) { self.form = form }

    /// The pattern `(.*\.)?(suffix)$` of rank_pattern and alpha_pattern.
    /// - Throws: `JSONError` for a text that is not a regular expression, or one that cannot be matched in linear time.
    init(suffix: String, _ field: JSONField) throws {
        if AdapterPattern.isPlain(suffix) {
            self.init(form: .ending(Array(suffix.utf8)))
        } else if suffix.hasBytePrefix("^") {
            try self.init(whole: String(suffix.utf8.dropFirst()) ?? "", field)
        } else {
            try self.init(whole: "(.*\\.)?(\(suffix))", field)
        }
    }

    /// A pattern for whole names.
    init(whole: String, _ field: JSONField) throws {
        let refusal = field.unexpected("a regular expression that names modules")
        var text = whole
        if text.hasBytePrefix("^") { text = String(text.utf8.dropFirst()) ?? "" }
        if text.hasByteSuffix("$"), !text.hasByteSuffix("\\$") { text = String(text.utf8.dropLast()) ?? "" }
        guard let grammar = try? Grammar(regex: text) else { throw refusal }
        self.init(form: .expression(grammar, refusal))
    }

    private static func isPlain(_ text: String) -> Bool {
        text.utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"),
                UInt8(ascii: "_"), UInt8(ascii: "-"), UInt8(ascii: "."):
                true
            default: false
            }
        }
    }

    /// - Throws: `JSONError` where matching needs too many states.
    func matches(_ module: String) throws -> Bool {
        switch form {
        case .ending(let pattern):
            let name = Array(module.utf8)
            guard name.count >= pattern.count else { return false }
            let start = name.count - pattern.count
            guard start == 0 || name[start - 1] == UInt8(ascii: ".") else { return false }
            return zip(name[start...], pattern).allSatisfy { $1 == UInt8(ascii: ".") || $0 == $1 }
        case .expression(let grammar, let refusal):
            guard let result = try? grammar.accepts(module.utf8) else { throw refusal }
            return result
        }
    }
}

/// Which modules an adapter was made for, so that what its file lacks can be named.
struct AdapterTargets: Sendable {
    private enum Rule: Sendable {
        case names([String])
        case pattern(AdapterPattern)
        case allLinear
        /// An expression that cannot be matched here: nothing is known to be missing.
        case unknown
    }

    private let targets: Rule
    private let excluded: Rule
    private let layers: Set<Int>?
    private let layerLists: [String]

    init(_ root: JSONField) throws {
        targets = try AdapterTargets.rule(root.child("target_modules"))
        excluded = try AdapterTargets.rule(root.child("exclude_modules"))
        if let field = root.child("layers_to_transform") {
            let range = 0...1 << 20
            layers =
                try field.value.array == nil
                ? [field.integer(in: range)] : Set(field.elements().map { try $0.integer(in: range) })
        } else {
            layers = nil
        }
        let lists = root.child("layers_pattern")
        layerLists = try lists?.value.string.map { [$0] } ?? AdapterConfig.names(lists)
    }

    private static func rule(_ field: JSONField?) throws -> Rule {
        guard let field else { return .names([]) }
        guard let text = field.value.string else { return .names(try AdapterConfig.names(field)) }
        if text.lowercased() == "all-linear" { return .allLinear }
        return (try? AdapterPattern(whole: text, field)).map(Rule.pattern) ?? .unknown
    }

    /// Whether peft would have adapted a linear module of this name.
    /// - Parameter isHead: whether it is the output embedding.
    func contains(_ module: String, isHead: Bool) throws -> Bool {
        guard try AdapterTargets.matches(targets, module, isHead: isHead) else { return false }
        if case .unknown = excluded { return false }
        if try AdapterTargets.matches(excluded, module, isHead: isHead) { return false }
        guard let layers else { return true }
        let parts = module.split(separator: ".")
        // A layer's number stands after the name of its list. The last such place counts.
        let place = parts.indices.dropLast().last { index in
            guard index > 0, Int(parts[index]) != nil else { return false }
            return layerLists.isEmpty || layerLists.contains { $0.hasSameBytes(as: parts[index - 1]) }
        }
        guard let index = place else { return false }
        return Int(parts[index]).map(layers.contains) ?? false
    }

    private static func matches(_ rule: Rule, _ module: String, isHead: Bool) throws -> Bool {
        switch rule {
        case .names(let names): names.contains { module.hasSameBytes(as: $0) || module.hasByteSuffix("." + $0) }
        case .pattern(let pattern): try pattern.matches(module)
        case .allLinear: !isHead
        case .unknown: false
        }
    }
}
