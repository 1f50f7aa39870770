package import Foundation
import NibbleCore
package import NibbleGeneration
import NibbleLoading
package import NibbleTokenizers
import Synchronization

extension PretrainedModel {
    /// What generation_config.json, or the config, of the model in `folder` says. Needs no weights.
    ///
    /// - Throws: `JSONError`, `GenerationError`; `CheckpointError` for a GGUF file that cannot be read.
    package static func generationConfig(of folder: URL) throws -> GenerationConfig {
        guard ModelSource.isGGUF(folder) else { return try GenerationConfig(modelFolder: folder) }
        return try GenerationConfig(modelConfig: .object(ModelSource(folder: folder).config.values), source: folder.path)
    }

    /// A generator over this model and its generation_config.json.
    ///
    /// - Parameter tokenizer: needed for stop strings.
    package func generator(tokenizer: Tokenizer? = nil) -> Generator {
        guard let tokenizer else { return Generator(model: model, modelConfig: generationConfig) }
        return Generator(model: model, modelConfig: generationConfig) { tokenizer.tokenBytes($0) }
    }

    /// Continues (or, for an encoder-decoder, answers) each row of `inputs`.
    ///
    /// Rows without a mask are padded where their lengths differ. The work happens on a thread of its own; no thread of the cooperative pool is held.
    /// - Throws: `GenerationError`; what the backend throws; `CancellationError` soon after the task was cancelled.
    package func generate(
        _ inputs: BatchEncoding, _ config: GenerationConfig = GenerationConfig(), tokenizer: Tokenizer? = nil
    ) async throws -> GenerationOutput {
        var request = GenerationRequest(inputs: inputs.inputIDs, config: config)
        if !inputs.attentionMask.isEmpty { request.attentionMask = inputs.attentionMask }
        return try await generate(request, tokenizer: tokenizer)
    }

    /// As ``generate(_:_:tokenizer:)``, with everything a request can say.
    package func generate(_ request: GenerationRequest, tokenizer: Tokenizer? = nil) async throws -> GenerationOutput {
        let generator = generator(tokenizer: tokenizer)
        let flag = CancellationFlag()
        var request = request
        let given = request.interruption
        request.interruption = {
            try flag.check()
            try given?()
        }
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { [request] continuation in
                let thread = Thread { continuation.resume(with: Result { try generator.generate(request) }) }
                thread.name = "nibble.generate"
                thread.stackSize = 8 << 20
                thread.start()
            }
        } onCancel: {
            flag.isSet.store(true, ordering: .relaxed)
        }
    }
}

/// Whether a task was cancelled, for a thread that works for it.
private final class CancellationFlag: Sendable {
    let isSet = Atomic<Bool>(false)

    func check() throws {
        if isSet.load(ordering: .relaxed) { throw CancellationError() }
    }
}
