import NibbleCore
import NibbleModels

/// Merges adapters into quantized weights, as peft does: dequantized, summed, and quantized again after each adapter.
struct QuantizedMerge {
    private let arithmetic: AdapterArithmetic
    private let adapters: [MatchedAdapter]
    private let cpu: any Backend

    init(_ cpu: any Backend, _ adapters: [MatchedAdapter]) {
        self.cpu = cpu
        self.adapters = adapters
        arithmetic = AdapterArithmetic(cpu)
    }

    /// - Parameter weights: in canonical layouts on the CPU.
    func merge(into weights: inout ModelWeights) throws {
        for adapter in adapters {
            for (path, update) in adapter.lowRanks.sorted(by: { $0.key < $1.key }) {
                guard let layer = weights.linears[path], let weight = try merged(layer.weight.canonical(), update) else {
                    continue
                }
                weights.linears[path] = Linear(
                    name: layer.name, weight: weight, bias: layer.bias, arithmetic: layer.arithmetic)
            }
        }
    }

    /// `nil` for a weight that is not quantized.
    private func merged(_ weight: LinearWeight, _ update: MatchedAdapter.LowRankUpdate) throws -> LinearWeight? {
        switch weight {
        case .fourBit(let fourBit):
            let floats = try cpu.dequantize(weight, to: fourBit.sourceDType)
            let sum = try sum(floats, update)
            return try arithmetic.host.quantized(sum, to: weight.format, on: cpu, followsReference: true)
        case .int8(let int8):
            let sum = try sum(QuantizedMerge.floats(int8), update)
            return try cpu.quantize(arithmetic.host.cast(sum, to: .float16), to: .int8)
        case .dense, .prepared: return nil
        }
    }

    private func sum(_ weight: Tensor, _ update: MatchedAdapter.LowRankUpdate) throws -> Tensor {
        try arithmetic.sum(
            weight, arithmetic.delta(update), scale: update.scale, magnitude: update.magnitude)
    }

    /// code · scale · 1/127 in float32, in this order.
    private static func floats(_ weight: Int8Weight) -> Tensor {
        let (codes, scales) = (weight.values.hostElements(Int8.self), weight.scales.hostElements(Float.self))
        let columns = weight.values.shape[1]
        let values = codes.indices.map { Float(codes[$0]) * scales[$0 / columns] * 7.874015718698502e-3 }
        return .host(values, .float32, weight.values.shape)
    }
}
