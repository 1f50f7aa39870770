import NibbleCheckpoint

/// Writes GGUF files, good ones and others.
struct GGUFBuilder {
    struct Tensor {
        var name: String
        var type: UInt32
        /// Innermost first, as in the file.
        var extents: [UInt64]
        var data: [UInt8]
        var offset: UInt64?
    }

    var version: UInt32 = 3
    /// Key, type number, and the value's bytes.
    var metadata: [(key: String, type: UInt32, bytes: [UInt8])] = []
    var tensors: [Tensor] = []
    var alignment = 32
    var tensorCount: UInt64?
    var valueCount: UInt64?

    static func text(_ text: String) -> [UInt8] { littleEndian(UInt64(text.utf8.count)) + text.utf8 }

    mutating func add(_ key: String, _ value: String) { metadata.append((key, 8, Self.text(value))) }
    mutating func add(_ key: String, _ value: UInt32) { metadata.append((key, 4, littleEndian(value))) }
    mutating func add(_ key: String, _ value: Float) { metadata.append((key, 6, littleEndian(value.bitPattern))) }

    mutating func add(_ name: String, _ shape: [UInt64], floats: [Float]) {
        tensors.append(Tensor(name: name, type: 0, extents: shape.reversed(), data: littleEndian(floats)))
    }

    func bytes() -> [UInt8] {
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
