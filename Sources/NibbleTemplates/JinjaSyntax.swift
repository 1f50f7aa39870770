// The syntax tree. `depth` is the height of an expression. The parser limits it, so that walking or freeing a tree
// cannot overflow the stack. For the same reason a chain of one operator is one node: `a + b + c`.

struct JinjaExpression: Sendable {
    let kind: Kind
    let line: Int
    let depth: Int

    indirect enum Kind: Sendable {
        case constant(JinjaValue)
        case name(String)
        case list([JinjaExpression])
        case tuple([JinjaExpression])
        case dictionary([(key: JinjaExpression, value: JinjaExpression)])
        case attribute(JinjaExpression, String)
        case element(JinjaExpression, JinjaExpression)
        case slice(JinjaExpression, start: JinjaExpression?, stop: JinjaExpression?, step: JinjaExpression?)
        case call(JinjaExpression, JinjaArgumentList)
        case filter(JinjaExpression, JinjaFilterCall)
        case test(JinjaExpression, JinjaFilterCall)
        case negative(JinjaExpression)
        case positive(JinjaExpression)
        case not(JinjaExpression)
        case arithmetic(JinjaExpression, [(ArithmeticOperator, JinjaExpression)])
        case concatenation([JinjaExpression])
        case comparison(JinjaExpression, [(ComparisonOperator, JinjaExpression)])
        case and([JinjaExpression])
        case or([JinjaExpression])
        case conditional(test: JinjaExpression, then: JinjaExpression, otherwise: JinjaExpression?)
    }

    enum ArithmeticOperator: String, Sendable {
        case add = "+"
        case subtract = "-"
        case multiply = "*"
        case divide = "/"
        case floorDivide = "//"
        case modulo = "%"
        case power = "**"
    }

    enum ComparisonOperator: String, Sendable {
        case equal = "=="
        case notEqual = "!="
        case less = "<"
        case lessOrEqual = "<="
        case greater = ">"
        case greaterOrEqual = ">="
        case contained = "in"
        case notContained = "not in"
    }
}

struct JinjaArgumentList: Sendable {
    var positional: [JinjaExpression] = []
    var named: [(key: String, value: JinjaExpression)] = []
    /// `*list`
    var spread: JinjaExpression?
    /// `**dictionary`
    var namedSpread: JinjaExpression?

    var depth: Int {
        var all = positional + named.map(\.value)
        if let spread { all.append(spread) }
        if let namedSpread { all.append(namedSpread) }
        return all.map(\.depth).max() ?? 0
    }
}

/// A filter or a test with its arguments.
struct JinjaFilterCall: Sendable {
    let name: String
    let arguments: JinjaArgumentList
    let line: Int
}

/// The target of an assignment by `set`, `for` or `with`.
enum JinjaTarget: Sendable {
    case name(String)
    case attribute(of: String, String)
    case tuple([JinjaTarget])
}

struct JinjaStatement: Sendable {
    let kind: Kind
    let line: Int

    indirect enum Kind: Sendable {
        case text(String)
        case output([JinjaExpression])
        case loop(Loop)
        case branch([(test: JinjaExpression, body: [JinjaStatement])], otherwise: [JinjaStatement])
        case set(JinjaTarget, JinjaExpression)
        case setBlock(JinjaTarget, [JinjaFilterCall], [JinjaStatement])
        case macro(JinjaMacroDefinition)
        /// `{% call(arguments) macro() %}`: the body is the macro's `caller()`.
        case call(JinjaExpression, JinjaMacroDefinition)
        case filter([JinjaFilterCall], [JinjaStatement])
        case with([(JinjaTarget, JinjaExpression)], [JinjaStatement])
        /// `{% generation %}`: marks the assistant's text. Only its body is rendered.
        case generation([JinjaStatement])
        /// `{% block name %}`: sees only variables set outside of loops and macros, unless it is scoped.
        case block([JinjaStatement], isScoped: Bool)
        case leaveLoop
        case nextIteration
    }

    struct Loop: Sendable {
        let target: JinjaTarget
        let sequence: JinjaExpression
        let condition: JinjaExpression?
        /// Whether the body may call `loop(items)`.
        let isRecursive: Bool
        let body: [JinjaStatement]
        let otherwise: [JinjaStatement]
    }
}

struct JinjaMacroDefinition: Sendable {
    let name: String
    let parameters: [(name: String, value: JinjaExpression?)]
    let body: [JinjaStatement]
    /// Those of `caller`, `varargs` and `kwargs` that the body mentions. jinja2 passes only these.
    let specials: Set<String>
}
