/// Writes GGUF files, good ones and others.
package struct GGUFBuilder {
    package struct Tensor {
        package var name: String
        package var type: UInt32
        /// Innermost first, as in the file.
        package var extents: [UInt64]
        package var data: [UInt8]
        package var offset: UInt64?

        package init(name: String, type: UInt32, extents: [UInt64], data: [UInt8], offset: UInt64? = nil) {
            (self.name, self.type, self.extents, self.data, self.offset) = (name, type, extents, data, offset)
        }
    }

    package var version: UInt32
    /// Key, type number, and the value's bytes.
    package var metadata: [(key: String, type: UInt32, bytes: [UInt8])] = []
    package var tensors: [Tensor] = []
    package var alignment: Int
    package var tensorCount: UInt64?
    package var valueCount: UInt64?

    package init(version: UInt32 = 3, alignment: Int = 32) { (self.version, self.alignment) = (version, alignment) }

    package static func text(_ text: String) -> [UInt8] { littleEndian(UInt64(text.utf8.count)) + text.utf8 }

    package mutating func add(_ key: String, _ value: String) { metadata.append((key, 8, Self.text(value))) }
    package mutating func add(_ key: String, _ value: UInt32) { metadata.append((key, 4, littleEndian(value))) }
    package mutating func add(_ key: String, _ value: Float) { metadata.append((key, 6, littleEndian(value.bitPattern))) }

    package mutating func add(_ name: String, _ shape: [UInt64], floats: [Float]) {
        tensors.append(Tensor(name: name, type: 0, extents: shape.reversed(), data: littleEndian(floats)))
    }

    package func bytes() -> [UInt8] {
        var output = Array("GGUF".utf8) + littleEndian(version)
        output += littleEndian(tensorCount ?? UInt64(tensors.count)) + littleEndian(valueCount ?? UInt64(metadata.count))
        for (key, type, bytes) in metadata { output += Self.text(key) + littleEndian(type) + bytes }
        var data: [UInt8] = []
        for tensor in tensors {
            let offset = tensor.offset ?? UInt64(data.count)
            output += Self.text(tensor.name) + littleEndian(UInt32(tensor.extents.count))
            output += tensor.extents.flatMap { littleEndian($0) } + littleEndian(tensor.type) + littleEndian(offset)
            data += tensor.data
            data += [UInt8](repeating: 0, count: (alignment - data.count % alignment) % alignment)
        }
        output += [UInt8](repeating: 0, count: (alignment - output.count % alignment) % alignment)
        return output + data
    }
}

package func littleEndian(_ value: some FixedWidthInteger) -> [UInt8] { withUnsafeBytes(of: value.littleEndian) { Array($0) } }

package func littleEndian(_ values: [Float]) -> [UInt8] { values.flatMap { littleEndian($0.bitPattern) } }
