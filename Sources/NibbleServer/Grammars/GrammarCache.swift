import Foundation
import Nibble
import NibbleGeneration
import NibbleGrammar
import Synchronization

/// Compiled grammars by what they were compiled from. Compilation has threads of its own: neither the engine nor other requests
/// wait for it.
final class GrammarCache: Sendable {
    private struct Entry {
        var grammar: Grammar
        /// When it was asked for last.
        var use: Int
    }

    private struct State {
        var entries: [GrammarSource: Entry] = [:]
        var uses = 0

        /// Forgets those that were not asked for for the longest time, until the rest needs at most `limit` bytes. The newest stays.
        mutating func shrink(to limit: Int) {
            var sizes = entries.mapValues(\.grammar.byteCount)
            var total = sizes.values.reduce(0, +)
            while total > limit, entries.count > 1, let oldest = entries.min(by: { $0.value.use < $1.value.use })?.key {
                total -= sizes.removeValue(forKey: oldest) ?? 0
                entries[oldest] = nil
            }
        }
    }

    private let limit: Int
    private let state = Mutex(State())
    private let queue = OperationQueue()

    /// - Parameter limit: bytes of all grammars, with the states and masks that they have learned.
    init(limit: Int = 256 << 20) {
        self.limit = limit
        queue.name = "nibble.grammars"
        queue.maxConcurrentOperationCount = max(ProcessInfo.processInfo.activeProcessorCount / 2, 1)
    }

    var count: Int { state.withLock { $0.entries.count } }

    /// - Throws: `GrammarError`
    func grammar(_ source: GrammarSource) async throws -> GenerationGrammar {
        if let known = known(source) { return GenerationGrammar(known) }
        let compiled: Grammar = try await withCheckedThrowingContinuation { continuation in
            queue.addOperation { continuation.resume(with: Result { try self.known(source) ?? Self.compile(source) }) }
        }
        return GenerationGrammar(keep(compiled, for: source))
    }

    private func known(_ source: GrammarSource) -> Grammar? {
        state.withLock { state in
            guard state.entries[source] != nil else { return nil }
            state.uses += 1
            state.entries[source]?.use = state.uses
            // Grammars grow with use.
            state.shrink(to: limit)
            return state.entries[source]?.grammar
        }
    }

    private func keep(_ grammar: Grammar, for source: GrammarSource) -> Grammar {
        state.withLock { state in
            state.uses += 1
            let kept = state.entries[source]?.grammar ?? grammar
            state.entries[source] = Entry(grammar: kept, use: state.uses)
            state.shrink(to: limit)
            return kept
        }
    }

    private static func compile(_ source: GrammarSource) throws -> Grammar {
        switch source {
        case .piece(let piece): try Grammar(piece)
        case .gbnf(let text): try Grammar(gbnf: text)
        }
    }
}

extension ServerCore {
    /// The compiled grammar of a form, for the jobs of a request.
    ///
    /// - Parameter hasCalls: whether the marks of function calls are part of its texts.
    /// - Throws: ``APIError`` for a form that is refused: it says why, and where in the schema.
    func grammar(_ form: OutputForm, _ sampling: SamplingFields, hasCalls: Bool = false) async throws -> JobGrammar {
        let compiled: GenerationGrammar
        do {
            compiled = try await grammars.grammar(form.source)
        } catch let error as GrammarError {
            throw APIError.invalid("field '\(form.field)': \(error)", param: form.field, code: "invalid_grammar")
        }
        let tokenizer = model.tokenizer
        let stops = sampling.stopTokens.filter { tokenizer.tokenBytes($0).isEmpty || tokenizer.isSpecial($0) }
        var grammar = JobGrammar(compiled, ends: (sampling.ignoresEnd ? [] : model.endTokens) + stops)
        guard hasCalls else { return grammar }
        for mark in renderer.toolMarks {
            if let text = tokenizer.token(for: mark) { grammar.marks[mark] = Array(text.utf8) }
        }
        return grammar
    }
}
