package import Foundation

/// A parsed Jinja program.
///
/// Renders as `transformers` renders chat templates: `trim_blocks` and `lstrip_blocks` on, loop controls, the immutable
/// sandbox, Python's texts for values.
package struct JinjaTemplate: Sendable {
    package let source: String
    package let limits: JinjaLimits
    private let statements: [JinjaStatement]

    /// - Throws: `JinjaError` with the line: `syntax`, `unsupportedTag`, `limit`.
    package init(source: String, limits: JinjaLimits = JinjaLimits()) throws {
        self.source = source
        self.limits = limits
        statements = try JinjaParser.statements(of: source, limits: limits)
    }

    /// Renders with any variables.
    /// - Parameter now: what `strftime_now` formats, in local time; the current time where nil.
    /// - Throws: `JinjaError` with the line; `raised` if the template calls `raise_exception`.
    package func render(variables: [String: JinjaValue], now: Date? = nil) throws -> String {
        try JinjaInterpreter(variables: variables, limits: limits, now: now ?? Date()).render(statements)
    }
}
