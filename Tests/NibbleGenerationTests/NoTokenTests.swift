import NibbleGeneration
import NibbleModels
import Testing

/// A generation that cannot go on ends with an error in every decoding mode.
@Suite struct NoTokenTests {
    enum Mode: CaseIterable {
        case greedy, recordedGreedy, sampling, recordedSampling, beams, beamSampling
        case assistedGreedy, assistedSampling, lookupGreedy, lookupSampling

        func apply(to request: inout GenerationRequest) {
            let sampled: [Mode] = [.sampling, .recordedSampling, .beamSampling, .assistedSampling, .lookupSampling]
            request.config.doSample = sampled.contains(self)
            request.config.seed = 3
            switch self {
            // Scores are read on the host only if somebody asks for them.
            case .recordedGreedy, .recordedSampling: request.config.outputScores = true
            case .beams, .beamSampling: request.config.numBeams = 3
            case .assistedGreedy, .assistedSampling: request.assistant = HashModel()
            case .lookupGreedy, .lookupSampling: request.config.promptLookupNumTokens = 2
            case .greedy, .sampling: break
            }
        }
    }

    @Test("One logit that is NaN is an error that names the position", arguments: Mode.allCases)
    func notANumber(_ mode: Mode) {
        var request = GenerationRequest(inputs: [[1]], config: config(new: 8))
        mode.apply(to: &request)
        #expect {
            try Generator(model: HashModel(poisonedLength: 3)).generate(request)
        } throws: { error in
            guard case .noTokenAllowed(_, position: 3) = error as? GenerationError else { return false }
            return true
        }
    }

    @Test("So is a position at which every token is forbidden", arguments: Mode.allCases)
    func nothingAllowed(_ mode: Mode) {
        var request = GenerationRequest(inputs: [[1, 2]], config: config(new: 8) { $0.suppressTokens = Array(0..<24) })
        mode.apply(to: &request)
        #expect(throws: GenerationError.noTokenAllowed(row: 0, position: 2)) {
            try Generator(model: HashModel()).generate(request)
        }
    }
}
