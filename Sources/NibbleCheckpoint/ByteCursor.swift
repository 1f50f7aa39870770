/// Walks over bytes of a file. Reading past the end is an error that says where.
struct ByteCursor {
    let file: MappedFile
    /// From the file's start.
    private(set) var position: Int
    /// Where reading must stop.
    let end: Int

    /// - Precondition: `range` lies inside the file.
    init(_ file: MappedFile, _ range: Range<Int>) {
        precondition(range.lowerBound >= 0 && range.upperBound <= file.byteCount)
        self.file = file
        position = range.lowerBound
        end = range.upperBound
    }

    var remaining: Int { end - position }

    mutating func integer<Value: FixedWidthInteger>(_: Value.Type = Value.self) throws -> Value {
        let value = try bytes(MemoryLayout<Value>.size).loadUnaligned(as: Value.self)
        return Value(littleEndian: value)
    }

    mutating func bytes(_ count: Int) throws -> UnsafeRawBufferPointer {
        let range = try skip(count)
        return UnsafeRawBufferPointer(rebasing: file.bytes[range])
    }

    /// Skips `count` bytes and returns their range.
    mutating func skip(_ count: Int) throws -> Range<Int> {
        guard count >= 0, count <= remaining else {
            throw file.malformed(expected: "\(count) bytes at offset \(position)", found: "\(remaining)")
        }
        defer { position += count }
        return position..<position + count
    }

    /// Reads a line and skips its newline.
    mutating func line(limit: Int) throws -> String {
        let window = file.bytes[position..<min(end, position + limit)]
        guard let newline = window.firstIndex(of: 0x0A) else {
            throw file.malformed(expected: "a line at offset \(position)", found: "none within \(window.count) bytes")
        }
        let text = try file.text(position..<newline)
        position = newline + 1
        return text
    }
}

extension MappedFile {
    /// - Precondition: `range` lies inside the file.
    func text(_ range: Range<Int>) throws -> String {
        let buffer = UnsafeRawBufferPointer(rebasing: bytes[range]).assumingMemoryBound(to: UInt8.self)
        guard let text = String(validating: buffer, as: UTF8.self) else {
            throw malformed(expected: "UTF-8 at offset \(range.lowerBound)", found: "other bytes")
        }
        return text
    }
}
