import NibbleCore
import NibbleGeneration
import NibbleModels
import Testing

@Suite struct ProcessorFixtureTests {
    /// Fixtures with recorded distributions. A file that cannot be read stays among them, for the test to fail on.
    static let recorded = SamplingFixture.all.filter { (try? $0.cases().isEmpty) != true }

    @Test("Processors give the recorded probabilities", arguments: recorded)
    func recordedProbabilities(_ fixture: SamplingFixture) throws {
        let cases = try fixture.cases()
        let tensors = try fixture.tensors()
        let logits = Array(try tensors.tensor("sampling.logits").hostElements(Float.self))
        let ids = try tensors.tensor("sampling.input_ids").hostElements(Int64.self).map { Int32($0) }
        for entry in cases {
            let options = try #require(entry["kwargs"])
            let name = try #require(entry["tensor"]?.string)
            let expected = try tensors.tensor(name).hostElements(Float.self)
            var config = try GenerationConfig(options: options)
            config.doSample = true
            let scores = try processed(logits, ids, config)
            let kept = scores.count { $0 > -.infinity }
            #expect(kept == entry["kept"]?.int, "\(name)")
            #expect(scores.count == expected.count)
            // A comparison with NaN is false.
            #expect(zip(NaiveSampling.softmax(scores), expected).allSatisfy { abs($0 - Double($1)) < 1e-5 }, "\(name)")
        }
    }

    @Test("There are recorded distributions to compare with")
    func fixturesArePresent() throws {
        #expect(try SamplingFixture.all.map { try $0.cases().count }.reduce(0, +) >= 24)
    }
}

/// Runs the processors a configuration asks for over one row.
func processed(
    _ logits: [Float], _ ids: [Int32], _ config: GenerationConfig, prompt: Int? = nil, maxLength: Int = 100,
    minLength: Int = 0, maskStart: Int = 0, encoder: [Int32]? = nil, custom: [any LogitsProcessor] = []
) throws -> [Float] {
    let config = GenerationConfig.resolved(call: config)
    let list = try LogitsProcessorList.make(
        config,
        ProcessorSetting(
            vocabularySize: logits.count, promptLength: prompt ?? ids.count, maxLength: maxLength, minLength: minLength,
            eos: config.eosTokenId ?? [], custom: custom)
    ).list
    var scores = logits
    let scratch = ScoreScratch(vocabularySize: logits.count)
    try ids.withUnsafeBufferPointer { ids in
        try (encoder ?? []).withUnsafeBufferPointer { encoderIds in
            try scores.withUnsafeMutableBufferPointer { values in
                let context = RowContext(
                    ids: ids, promptLength: prompt ?? ids.count, maskStart: maskStart,
                    encoderIds: encoder == nil ? nil : encoderIds, scratch: scratch)
                try list.process(
                    LogitsBatch(rows: 1, vocabularySize: values.count, values: values), [context])
            }
        }
    }
    return scores
}
