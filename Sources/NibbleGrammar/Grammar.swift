package import NibbleCore
import Synchronization

/// A language that generated text is held to: of a JSON schema, a regular expression or a grammar.
///
/// Compiled once, it may be shared by many rows and threads; what it learns (states, masks) serves all of them.
package final class Grammar: Sendable {
    fileprivate struct Knowledge: Sendable {
        /// As it was when it was compiled.
        let first: GrammarAutomaton
        var automaton: GrammarAutomaton
        /// Masks of one vocabulary, the last that was asked for.
        var masks: [GrammarAutomaton.State: [UInt32]] = [:]
        var vocabulary: GrammarVocabulary.Identity?
        /// How often what was learned had to be forgotten. States are those of an epoch.
        var epoch = 0

        /// What `body` answers; if there is no room for more states, once more after all of them were forgotten.
        mutating func withRoom<Value>(
            _ body: (inout Knowledge) throws(GrammarError) -> Value
        ) -> Result<Value, GrammarError> {
            automaton.fillFuel()
            do {
                return .success(try body(&self))
            } catch .tooComplex(let what, _) where what != "steps" && automaton.stateCount > first.stateCount {
                automaton = first
                masks = [:]
                epoch += 1
                automaton.fillFuel()
                return Result { () throws(GrammarError) -> Value in try body(&self) }
            } catch {
                return .failure(error)
            }
        }
    }

    /// A state and the epoch in which it is known.
    struct Position {
        var epoch: Int
        var state: GrammarAutomaton.State
    }

    private let knowledge: Mutex<Knowledge>

    init(_ automaton: GrammarAutomaton) { knowledge = Mutex(Knowledge(first: automaton, automaton: automaton)) }

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
    package func matcher() -> GrammarMatcher { GrammarMatcher(self, start: start) }

    private var start: Position { knowledge.withLock { Position(epoch: $0.epoch, state: $0.automaton.start) } }

    /// Whether a whole text is in the language.
    package func accepts(_ text: some Sequence<UInt8>) throws(GrammarError) -> Bool {
        let matcher = matcher()
        guard try matcher.advance(text) else { return false }
        return try matcher.isComplete
    }

    /// About how many bytes it needs, with what it has learned.
    package var byteCount: Int {
        knowledge.withLock { knowledge in
            let masks = knowledge.masks.count * ((knowledge.masks.values.first?.count ?? 0) * 4 + 64)
            return knowledge.first.byteCount + knowledge.automaton.byteCount + masks
        }
    }

    /// States that were made so far.
    package var stateCount: Int { knowledge.withLock { $0.automaton.stateCount } }

    /// The place behind `bytes`; `nil` where no text goes on so.
    ///
    /// - Parameter text: what was read before `position`, in case its state was forgotten.
    func next(
        _ position: Position, after text: [UInt8], _ bytes: [UInt8]
    ) throws(GrammarError) -> Position? {
        try knowledge.withLock { knowledge in
            knowledge.withRoom { knowledge throws(GrammarError) in
                let start = try knowledge.state(position, text)
                let state = try knowledge.automaton.next(start, bytes)
                return state == GrammarAutomaton.dead ? nil : Position(epoch: knowledge.epoch, state: state)
            }
        }.get()
    }

    func isAccepting(_ position: Position, after text: [UInt8]) throws(GrammarError) -> Bool {
        try knowledge.withLock { knowledge in
            knowledge.withRoom { knowledge throws(GrammarError) in
                knowledge.automaton.isAccepting(try knowledge.state(position, text))
            }
        }.get()
    }

    func canContinue(_ position: Position, after text: [UInt8]) throws(GrammarError) -> Bool {
        try knowledge.withLock { knowledge in
            knowledge.withRoom { knowledge throws(GrammarError) in
                knowledge.automaton.canContinue(try knowledge.state(position, text))
            }
        }.get()
    }

    func mask(
        _ position: Position, after text: [UInt8], _ vocabulary: GrammarVocabulary
    ) throws(GrammarError) -> [UInt32] {
        try knowledge.withLock { knowledge in
            knowledge.withRoom { knowledge throws(GrammarError) in
                let state = try knowledge.state(position, text)
                if knowledge.vocabulary !== vocabulary.identity {
                    knowledge.masks = [:]
                    knowledge.vocabulary = vocabulary.identity
                }
                if let known = knowledge.masks[state] { return known }
                let mask = try knowledge.automaton.mask(state, vocabulary)
                if (knowledge.masks.count + 1) * mask.count * 4 > GrammarLimits.maskBytes { knowledge.masks = [:] }
                knowledge.masks[state] = mask
                return mask
            }
        }.get()
    }
}

extension Grammar.Knowledge {
    /// The state of a position in the present epoch.
    fileprivate mutating func state(
        _ position: Grammar.Position, _ text: [UInt8]
    ) throws(GrammarError) -> GrammarAutomaton.State {
        position.epoch == epoch ? position.state : try automaton.next(automaton.start, text)
    }
}

/// How far one text has come in its grammar. Not `Sendable`: a row has its own.
package final class GrammarMatcher {
    package let grammar: Grammar
    private var text: [UInt8] = []
    /// The place after each ``advance(_:)`` and how long the text was, the beginning first.
    private var places: [(position: Grammar.Position, length: Int)]

    init(_ grammar: Grammar, start: Grammar.Position) {
        self.grammar = grammar
        places = [(start, 0)]
    }

    private var position: Grammar.Position { places[places.count - 1].position }

    /// Whether the text so far is one of the language's.
    package var isComplete: Bool { get throws(GrammarError) { try grammar.isAccepting(position, after: text) } }
    /// Whether nothing can follow.
    package var isFinished: Bool { get throws(GrammarError) { try !grammar.canContinue(position, after: text) } }
    /// How often the text was advanced.
    package var count: Int { places.count - 1 }

    /// Goes on by `bytes`. Answers whether a text of the language begins so; if not, nothing changes.
    package func advance(_ bytes: some Sequence<UInt8>) throws(GrammarError) -> Bool {
        let bytes = Array(bytes)
        guard let next = try grammar.next(position, after: text, bytes) else { return false }
        text += bytes
        places.append((next, text.count))
        return true
    }

    /// Takes the last `count` advances back.
    package func rollBack(_ count: Int) {
        places.removeLast(min(max(count, 0), places.count - 1))
        text.removeLast(text.count - places[places.count - 1].length)
    }

    /// A second matcher at the same place.
    package func copy() -> GrammarMatcher {
        let copy = GrammarMatcher(grammar, start: places[0].position)
        copy.places = places
        copy.text = text
        return copy
    }

    /// Which tokens may follow: bit t mod 32 of word t / 32.
    package func mask(_ vocabulary: GrammarVocabulary) throws(GrammarError) -> [UInt32] {
        try grammar.mask(position, after: text, vocabulary)
    }
}
