import Foundation
import NibbleCPU
import NibbleCheckpoint
import NibbleCore
import NibbleLoading
import NibbleQuantization
import NibbleTestSupport
import Testing

/// Quantized weights in files: what is written is read, and what is malformed is named.
@Suite struct StoredWeightReaderTests {
    enum Format: String, CaseIterable, Sendable {
        case int8, fp4, nf4, nested

        var format: WeightFormat {
            switch self {
            case .int8: .int8
            case .fp4: .fourBit(FourBitFormat(codebook: .fp4))
            case .nf4: .fourBit(FourBitFormat(codebook: .nf4, blockSize: 128))
            case .nested: .fourBit(FourBitFormat(codebook: .nf4, isNested: true))
            }
        }
    }

    private static let shape: Shape = [24, 64]

    private func tensors(_ format: Format) throws -> (weight: LinearWeight, tensors: [TinyModel.NamedTensor]) {
        let weight = try CPUBackend(threads: 1).quantize(TinyModel.values(Self.shape, seed: 3), to: format.format)
        switch weight {
        case .fourBit(let codes): return (weight, try QuantizedTensors.fourBit(codes, name: "w"))
        case .int8(let values): return (weight, [("w", values.values), ("w.SCB", values.scales)])
        case .dense, .prepared: throw LoadError.unknownDType("not quantized")
        }
    }

    private func read(_ tensors: [TinyModel.NamedTensor], shape: Shape = Self.shape) throws -> LinearWeight {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let file = folder.appending(path: "weights.safetensors")
        try SafetensorsWriter().write(tensors, to: file)
        let checkpoint = try CheckpointFiles.open(file: file)
        var source = KeyMatching.WeightSource(key: "w")
        for name in checkpoint.names where name != "w" { source.companions[String(name.dropFirst(2))] = name }
        return try StoredWeightReader(checkpoint: checkpoint) { $0 }.weight(source, shape: shape)
    }

    private func bytes(_ weight: LinearWeight) -> [[UInt8]] {
        var bytes = [[UInt8]]()
        _ = weight.mapTensors { tensor in
            bytes.append(tensor.bytes)
            return tensor
        }
        return bytes
    }

    @Test("what is written is read", arguments: Format.allCases) func roundTrip(format: Format) throws {
        let (weight, tensors) = try tensors(format)
        let read = try read(tensors)
        #expect(bytes(read) == bytes(weight))
        #expect(bytes(read).count >= 2)
    }

    struct Damage: Sendable, CustomStringConvertible {
        let format: Format
        let tensor: String
        /// `nil` removes the tensor.
        let replacement: (@Sendable (Tensor) -> Tensor)?
        let expected: String
        var description: String { "\(format.rawValue): \(tensor)" }
    }

    private static let short: @Sendable (Tensor) -> Tensor = { tensor in
        Tensor(storage: tensor.storage, byteOffset: tensor.byteOffset, dtype: tensor.dtype, shape: [tensor.count - 1])
    }
    private static let half: @Sendable (Tensor) -> Tensor = { tensor in .host(.float16, tensor.shape) }
    private static let zeros: @Sendable (Tensor) -> Tensor = { tensor in
        .host([UInt8](repeating: 0, count: tensor.byteCount), .uint8, [tensor.byteCount])
            .viewed(tensor.dtype, tensor.shape)
    }

    private static let damages: [Damage] = [
        Damage(format: .nf4, tensor: "w", replacement: short, expected: "768 bytes of codes"),
        Damage(format: .nf4, tensor: "w.absmax", replacement: nil, expected: "absmax is missing"),
        Damage(format: .nf4, tensor: "w.absmax", replacement: short, expected: "12 scales of type float32"),
        Damage(format: .nf4, tensor: "w.absmax", replacement: half, expected: "12 scales of type float32"),
        Damage(format: .nf4, tensor: "w.quant_map", replacement: zeros, expected: "the standard table of 16 values"),
        Damage(format: .nf4, tensor: "w.quant_state.bitsandbytes__nf4", replacement: nil, expected: "its quant_state is missing"),
        Damage(format: .nf4, tensor: "w.quant_state.bitsandbytes__nf4", replacement: zeros, expected: "JSON text"),
        Damage(format: .nested, tensor: "w.absmax", replacement: short, expected: "24 scales of type uint8"),
        Damage(format: .nested, tensor: "w.nested_absmax", replacement: nil, expected: "nested_absmax is missing"),
        Damage(format: .nested, tensor: "w.nested_absmax", replacement: half, expected: "1 float32 second-level scales"),
        Damage(format: .nested, tensor: "w.nested_quant_map", replacement: zeros, expected: "the standard table of 256 values"),
        Damage(format: .int8, tensor: "w", replacement: short, expected: "int8 [24, 64]"),
        Damage(format: .int8, tensor: "w.SCB", replacement: short, expected: "24 float32 row scales"),
        Damage(format: .int8, tensor: "w.SCB", replacement: half, expected: "24 float32 row scales"),
    ]

    @Test("each malformation is named with what was expected", arguments: damages) func malformed(damage: Damage) throws {
        var (_, tensors) = try tensors(damage.format)
        let index = try #require(tensors.firstIndex { $0.name == damage.tensor })
        if let replacement = damage.replacement {
            tensors[index].tensor = replacement(tensors[index].tensor)
        } else {
            tensors.remove(at: index)
        }
        #expect {
            _ = try read(tensors)
        } throws: { error in
            "\(error)".contains(damage.expected) && "\(error)".contains("w")
        }
    }

    @Test("codes of another shape than the config's are refused") func otherShape() throws {
        let (_, tensors) = try tensors(.nf4)
        #expect {
            _ = try read(tensors, shape: [64, 24])
        } throws: { error in
            "\(error)".contains("[64, 24]") && "\(error)".contains("[24, 64]")
        }
    }

    @Test("int8 weights in another order than rows are refused") func weightFormat() throws {
        var (_, tensors) = try tensors(.int8)
        tensors.append(("w.weight_format", .host([UInt8(2)], .uint8, [])))
        #expect {
            _ = try read(tensors)
        } throws: { error in
            "\(error)".contains("weight_format 0") && "\(error)".contains("2")
        }
    }
}

extension Tensor {
    fileprivate func viewed(_ dtype: DType, _ shape: Shape) -> Tensor {
        Tensor(storage: storage, byteOffset: byteOffset, dtype: dtype, shape: shape)
    }
}
