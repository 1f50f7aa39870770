package import NibbleCore
import Synchronization

/// A language that generated text is held to: of a JSON schema, a regular expression or a grammar.
///
/// Compiled once, it may be shared by many rows and threads; what it learns (states, masks) serves all of them.
package final class Grammar: Sendable {
    private struct Knowledge: Sendable {
        var automaton: GrammarAutomaton
        var vocabulary: GrammarVocabulary?
        var masks: [GrammarAutomaton.State: [UInt32]] = [:]
    }

    private let knowledge: Mutex<Knowledge>
    /// Masks kept, in bytes.
    private static let maximumMaskBytes = 64 << 20

    init(_ automaton: GrammarAutomaton) { knowledge = Mutex(Knowledge(automaton: automaton)) }

    /// Values that satisfy a JSON schema (draft 2020-12 or 7).
    /// - Throws: ``GrammarError``
    package convenience init(schema: JSONValue, options: SchemaOptions = SchemaOptions()) throws(GrammarError) {
        self.init(try SchemaCompiler.compile(schema, options))
    }

    /// Texts that match a regular expression (ECMA 262) as a whole.
    package convenience init(regex: String) throws(GrammarError) {
        var pool = ExpressionPool()
        var json = JSONText()
        let expression = try RegexCompiler.whole(regex, .plain, &pool, &json)
        var rules = GrammarRules()
        let start = rules.addRule()
        try rules.set(start, to: [[.lexeme(expression)]])
        self.init(try GrammarAutomaton(pool, rules, start: start))
    }

    /// Texts of a grammar in the notation of GBNF; its rule `root` is the whole text.
    package convenience init(gbnf: String) throws(GrammarError) {
        self.init(try GBNFParser.compile(gbnf))
    }

    /// A matcher at the beginning of a text.
    package func matcher() -> GrammarMatcher { GrammarMatcher(self, start: knowledge.withLock { $0.automaton.start }) }

    /// Whether a whole text is in the language.
    package func accepts(_ text: some Sequence<UInt8>) throws(GrammarError) -> Bool {
        let matcher = matcher()
        guard try matcher.advance(text) else { return false }
        return matcher.isComplete
    }

    /// States that were made so far.
    package var stateCount: Int { knowledge.withLock { $0.automaton.stateCount } }

    func next(_ state: GrammarAutomaton.State, _ bytes: some Sequence<UInt8>) throws(GrammarError) -> GrammarAutomaton.State {
        try unwrap(
            knowledge.withLock { knowledge in
                Result { () throws(GrammarError) -> GrammarAutomaton.State in
                    var state = state
                    for byte in bytes {
                        state = try knowledge.automaton.next(state, byte)
                        if state == GrammarAutomaton.dead { break }
                    }
                    return state
                }
            })
    }

    func isAccepting(_ state: GrammarAutomaton.State) -> Bool { knowledge.withLock { $0.automaton.isAccepting(state) } }
    func canContinue(_ state: GrammarAutomaton.State) -> Bool { knowledge.withLock { $0.automaton.canContinue(state) } }

    func mask(_ state: GrammarAutomaton.State, _ vocabulary: GrammarVocabulary) throws(GrammarError) -> [UInt32] {
        try unwrap(
            knowledge.withLock { knowledge in
                Result { () throws(GrammarError) -> [UInt32] in
                    if let known = knowledge.masks[state] { return known }
                    let mask = try knowledge.automaton.mask(state, vocabulary)
                    if (knowledge.masks.count + 1) * mask.count * 4 > Self.maximumMaskBytes { knowledge.masks = [:] }
                    knowledge.masks[state] = mask
                    return mask
                }
            })
    }

    private func unwrap<Value>(_ result: Result<Value, GrammarError>) throws(GrammarError) -> Value { try result.get() }
}

/// How far one text has come in its grammar. Not `Sendable`: a row has its own.
package final class GrammarMatcher {
    private let grammar: Grammar
    /// The states after each ``advance(_:)``, the beginning first.
    private var states: [GrammarAutomaton.State]

    init(_ grammar: Grammar, start: GrammarAutomaton.State) {
        self.grammar = grammar
        states = [start]
    }

    private var state: GrammarAutomaton.State { states[states.count - 1] }

    /// Whether the text so far is one of the language's.
    package var isComplete: Bool { grammar.isAccepting(state) }
    /// Whether nothing can follow.
    package var isFinished: Bool { !grammar.canContinue(state) }
    /// How often the text was advanced.
    package var count: Int { states.count - 1 }

    /// Goes on by `bytes`. Answers whether a text of the language begins so; if not, nothing changes.
    package func advance(_ bytes: some Sequence<UInt8>) throws(GrammarError) -> Bool {
        let next = try grammar.next(state, bytes)
        guard next != GrammarAutomaton.dead else { return false }
        states.append(next)
        return true
    }

    /// Takes the last `count` advances back.
    package func rollBack(_ count: Int) { states.removeLast(min(count, states.count - 1)) }

    /// A second matcher at the same place.
    package func copy() -> GrammarMatcher {
        let copy = GrammarMatcher(grammar, start: states[0])
        copy.states = states
        return copy
    }

    /// Which tokens may follow: bit t mod 32 of word t / 32.
    package func mask(_ vocabulary: GrammarVocabulary) throws(GrammarError) -> [UInt32] {
        try grammar.mask(state, vocabulary)
    }
}
