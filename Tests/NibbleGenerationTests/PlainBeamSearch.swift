import Foundation
import NibbleModels

/// Beam search written from the listing alone: arrays of arrays, full sorts, the model asked anew for each sequence.
struct PlainBeamSearch {
    var model: HashModel
    var prompts: [[Int32]]
    /// Tokens of each prompt that count (without padding).
    var starts: [Int]
    var encoders: [[Int32]] = []
    var beams: Int
    var maxLength: Int
    var eos: [Int32] = []
    var pad: Int32?
    var lengthPenalty = 1.0
    /// true, false or "never"
    var earlyStopping = "false"
    var returned = 1
    var repetitionPenalty: Float = 1

    struct Answer {
        var sequences: [[Int32]]
        var scores: [Float]
        var indices: [[Int]]
    }

    struct Beam {
        var ids: [Int32]
        var indices: [Int] = []
        var score: Float
        var isDone = false
    }

    private func logProbabilities(_ item: Int, _ ids: [Int32]) -> [Float] {
        let logits = model.logits(Array(ids[starts[item]...]), encoder: encoders.isEmpty ? [] : encoders[item])
        let maximum = logits.max() ?? 0
        let sum = logits.map { exp(Double($0 - maximum)) }.reduce(0, +)
        var scores = logits.map { $0 - (maximum + Float(log(sum))) }
        if repetitionPenalty != 1 {
            for token in Set(ids[starts[item]...]) {
                let score = scores[Int(token)]
                scores[Int(token)] = score < 0 ? score * repetitionPenalty : score / repetitionPenalty
            }
        }
        return scores
    }

    /// Positions of the largest numbers, best first, the earlier first among equals.
    private func top(_ scores: [Float], _ count: Int) -> [Int] {
        Array(scores.indices.sorted { (-scores[$0], $0) < (-scores[$1], $1) }.prefix(count))
    }

    func run() -> Answer {
        let promptLength = prompts[0].count
        let n = beams
        let keep = max(2, 1 + eos.count) * n
        var running = prompts.map { prompt in (0..<n).map { Beam(ids: prompt, score: $0 == 0 ? 0 : -1e9) } }
        var finished = prompts.map { prompt in (0..<n).map { _ in Beam(ids: prompt, score: -1e9) } }
        var open = prompts.map { _ in true }
        var length = promptLength
        while true {
            var allHit = true
            for item in prompts.indices {
                let vocabulary = model.vocabularySize
                let accumulated = running[item].flatMap { beam in
                    logProbabilities(item, beam.ids).map { $0 + beam.score }
                }
                let candidates = top(accumulated, keep).map { index in
                    let source = running[item][index / vocabulary]
                    return Beam(
                        ids: source.ids + [Int32(index % vocabulary)], indices: source.indices + [index / vocabulary + item * n],
                        score: accumulated[index])
                }
                let stops = candidates.map { $0.ids.count >= maxLength || eos.contains($0.ids.last ?? -1) }
                if stops.contains(false) { allHit = false }
                let r = zip(candidates, stops).map { $0.score + ($1 ? -1e9 : 0) }
                let next = top(r, n).map { index in
                    var beam = candidates[index]
                    beam.score = r[index]
                    return beam
                }
                let full = finished[item].allSatisfy(\.isDone) && earlyStopping == "true"
                var merged = finished[item]
                for (j, candidate) in candidates.enumerated() {
                    var q = candidate.score / Float(pow(Double(length + 1 - promptLength), lengthPenalty))
                    if full { q += -1e9 }
                    if !open[item] { q += -1e9 }
                    let f = stops[j] && j < n
                    if !f { q += -1e9 }
                    merged.append(Beam(ids: candidate.ids, indices: candidate.indices, score: q, isDone: f))
                }
                finished[item] = top(merged.map(\.score), n).map { merged[$0] }
                running[item] = next
            }
            length += 1
            for item in prompts.indices {
                let h = earlyStopping == "never" && lengthPenalty > 0 ? maxLength - promptLength : length - promptLength
                let best = running[item][0].score / Float(pow(Double(h), lengthPenalty))
                let least = finished[item].map(\.score).min() ?? 0
                open[item] = open[item] && finished[item].contains { best > ($0.isDone ? least : -1e9) }
            }
            let allDone = earlyStopping == "true" && finished.allSatisfy { $0.allSatisfy(\.isDone) }
            if !open.contains(true) || allDone || allHit { break }
        }
        return answer(finished.flatMap { $0.prefix(returned) }, promptLength)
    }

    private func answer(_ beams: [Beam], _ promptLength: Int) -> Answer {
        let longest = beams.map(\.indices.count).max() ?? 0
        let fill: Int32 = eos.isEmpty ? -1 : (pad ?? 0) != 0 ? pad ?? 0 : eos[0]
        return Answer(
            sequences: beams.map { $0.ids + Array(repeating: fill, count: promptLength + longest - $0.ids.count) },
            scores: beams.map(\.score),
            indices: beams.map { $0.indices + Array(repeating: -1, count: longest - $0.indices.count) })
    }
}
