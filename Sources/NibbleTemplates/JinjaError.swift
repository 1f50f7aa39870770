public import NibbleCore

/// An error in a chat template, with its line.
public struct JinjaError: Error, Equatable, Sendable, CustomStringConvertible {
    /// What went wrong.
    public enum Reason: Equatable, Sendable {
        /// The template's text does not follow the grammar.
        case syntax(expected: String, found: String)
        /// A tag that chat templates may not use (`include`, `import`, `extends` …) or that does not exist.
        case unsupportedTag(String)
        /// An undefined value was used.
        case undefined(String)
        /// A value of the wrong type.
        case type(expected: String, found: String)
        /// A filter that does not exist.
        case unknownFilter(String)
        /// A test that does not exist.
        case unknownTest(String)
        /// A function, filter, test or macro was called with arguments it does not take.
        case arguments(function: String, problem: String)
        /// Division by zero, or a result that its type cannot hold.
        case arithmetic(String)
        /// The template called `raise_exception` with this text.
        case raised(String)
        /// The sandbox does not allow it (changing lists and dictionaries, private attributes).
        case forbidden(String)
        /// The template asks for more than `JinjaLimits` allows.
        case limit(String, maximum: Int)
        /// Text that is not JSON.
        case json(JSONError)
        /// `continueFinalMessage` cannot be honoured.
        case continuation(String)
    }

    /// What went wrong.
    public var reason: Reason
    /// Counted from 1; `nil` where no template line is involved.
    public var line: Int?

    package init(_ reason: Reason, line: Int? = nil) {
        self.reason = reason
        self.line = line
    }

    /// The same error with `line`, unless it has a line already.
    func located(at line: Int) -> JinjaError {
        self.line == nil ? JinjaError(reason, line: line) : self
    }

    /// The error as a sentence for the user.
    public var description: String {
        let place = line.map { "chat template, line \($0): " } ?? "chat template: "
        return place + reason.text
    }
}

extension JinjaError.Reason {
    var text: String {
        switch self {
        case .syntax(let expected, let found): "expected \(expected), found \(found)"
        case .unsupportedTag(let name): "the tag '\(name)' is not supported in chat templates"
        case .undefined(let what): what
        case .type(let expected, let found): "expected \(expected), found \(found)"
        case .unknownFilter(let name): "no filter named '\(name)'"
        case .unknownTest(let name): "no test named '\(name)'"
        case .arguments(let function, let problem): "\(function)(): \(problem)"
        case .arithmetic(let problem): problem
        case .raised(let message): message
        case .forbidden(let what): "not allowed in a chat template: \(what)"
        case .limit(let what, let maximum): "more than \(maximum) \(what)"
        case .json(let error): "JSON, \(error)"
        case .continuation(let problem): problem
        }
    }
}

/// Limits that stop a hostile template from exhausting the machine. The defaults are far above what real templates need.
package struct JinjaLimits: Sendable {
    /// UTF-8 bytes of template text.
    package var sourceBytes = 1 << 20
    /// UTF-8 bytes of the rendered text and of any intermediate string.
    package var outputBytes = 16 << 20
    /// Iterations of all loops together.
    package var iterations = 1_000_000
    /// Nested statements and expressions in the template's text.
    package var nesting = 100
    /// Nested evaluations at run time; a recursive macro takes about seven a call. A depth of 500 takes
    /// less than half a megabyte of stack, and three in debug builds.
    package var depth = 500
    /// Elements of one `range()`, as in Jinja's own sandbox.
    package var rangeLength = 100_000
    /// Bits of one integer.
    package var integerBits = 1 << 16
    /// Nesting of lists and dictionaries.
    package var valueDepth = 256
    /// Bytes built or scanned by one rendering, 64 for every expression.
    package var work = 512 << 20

    package init() {}
}
