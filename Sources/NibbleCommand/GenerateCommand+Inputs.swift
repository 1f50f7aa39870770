import ArgumentParser
import Foundation
import Nibble
import NibbleCore
import NibbleGeneration
import NibbleTokenizers

/// What `nibble generate` knows before the weights are loaded.
struct GenerateInputs {
    var folder: URL
    var loading: LoadConfiguration
    /// `nil` where ids are given and the folder has no tokenizer.
    var tokenizer: Tokenizer?
    var config: GenerationConfig
    /// The prompts as they were given; empty where ids are.
    var texts: [String]
    var rows: BatchEncoding
    var negativePrompt: [Int32]?
    var grammar: GenerationGrammar?

    func canStream(json: Bool) -> Bool {
        !json && rows.inputIDs.count == 1 && (config.numBeams ?? 1) == 1 && (config.numReturnSequences ?? 1) == 1
    }
}

extension GenerateCommand {
    /// Reads and checks everything that can be read without the weights, so that a mistake costs no loading time.
    func prepare() async throws -> GenerateInputs {
        var config = try generation.config()
        if negativePrompt != nil, config.guidanceScale == nil {
            throw ValidationError("--negative-prompt needs --guidance-scale")
        }
        let compiled = try grammar.compiled()
        let texts = try promptFile.map { try TextFile.lines($0).map(\.text) } ?? prompts
        if let promptFile, texts.isEmpty { throw NoPromptsError(file: promptFile) }
        let template = try chatOptions.template()
        let ids = try inputIDs.map(TokenIDFile.read)
        let loading = try load.configuration(adapters)
        let folder = try await PretrainedFiles.folder(for: model, .all, loading)
        // Ids can be generated without a tokenizer; text cannot.
        var tokenizer = ids == nil ? try AutoTokenizer.from(model: folder) : try? AutoTokenizer.from(model: folder)
        tokenizer = try tokenizer?.translating(from: srcLang, to: tgtLang)
        if tgtLang != nil, config.forcedBosTokenId == nil { config.forcedBosTokenId = tokenizer?.forcedBosTokenID }
        if compiled != nil, tokenizer == nil { throw ValidationError("structured output needs the model's tokenizer") }
        if chat, let tokenizer { try tokenizer.checkChatTemplate(template) }
        if let ids = tokenizer.flatMap({ generation.rarer.badWordsIds($0) }) { config.badWordsIds = ids }
        let rows = try ids ?? tokenizer.map { try encode(texts, template, $0) } ?? BatchEncoding(inputIDs: [], attentionMask: [])

        let resolved = GenerationConfig.resolved(call: config, model: try PretrainedModel.generationConfig(of: folder))
        try resolved.validate()
        try checkAssistance(resolved, rows: rows.inputIDs.count)
        if resolved.bosTokenId == nil { config.bosTokenId = tokenizer?.specialTokens.bos?.id }
        try PromptCheck.check(rows, bos: resolved.bosTokenId ?? config.bosTokenId)
        let negative = negativePrompt.flatMap { text in tokenizer?.encode(text) }
        return GenerateInputs(
            folder: folder, loading: loading, tokenizer: tokenizer, config: config, texts: texts, rows: rows,
            negativePrompt: negative,
            grammar: compiled)
    }

    private func encode(_ prompts: [String], _ template: String?, _ tokenizer: Tokenizer) throws -> BatchEncoding {
        guard chat else { return try tokenizer(prompts) }
        let opening = system.map { [ChatMessage(role: "system", content: $0)] } ?? []
        let rows = try prompts.map { prompt in
            try tokenizer.applyChatTemplate(
                messages: opening + [ChatMessage(role: "user", content: prompt)], template: template, addGenerationPrompt: true
            ).inputIDs
        }
        return BatchEncoding(inputIDs: rows, attentionMask: rows.map { $0.map { _ in 1 } })
    }

    /// Drafts and prompt look-up work on one sequence.
    private func checkAssistance(_ config: GenerationConfig, rows: Int) throws {
        guard assistant != nil || config.promptLookupNumTokens != nil else { return }
        let name = assistant == nil ? "--prompt-lookup-num-tokens" : "--assistant"
        if (config.numBeams ?? 1) > 1 { throw ValidationError("\(name) cannot be combined with --num-beams above 1") }
        if rows > 1 || (config.numReturnSequences ?? 1) > 1 {
            throw ValidationError("\(name) works on one sequence: give one prompt and no --num-return-sequences")
        }
    }

    /// The length of a chat's answers, unless options or the model's files limit it.
    func withAnswerLength(
        _ config: GenerationConfig, _ rows: BatchEncoding, _ pretrained: PretrainedModel, _ tokenizer: Tokenizer
    ) -> GenerationConfig {
        let limits = config.filling(from: pretrained.generationConfig)
        guard limits.maxNewTokens == nil, limits.maxLength == nil else { return config }
        let longest = rows.inputIDs.map(\.count).max() ?? 0
        return config.filling(from: pretrained.answerLength(tokenizer, promptLength: longest))
    }
}

/// A prompt file without any prompt.
struct NoPromptsError: Error, CustomStringConvertible {
    let file: String
    var description: String { "\(file): expected one prompt a line, found no text" }
}
