package import NibbleCore
package import NibbleModels

/// A request with all that an engine has to know of it.
package struct Submission: Sendable {
    /// Its deadline is set by the engine, from ``timeLimit``.
    package var request: ServingRequest
    /// Encoder-decoders: what the encoder reads; the prompt is the decoder's.
    package var encoderInput: [Int32] = []
    /// How tokens are chosen. The number of the choice is added to its stream.
    package var selection: SlotSelection
    /// How many of the most probable tokens are reported beside the chosen one, at most 20; `nil`: no probabilities.
    package var logProbabilities: Int?
    /// `nil`: those that are active.
    package var adapters: AdapterWeights?
    /// From the submission on.
    package var timeLimit: Duration?
    /// Makes what each choice may hold.
    package var masks: (@Sendable (_ choice: Int) throws -> any TokenMaskProvider)?

    package init(_ request: ServingRequest, selection: SlotSelection = SlotSelection()) {
        self.request = request
        self.selection = selection
    }
}

/// A request between its submission and its end.
///
/// ``mailbox`` and ``submission`` may be used by everybody, the other properties by the engine's thread only.
final class OpenRequest: @unchecked Sendable {
    let submission: Submission
    let mailbox: AnswerMailbox
    var id: RequestID?
    var answers: [Answer]
    var openAnswers: Int
    /// Whether its mailbox has news that its reader was not told of.
    var isTouched = false

    struct Answer {
        var slot: Int?
        var hasBegun = false
        var masks: (any TokenMaskProvider)?
    }

    init(_ submission: Submission) {
        self.submission = submission
        let choices = max(submission.request.choices, 1)
        mailbox = AnswerMailbox(choices: choices)
        answers = Array(repeating: Answer(), count: choices)
        openAnswers = choices
    }
}
