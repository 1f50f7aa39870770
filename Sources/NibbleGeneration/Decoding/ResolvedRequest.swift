internal import NibbleCore
internal import NibbleModels

/// One call of `generate` with everything resolved that the decoding loops share: configuration, inputs, lengths, processors and
/// stopping criteria.
final class ResolvedRequest {
    let config: GenerationConfig
    let inputs: InputRows
    let model: any GenerativeModel
    let eos: [Int32]
    /// Fills a row after its end.
    let pad: Int32
    let maxLength: Int
    /// Decoding rows per item: beams, or returned sequences.
    let copies: Int
    let vocabularySize: Int
    let scratch: ScoreScratch
    let processors: LogitsProcessorList
    let stopping: StoppingCriteria
    let random: RandomSource
    let onToken: ((GeneratedToken) throws -> Void)?
    let wantsLogProbabilities: Bool
    let negativePrompt: [[Int32]]?
    private let interruption: (@Sendable () throws -> Void)?
    /// Of each decoding row; `nil`: those that are active.
    private let adapters: [AdapterWeights]?
    private let keptSession: KeptSession?
    /// The session that ``keptSession`` gets at the end.
    private var keptNext: (any DecodingSession)?
    /// Tokens of the prompt that ``openSession()`` found in the session.
    private(set) var cachedTokens = 0
    /// How often ``model`` was run.
    var modelRuns = 0
    var recorder: StepRecorder
    var warnings: [GenerationWarning]

    private var guidance: ClassifierFreeGuidance?
    /// Encoder ids with padding; `nil` for a decoder-only model.
    private let encoderRows: RowMatrix<Int32>?

    var items: Int { inputs.items }
    var rows: Int { items * copies }
    var promptLength: Int { inputs.promptLength }

    init(
        _ request: GenerationRequest, config: GenerationConfig, model: any GenerativeModel,
        tokenBytes: (@Sendable (Int32) -> [UInt8])?, grammarTokens: GrammarTokens?,
        onToken: ((GeneratedToken) throws -> Void)?
    ) throws {
        self.config = config
        self.model = model
        self.onToken = onToken
        warnings = try config.validate()
        inputs = try InputRows(request, config, isEncoderDecoder: model.isEncoderDecoder)
        eos = config.eosTokenId ?? []
        pad = config.padTokenId ?? eos.first ?? 0
        let lengths = try Lengths(
            config, prompt: inputs.promptLength, positions: model.maximumPositions, limit: model.positionLimit)
        maxLength = lengths.maximum
        copies = max(config.numBeams ?? 1, config.numReturnSequences ?? 1)
        adapters = try Self.adapters(request, items: inputs.items, copies: copies)
        vocabularySize = model.vocabularySize
        scratch = ScoreScratch(vocabularySize: vocabularySize)
        wantsLogProbabilities = request.logProbabilities
        negativePrompt = request.negativePrompt
        interruption = request.interruption
        keptSession = request.keptSession
        let grammar = try request.grammar.map { grammar in
            guard let grammarTokens else {
                throw GenerationError.conflict("a grammar needs the tokenizer, and this generator was made without one")
            }
            return GrammarProcessor(
                grammar.grammar, grammarTokens.vocabulary(model.vocabularySize, ends: config.eosTokenId ?? []))
        }
        let made = try LogitsProcessorList.make(
            config,
            ProcessorSetting(
                vocabularySize: vocabularySize, promptLength: inputs.promptLength, maxLength: maxLength,
                minLength: lengths.minimum, eos: eos, prefixAllowedTokens: request.prefixAllowedTokens,
                custom: request.processors, grammar: grammar))
        processors = made.list
        random = RandomSource(seed: config.seed ?? .random(in: 0...UInt64(Int.max)))
        recorder = StepRecorder(config)
        encoderRows = Self.matrix(inputs.encoderIds)
        stopping = StoppingCriteria(
            maxLength: maxLength, maxTime: config.maxTime, eos: eos,
            stopStrings: try Self.stopStrings(config, tokenBytes), custom: request.stopping + Self.ends(of: grammar, eos))
        warnings += inputs.warnings + lengths.warnings + made.warnings
    }

    deinit {
        if let keptNext { keptSession?.put(keptNext, config.cacheQuantization) }
    }

    private static func adapters(_ request: GenerationRequest, items: Int, copies: Int) throws -> [AdapterWeights]? {
        guard let names = request.adapters else { return nil }
        guard names.count == 1 || names.count == items else {
            throw GenerationError.shapeMismatch(what: "adapters", expected: "1 or \(items) rows", found: "\(names.count)")
        }
        guard let weights = request.adapterWeights, weights.count == names.count else {
            throw GenerationError.conflict("adapters are named, and this generator has no model that adapters can be loaded into")
        }
        return (0..<items * copies).map { weights[weights.count == 1 ? 0 : $0 / copies] }
    }

    private static func matrix(_ rows: [[Int32]]) -> RowMatrix<Int32>? {
        guard let width = rows.first?.count else { return nil }
        let matrix = RowMatrix<Int32>(rows: rows.count, capacity: width)
        for (row, ids) in rows.enumerated() { matrix.setRow(row, to: ids) }
        return matrix
    }

    private static func stopStrings(
        _ config: GenerationConfig, _ tokenBytes: (@Sendable (Int32) -> [UInt8])?
    ) throws -> StopStringMatcher? {
        guard let strings = config.stopStrings, !strings.isEmpty else { return nil }
        guard let tokenBytes else {
            throw GenerationError.conflict("stop_strings need the tokenizer, and this generator was made without one")
        }
        return StopStringMatcher(strings, tokenBytes: tokenBytes)
    }

    /// Without a token that ends the text, it ends where nothing can follow.
    private static func ends(of grammar: GrammarProcessor?, _ eos: [Int32]) -> [StoppingCriterion] {
        guard let grammar, eos.isEmpty else { return [] }
        return [{ try grammar.isFinished($0) }]
    }

    // MARK: Sessions

    /// The session of the request's own model. It may be one that holds a beginning of the prompt: see ``cachedTokens``.
    func openSession() throws -> any DecodingSession {
        guard let keptSession, rows == 1, !model.isEncoderDecoder, adapters == nil else {
            return try makeSession(model) { $0.adapters = adapters }
        }
        let session =
            try keptSession.take(capacity: maxLength, config.cacheQuantization)
            ?? makeSession(model) { request in
                // It may grow with the conversation, and memory with it.
                request.initialCapacity = max(1024, maxLength.nextPowerOfTwo)
                request.capacity = max(maxLength, model.maximumPositions ?? 1 << 30)
            }
        keptNext = session
        session.interruption = interruption
        cachedTokens = try session.keepPrefix(row: 0, of: inputs.tokens[0])
        return session
    }

    /// A session for all rows of `model`, which may be an assistant.
    func makeSession(
        _ model: any GenerativeModel, _ change: (inout SessionRequest) -> Void = { _ in }
    ) throws -> any DecodingSession {
        var request = SessionRequest(
            rows: rows, capacity: maxLength, encoderInputs: model.isEncoderDecoder ? inputs.encoderTokens : [],
            encoderPadding: inputs.encoderPadding, encoderGroup: model.isEncoderDecoder ? (0..<rows).map { $0 / copies } : [],
            cacheQuantization: config.cacheQuantization, interruption: interruption)
        change(&request)
        let session = try model.makeSession(request)
        guard session.rows >= rows, session.vocabularySize == vocabularySize else {
            throw GenerationError.modelMisbehaved(
                "asked for a session of \(rows) rows and \(vocabularySize) tokens, got \(session.rows) and "
                    + "\(session.vocabularySize)")
        }
        return session
    }

    /// Prepares guidance, if the configuration asks for it.
    func prepareGuidance() throws {
        guard let scale = config.guidanceScale, scale != 1 else { return }
        guard !model.isEncoderDecoder else {
            throw GenerationError.conflict("guidance_scale needs a decoder-only model")
        }
        if let negativePrompt, negativePrompt.count != items || negativePrompt.contains(where: \.isEmpty) {
            throw GenerationError.shapeMismatch(
                what: "negative prompt", expected: "\(items) rows of at least one token",
                found: "rows of \(negativePrompt.map(\.count))")
        }
        let prompts = (0..<rows).map { row in
            negativePrompt?[row / copies] ?? Array(inputs.tokens[row / copies].suffix(1))
        }
        guidance = try ClassifierFreeGuidance(
            scale: scale, model: model, prompts: prompts, newTokens: maxLength - promptLength, adapters: adapters,
            cacheQuantization: config.cacheQuantization)
    }

    /// Adds what the generation has cost to its output.
    func finished(_ output: GenerationOutput) -> GenerationOutput {
        var output = output
        output.cachedTokens = cachedTokens
        output.modelRuns = modelRuns
        return output
    }

    // MARK: Scores

    /// The parameters of token selection on the device; `nil` if logits are needed on the host.
    var deviceParameters: SamplingParameters? {
        guard guidance == nil, !recorder.isRecording, !wantsLogProbabilities else { return nil }
        var parameters = processors.deviceParameters(sampling: config.doSample ?? false)
        parameters?.seed = random.seed
        return parameters
    }

    func context(_ row: Int, _ ids: UnsafeBufferPointer<Int32>) -> RowContext {
        RowContext(
            ids: ids, promptLength: promptLength, maskStart: inputs.maskStarts[row / copies], row: row,
            encoderIds: encoderRows.map { $0.row(row / copies, count: inputs.encoderIds[row / copies].count) },
            scratch: scratch)
    }

    func process(_ batch: LogitsBatch, _ contexts: [RowContext]) throws {
        if let guidance { try guidance.process(batch, contexts) }
        try processors.process(batch, contexts)
    }

    func check(_ batch: LogitsBatch, rows: Int) throws {
        guard batch.rows == rows, batch.vocabularySize == vocabularySize else {
            throw GenerationError.modelMisbehaved(
                "\(rows) rows of \(vocabularySize) logits were due, got \(batch.rows) of \(batch.vocabularySize)")
        }
    }

    /// Selects a token by processed scores: the best, or a draw.
    /// - Throws: ``GenerationError/noTokenAllowed(row:position:)``
    func choose(_ scores: UnsafeMutableBufferPointer<Float>, row: Int, step: Int) throws -> Int32 {
        let isSampling = config.doSample ?? false
        let token = isSampling ? scratch.drawToken(scores, random.uniform(row: row, step: step)) : scores.argmax
        guard let token else { throw GenerationError.noTokenAllowed(row: row, position: promptLength + step) }
        return Int32(token)
    }

    func logProbability(_ token: Int32, _ scores: UnsafeMutableBufferPointer<Float>) -> Float? {
        wantsLogProbabilities ? scores[Int(token)] - scores.logSumExp : nil
    }
}

extension Int {
    /// The smallest power of two that is not below this number, which is not above 2³⁰.
    fileprivate var nextPowerOfTwo: Int { self <= 1 ? 1 : 1 << (Int.bitWidth - (self - 1).leadingZeroBitCount) }
}
