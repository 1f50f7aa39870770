import NibbleCore
import NibbleModels

extension Benchmark {
    /// Attaches adapters of random numbers to every linear layer but the head. Rows use them in turn from then on.
    /// - Throws: `ModelError`, `BackendError`
    package mutating func attachRandomAdapters(_ count: Int, rank: Int) throws {
        let registry = pretrained.model.adapters
        let dtype = pretrained.model.options.loadDType
        for number in 0..<count {
            var layers: [String: LowRankFactors] = [:]
            for name in registry.layerNames where name != pretrained.tree.outputEmbedding {
                guard let layer = registry.layer(name)?.layer else { continue }
                let seed = UInt64(layers.count + 1) << 8 | UInt64(number)
                layers[name] = LowRankFactors(
                    a: Self.random([rank, layer.inFeatures], dtype, seed: seed),
                    b: Self.random([layer.outFeatures, rank], dtype, seed: ~seed), scale: 1)
            }
            adapters.append(try registry.attach(LowRankAdapter(name: "random \(number)", layers: layers)))
        }
    }

    /// Numbers between −0.02 and 0.02.
    private static func random(_ shape: Shape, _ dtype: DType, seed: UInt64) -> Tensor {
        let tensor = Tensor.host(dtype, shape)
        let start = RandomStream.mix(seed)
        func fill<Element: BitwiseCopyable>(_ convert: (Float) -> Element) {
            let elements = tensor.mutableHostElements(Element.self)
            for index in 0..<shape.count {
                let bits = UInt32(truncatingIfNeeded: RandomStream.mix(start ^ UInt64(index)))
                elements[index] = convert((Float(bits) * 0x1p-31 - 1) * 0.02)
            }
        }
        switch dtype {
        case .float16: fill { Float16($0) }
        case .bfloat16: fill { BFloat16($0) }
        default: fill { $0 }
        }
        return tensor
    }

    /// What each row uses.
    func rowAdapters(_ rows: Int) -> [AdapterWeights]? {
        adapters.isEmpty ? nil : (0..<rows).map { [adapters[$0 % adapters.count]: 1] }
    }
}
