import NibbleCore

/// A recursive-descent parser with one method for each rule of Jinja's grammar and Jinja's operator precedence.
struct JinjaParser {
    private(set) var tokens: [JinjaToken]
    private(set) var position = 0
    private let limits: JinjaLimits
    private var nesting = 0
    /// The number of `for` bodies around the current position, up to the nearest macro.
    var loops = 0
    /// Names of `{% block %}` tags so far.
    var blockNames: Set<ByteText> = []
    /// The names read so far by each of the macro bodies around the current position.
    var readNames: [Set<String>] = []

    private init(tokens: [JinjaToken], limits: JinjaLimits) {
        self.tokens = tokens
        self.limits = limits
    }

    /// - Throws: `JinjaError` with the line: `syntax`, `unsupportedTag`, `limit`.
    static func statements(of source: String, limits: JinjaLimits) throws -> [JinjaStatement] {
        guard source.utf8.count <= limits.sourceBytes else {
            throw JinjaError(.limit("bytes of template text", maximum: limits.sourceBytes))
        }
        var parser = JinjaParser(tokens: try JinjaLexer.tokens(of: source), limits: limits)
        return try parser.parseBody(until: []).body
    }

    // MARK: Tokens

    var current: JinjaToken { tokens[position] }
    var next: JinjaToken { tokens[min(position + 1, tokens.count - 1)] }
    var line: Int { current.line }

    mutating func advance() {
        if position < tokens.count - 1 { position += 1 }
    }

    func isSymbol(_ text: String) -> Bool { current.kind == .symbol && current.text == text }
    func isName(_ text: String) -> Bool { current.kind == .name && current.text == text }

    mutating func skipSymbol(_ text: String) -> Bool {
        guard isSymbol(text) else { return false }
        advance()
        return true
    }

    mutating func skipName(_ text: String) -> Bool {
        guard isName(text) else { return false }
        advance()
        return true
    }

    mutating func expectSymbol(_ text: String) throws {
        guard skipSymbol(text) else { throw unexpected("'\(text)'") }
    }

    mutating func expect(_ kind: JinjaToken.Kind, _ description: String) throws -> JinjaToken {
        guard current.kind == kind else { throw unexpected(description) }
        defer { advance() }
        return current
    }

    mutating func expectName() throws -> String { try expect(.name, "a name").text }

    func unexpected(_ expected: String) -> JinjaError {
        JinjaError(.syntax(expected: expected, found: current.description), line: line)
    }

    // MARK: Depth

    /// Runs one level of a recursive rule.
    mutating func nested<T>(_ rule: (inout JinjaParser) throws -> T) throws -> T {
        nesting += 1
        defer { nesting -= 1 }
        guard nesting <= limits.nesting else { throw tooDeep }
        return try rule(&self)
    }

    func node(_ kind: JinjaExpression.Kind, line: Int, over children: [JinjaExpression] = [], depth: Int = 0) throws
        -> JinjaExpression
    {
        let height = 1 + max(depth, children.lazy.map(\.depth).max() ?? 0)
        guard height <= 2 * limits.nesting else { throw tooDeep }
        return JinjaExpression(kind: kind, line: line, depth: height)
    }

    private var tooDeep: JinjaError {
        JinjaError(.limit("nested statements and expressions", maximum: limits.nesting), line: line)
    }
}
