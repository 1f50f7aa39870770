internal import Foundation
internal import NibbleCore

// The plain form of recurrent mixers, in double precision, one token and one head after another.

/// The states of a plain computation: an entry for each block.
struct PlainStates {
    var values: [Double]
    /// Numbers of an entry.
    let size: Int

    /// Calls `body` for each row that has tokens, with its tokens and its state, which it updates.
    mutating func forEachRow(of batch: RaggedBatch, _ body: (_ tokens: Range<Int>, _ state: inout [Double]) -> Void) {
        var first = 0
        for row in batch.queryLengths.indices where batch.queryLengths[row] > 0 {
            let tokens = first..<first + batch.queryLengths[row]
            let (end, start) = (batch.lengths[row], batch.lengths[row] - tokens.count)
            var state = [Double](repeating: 0, count: size)
            if start > 0 { state = Array(values[place(batch, row, start - 1)]) }
            body(tokens, &state)
            values.replaceSubrange(place(batch, row, end - 1), with: state)
            first = tokens.upperBound
        }
    }

    private func place(_ batch: RaggedBatch, _ row: Int, _ position: Int) -> Range<Int> {
        let block = batch.slot(row: row, position: position).block
        return block * size..<(block + 1) * size
    }
}

/// A matrix of activations.
struct PlainColumns {
    let values: [Double]
    let width: Int
    var first = 0

    func at(_ token: Int, _ column: Int) -> Double { values[token * width + first + column] }
    func run(_ token: Int, _ column: Int, _ count: Int) -> [Double] { (0..<count).map { at(token, column + $0) } }
}

enum PlainRecurrence {
    static func softplus(_ x: Double) -> Double { x > 30 ? x : log(1 + exp(x)) }

    /// A causal convolution of one row; `inputs` are [C, k − 1].
    static func convolve(
        _ input: (_ token: Int, _ channel: Int) -> Double, tokens: Range<Int>, weight: [Double], bias: [Double]?, taps: Int,
        inputs: inout [Double], output: (_ token: Int, _ channel: Int, _ value: Double) -> Void
    ) {
        let held = taps - 1
        for channel in 0..<weight.count / taps {
            var window = Array(inputs[channel * held..<(channel + 1) * held])
            for token in tokens {
                window.append(input(token, channel))
                let sum = (0..<taps).reduce(bias?[channel] ?? 0) { $0 + weight[channel * taps + $1] * window[$1] }
                output(token, channel, sum)
                window.removeFirst()
            }
            inputs.replaceSubrange(channel * held..<(channel + 1) * held, with: window)
        }
    }

    /// One token of the gated delta rule for a head whose state is [K, V].
    static func delta(
        state: inout ArraySlice<Double>, query: [Double], key: [Double], value: [Double], decay: Double, beta: Double
    ) -> [Double] {
        let (first, columns) = (state.startIndex, value.count)
        var output = [Double](repeating: 0, count: columns)
        for column in 0..<columns {
            var held = 0.0
            for row in key.indices {
                state[first + row * columns + column] *= decay
                held += state[first + row * columns + column] * key[row]
            }
            let change = beta * (value[column] - held)
            for row in key.indices {
                state[first + row * columns + column] += key[row] * change
                output[column] += state[first + row * columns + column] * query[row]
            }
        }
        return output
    }

    /// x / √(Σx² + 1e-6)
    static func unit(_ x: [Double]) -> [Double] {
        let factor = 1 / (x.reduce(1e-6) { $0 + $1 * $1 }).squareRoot()
        return x.map { $0 * factor }
    }

    /// One token of Mamba 2 for a head whose state is [P, N].
    static func scan(
        state: inout ArraySlice<Double>, x: [Double], b: [Double], c: [Double], decay: Double, dt: Double, skip: Double
    ) -> [Double] {
        let first = state.startIndex
        return x.indices.map { row in
            var sum = skip * x[row]
            for n in b.indices {
                let place = first + row * b.count + n
                state[place] = decay * state[place] + dt * x[row] * b[n]
                sum += state[place] * c[n]
            }
            return sum
        }
    }
}
