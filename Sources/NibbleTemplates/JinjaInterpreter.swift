import Foundation
import NibbleCore

/// Evaluates the syntax tree of one rendering. Holds the text written so far and counts work against the limits.
final class JinjaInterpreter {
    enum Flow { case normal, leaveLoop, nextIteration }

    let limits: JinjaLimits
    /// The time that `strftime_now` formats.
    let now: Date
    /// The line that is being evaluated, for errors.
    var line = 1

    private(set) var scope: JinjaScope
    /// What the template sets outside of loops and macros.
    let templateScope: JinjaScope
    private var buffers: [String] = [""]
    private var depth = 0
    private var iterations = 0
    private var work = 0
    /// Namespaces, and scopes that macros capture. They can form chains and cycles, so they are emptied one by one at the end.
    private var namespaces: [JinjaOpaque] = []
    private var capturedScopes: [JinjaScope] = []

    init(variables: [String: JinjaValue], limits: JinjaLimits, now: Date) {
        self.limits = limits
        self.now = now
        let globals = JinjaScope(parent: nil)
        for (name, value) in JinjaFunctions.globals { globals.variables[name] = value }
        for (name, value) in variables { globals.variables[name] = value }
        templateScope = JinjaScope(parent: globals)
        scope = templateScope
    }

    deinit {
        for namespace in namespaces { namespace.attributes = JinjaObject() }
        for scope in capturedScopes { scope.variables = [:] }
    }

    /// - Throws: `JinjaError`, always with a line.
    func render(_ statements: [JinjaStatement]) throws -> String {
        do {
            for value in scope.parent?.variables.values.lazy.map({ $0 }) ?? [] { try checkDepth(value) }
            _ = try execute(statements)
            return buffers[0]
        } catch let error as JinjaError {
            throw error.located(at: line)
        }
    }

    // MARK: Limits

    /// Counts bytes that are about to be built or scanned.
    func charge(_ bytes: Int) throws {
        work += bytes
        guard work <= limits.work else { throw JinjaError(.limit("bytes of work in one rendering", maximum: limits.work)) }
    }

    /// Counts a string that is about to be built.
    func charge(text bytes: Int) throws {
        guard bytes <= limits.outputBytes else { throw JinjaError(.limit("bytes of text", maximum: limits.outputBytes)) }
        try charge(bytes)
    }

    /// Counts a value that is about to be scanned, if it is a string.
    func charge(scanning value: JinjaValue) throws {
        if case .string(let text) = value { try charge(text.utf8.count) }
    }

    /// Counts a value that is about to be hashed.
    func charge(key: JinjaValue) throws {
        try charge(16)
        try charge(scanning: key)
        if case .tuple(let items) = key {
            for item in items { try charge(key: item) }
        }
    }

    func countIteration() throws {
        iterations += 1
        guard iterations <= limits.iterations else { throw JinjaError(.limit("loop iterations", maximum: limits.iterations)) }
    }

    @discardableResult
    func checkDepth(_ value: JinjaValue) throws -> JinjaValue {
        guard value.depth <= limits.valueDepth else {
            throw JinjaError(.limit("nested lists and dictionaries", maximum: limits.valueDepth))
        }
        return value
    }

    /// Runs one level of evaluation.
    func nested<T>(_ body: () throws -> T) throws -> T {
        depth += 1
        defer { depth -= 1 }
        guard depth <= limits.depth else { throw JinjaError(.limit("nested evaluations", maximum: limits.depth)) }
        try charge(64)
        return try body()
    }

    // MARK: Making values

    func string(_ text: String) throws -> JinjaValue {
        try charge(text: text.utf8.count)
        return .string(text)
    }

    func integer(_ value: BigInteger) throws -> JinjaValue {
        guard value.bitWidth <= limits.integerBits else {
            throw JinjaError(.limit("bits of an integer", maximum: limits.integerBits))
        }
        return .integer(value)
    }

    func list(_ items: [JinjaValue]) throws -> JinjaValue {
        try charge(16 * items.count)
        return try checkDepth(.list(items))
    }

    func tuple(_ items: [JinjaValue]) throws -> JinjaValue {
        try charge(16 * items.count)
        return try checkDepth(.tuple(JinjaArray(items)))
    }

    func iterator(_ items: [JinjaValue]) throws -> JinjaValue {
        try charge(16 * items.count)
        return try checkDepth(JinjaOpaque.iterator(items))
    }

    func object(_ object: JinjaObject) throws -> JinjaValue {
        try charge(64 * object.count)
        return try checkDepth(.object(object))
    }

    func namespace(_ attributes: JinjaObject) -> JinjaValue {
        let namespace = JinjaOpaque(.namespace)
        namespace.attributes = attributes
        namespaces.append(namespace)
        return .opaque(namespace)
    }

    // MARK: Output and scopes

    func write(_ text: String) throws {
        try charge(
            text: buffers[buffers.count - 1].utf8.count + text.utf8.count > limits.outputBytes ? .max / 2 : text.utf8.count)
        buffers[buffers.count - 1] += text
    }

    /// The text that `body` writes.
    func captured(_ body: () throws -> Flow) throws -> (text: String, flow: Flow) {
        buffers.append("")
        do {
            let flow = try body()
            return (buffers.removeLast(), flow)
        } catch {
            buffers.removeLast()
            throw error
        }
    }

    func inScope<T>(_ inner: JinjaScope, _ body: () throws -> T) throws -> T {
        let outer = scope
        scope = inner
        defer { scope = outer }
        return try body()
    }

    func makeMacro(_ definition: JinjaMacroDefinition) -> JinjaValue {
        capturedScopes.append(scope)
        return .opaque(JinjaOpaque(.macro(JinjaMacro(definition: definition, scope: scope))))
    }
}

/// The variables of one block: a loop's pass, a macro's call, the template itself.
final class JinjaScope {
    var variables: [ByteText: JinjaValue] = [:]
    let parent: JinjaScope?

    init(parent: JinjaScope?) { self.parent = parent }

    func value(of name: String) -> JinjaValue? {
        var scope: JinjaScope? = self
        while let current = scope {
            if let value = current.variables[name] { return value }
            scope = current.parent
        }
        return nil
    }
}

/// A macro and the scope it sees.
struct JinjaMacro {
    let definition: JinjaMacroDefinition
    let scope: JinjaScope
}
