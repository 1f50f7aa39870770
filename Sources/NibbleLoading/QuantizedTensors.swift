package import NibbleCore
import NibbleQuantization

/// The tensors of a quantized weight in a checkpoint, under bitsandbytes' names.
package enum QuantizedTensors {
    /// - Parameters:
    ///   - weight: 4-bit, in the canonical layout on the CPU.
    ///   - name: the weight's name. The others' are `name.absmax` and so on.
    ///   - storage: the dtype that the codes are labelled with.
    ///   - shape: recorded in the quant state; [N, K] for a linear layer.
    /// - Throws: ``LoadError/malformedQuantization(tensor:file:expected:found:)`` if the codes do not fill whole elements of
    ///   `storage`.
    package static func fourBit(
        _ weight: FourBitWeight, name: String, storage: DType = .uint8, shape: Shape? = nil
    ) throws -> [(name: String, tensor: Tensor)] {
        let bytes = weight.codes.byteCount
        guard bytes % storage.byteCount == 0 else {
            throw LoadError.malformedQuantization(
                tensor: name, file: "bnb_4bit_quant_storage", expected: "\(bytes) bytes of codes to fill whole elements",
                found: "\(storage), \(storage.byteCount) bytes each")
        }
        var state = QuantState(
            codebook: weight.format.codebook, blockSize: weight.format.blockSize, dtype: weight.sourceDType,
            shape: shape ?? [weight.outFeatures, weight.inFeatures])
        var tensors = [
            (
                name: name,
                tensor: Tensor(
                    storage: weight.codes.storage, byteOffset: weight.codes.byteOffset, dtype: storage,
                    shape: [bytes / storage.byteCount, 1])
            )
        ]
        func add(_ ending: String, _ tensor: Tensor) { tensors.append((name: "\(name).\(ending)", tensor: tensor)) }
        switch weight.scales {
        case .plain(let scales), .exponents(let scales):
            add(QuantizedNames.absmax, scales)
        case .nested(let scales):
            state.nestedBlockSize = FourBitFormat.nestedBlockSize
            state.nestedOffset = scales.offset
            add(QuantizedNames.absmax, scales.codes)
            add(QuantizedNames.nestedAbsmax, scales.absmax)
            add(QuantizedNames.nestedQuantMap, .host(NestedScales.dynamicMap, .float32, [NestedScales.dynamicMap.count]))
        }
        let map = weight.format.codebook.values
        add(QuantizedNames.quantMap, .host(map, .float32, [map.count]))
        let text = state.encoded
        add(QuantizedNames.quantState(weight.format.codebook), .host(text, .uint8, [text.count]))
        return tensors
    }

    /// A layer's int8 weight: `module.weight`, `module.SCB` and `module.weight_format`.
    static func int8(_ weight: Int8Weight, module: String) -> [(name: String, tensor: Tensor)] {
        [
            (name: "\(module).weight", tensor: weight.values),
            (name: "\(module).\(QuantizedNames.rowScales)", tensor: weight.scales),
            (name: "\(module).\(QuantizedNames.weightFormat)", tensor: .host([UInt8(0)], .uint8, [])),
        ]
    }

    /// A bare int8 tensor: its values and `name.SCB`.
    static func int8(_ weight: Int8Weight, name: String) -> [(name: String, tensor: Tensor)] {
        [
            (name: name, tensor: weight.values),
            (name: "\(name).\(QuantizedNames.rowScales)", tensor: weight.scales),
        ]
    }
}
