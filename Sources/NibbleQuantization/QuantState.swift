package import NibbleCore

/// The names of a quantized layer's tensors in a checkpoint.
package enum QuantizedNames {
    /// Appended to the weight's name: what belongs to a 4-bit weight.
    package static let absmax = "absmax"
    package static let quantMap = "quant_map"
    package static let nestedAbsmax = "nested_absmax"
    package static let nestedQuantMap = "nested_quant_map"

    /// Endings of all tensors that belong to a 4-bit weight. They follow the weight's name, whatever it is.
    package static var parameterEndings: [String] {
        [absmax, quantMap, nestedAbsmax, nestedQuantMap] + FourBitFormat.Codebook.allCases.map(quantState)
    }

    /// Appended to the module's name: what belongs to an int8 weight.
    package static let rowScales = "SCB"
    package static let weightFormat = "weight_format"

    package static let quantStatePrefix = "quant_state.bitsandbytes__"

    package static func quantState(_ codebook: FourBitFormat.Codebook) -> String { quantStatePrefix + codebook.rawValue }
}

/// The description of a 4-bit weight: JSON, stored as bytes under `….quant_state.bitsandbytes__nf4`.
package struct QuantState: Sendable, Hashable {
    package var codebook: FourBitFormat.Codebook
    package var blockSize: Int
    /// The dtype before quantization.
    package var dtype: DType
    package var shape: Shape
    package var nestedBlockSize: Int?
    package var nestedOffset: Float?

    package init(
        codebook: FourBitFormat.Codebook, blockSize: Int, dtype: DType, shape: Shape, nestedBlockSize: Int? = nil,
        nestedOffset: Float? = nil
    ) {
        self.codebook = codebook
        self.blockSize = blockSize
        self.dtype = dtype
        self.shape = shape
        self.nestedBlockSize = nestedBlockSize
        self.nestedOffset = nestedOffset
    }

    package var format: FourBitFormat {
        FourBitFormat(codebook: codebook, blockSize: blockSize, isNested: nestedOffset != nil)
    }

    /// - Parameter name: the tensor's name, for errors.
    /// - Throws: ``QuantStateError``
    package init(parsing bytes: UnsafeRawBufferPointer, name: String) throws {
        func fail(_ expected: String, _ found: String) -> QuantStateError {
            QuantStateError(tensor: name, expected: expected, found: found)
        }
        let json: JSONValue
        do { json = try JSONValue.parse(bytes, options: .nonFiniteNumbers) } catch { throw fail("JSON text", "\(error)") }
        func field<T>(_ key: String, _ expected: String, _ convert: (JSONValue) -> T?) throws -> T {
            guard let value = json[key].flatMap(convert) else {
                throw fail("\(key): \(expected)", json[key]?.encoded(.spaced) ?? "nothing")
            }
            return value
        }
        codebook = try field("quant_type", "fp4 or nf4") { $0.string.flatMap(FourBitFormat.Codebook.init) }
        blockSize = try field("blocksize", "a known block size") { value in
            value.int.flatMap { FourBitFormat.blockSizes.contains($0) ? $0 : nil }
        }
        dtype = try field("dtype", "a float dtype") { value in
            value.string.flatMap(DType.init(name:)).flatMap { $0.isFloatingPoint ? $0 : nil }
        }
        shape = try field("shape", "extents") { value in
            guard let array = value.array else { return nil }
            let extents = array.compactMap(\.int)
            return extents.count == array.count ? Shape(validating: extents) : nil
        }
        if json["nested_offset"] != nil {
            nestedOffset = try field("nested_offset", "a number") { $0.double.map { Float($0) } }
            let size = try field("nested_blocksize", "\(FourBitFormat.nestedBlockSize)", \.int)
            guard size == FourBitFormat.nestedBlockSize else {
                throw fail("nested_blocksize: \(FourBitFormat.nestedBlockSize)", String(size))
            }
            nestedBlockSize = size
        }
    }

    /// The text as bitsandbytes writes it.
    package var encoded: [UInt8] {
        var members: [(String, JSONValue)] = [
            ("quant_type", .string(codebook.rawValue)), ("blocksize", .int(blockSize)), ("dtype", .string(dtype.rawValue)),
            ("shape", .array(shape.dimensions.map(JSONValue.int))),
        ]
        if let nestedOffset {
            members += [
                ("nested_blocksize", .int(nestedBlockSize ?? FourBitFormat.nestedBlockSize)),
                ("nested_dtype", .string(DType.float32.rawValue)), ("nested_offset", .double(Double(nestedOffset))),
            ]
        }
        return Array(JSONValue.object(JSONObject(members)).encoded(.spaced).utf8)
    }
}

/// A stored quantization state that cannot be read.
public struct QuantStateError: Error, Sendable, Equatable, CustomStringConvertible {
    package let tensor: String
    package let expected: String
    package let found: String

    /// The error as a sentence for the user.
    public var description: String { "\(tensor): expected \(expected), found \(found)" }
}
