import NibbleCore

/// The header of a safetensors file: a u64 length, then JSON that gives every tensor's dtype, shape and byte range.
struct SafetensorsHeader {
    struct Entry {
        var name: String
        var content: Content
        /// Relative to ``dataOffset``.
        var range: Range<Int>
    }

    enum Content {
        case elements(DType, Shape)
        /// Of a dtype or a rank that is not supported. Only a model that uses the tensor is affected.
        case unreadable(CheckpointError)
    }

    static let maximumByteCount = 100_000_000

    /// Where the data begin, from the file's start.
    let dataOffset: Int
    /// Ordered by place in the file.
    let entries: [Entry]
    let metadata: [String: String]

    /// Reads and checks the header: afterwards every entry lies inside the file and every byte belongs to one.
    init(_ file: MappedFile) throws {
        let bytes = file.bytes
        guard bytes.count >= 8 else {
            throw file.malformed(expected: "a header length of 8 bytes", found: "a file of \(bytes.count) bytes")
        }
        let length = bytes.loadUnaligned(as: UInt64.self)
        guard length <= UInt64(Self.maximumByteCount) else {
            throw file.malformed(expected: "a header of at most \(Self.maximumByteCount) bytes", found: "a length of \(length)")
        }
        dataOffset = 8 + Int(length)
        guard dataOffset <= bytes.count else {
            throw file.malformed(expected: "a header of \(length) bytes", found: "a file of \(bytes.count) bytes")
        }
        var parser = SafetensorsHeaderParser(file: file)
        do {
            try parser.parse(UnsafeRawBufferPointer(rebasing: bytes[8..<dataOffset]))
        } catch let error as JSONError {
            throw file.malformed(expected: "a JSON header", found: "at \(error)")
        }
        entries = parser.entries.sorted {
            ($0.range.lowerBound, $0.range.upperBound) < ($1.range.lowerBound, $1.range.upperBound)
        }
        metadata = parser.metadata
        try Self.checkContiguous(entries, dataByteCount: bytes.count - dataOffset, file: file)
    }

    private static func checkContiguous(_ entries: [Entry], dataByteCount: Int, file: MappedFile) throws {
        var end = 0
        for entry in entries {
            guard entry.range.lowerBound == end else {
                throw file.malformed(
                    entry.name, expected: "data that begin at offset \(end)",
                    found: "offset \(entry.range.lowerBound) (\(entry.range.lowerBound < end ? "an overlap" : "a hole"))")
            }
            end = entry.range.upperBound
            guard end <= dataByteCount else {
                throw file.malformed(
                    entry.name, expected: "data that end within \(dataByteCount) bytes",
                    found: "end offset \(end): the file is cut short; fetch it again")
            }
        }
        guard end == dataByteCount else {
            throw file.malformed(expected: "data of \(end) bytes", found: "\(dataByteCount - end) bytes more")
        }
    }
}

/// Reads the header without building JSON values, because real checkpoints have thousands of entries.
private struct SafetensorsHeaderParser {
    let file: MappedFile
    var entries: [SafetensorsHeader.Entry] = []
    var metadata: [String: String] = [:]
    private var seen: Set<ByteText> = []

    init(file: MappedFile) { self.file = file }

    mutating func parse(_ text: UnsafeRawBufferPointer) throws {
        var reader = JSONReader(text)
        try reader.object { key, reader in
            guard seen.insert(ByteText(key)).inserted else {
                throw file.malformed(expected: "each name once", found: "a second \"\(key)\"")
            }
            if key.hasSameBytes(as: "__metadata__") {
                try readMetadata(reader.value())
            } else {
                try entries.append(entry(key, &reader))
            }
        }
        try reader.finish()
    }

    /// No tensor depends on the metadata: whatever can be text is kept, `null` means none.
    private mutating func readMetadata(_ value: JSONValue) throws {
        guard !value.isNull else { return }
        guard let members = value.object else {
            throw file.malformed(expected: "an object as __metadata__", found: value.kind)
        }
        for (word, value) in members { metadata[word] = value.string ?? value.encoded() }
    }

    private func entry(_ name: String, _ reader: inout JSONReader) throws -> SafetensorsHeader.Entry {
        var dtypeWord: String?
        var extents: [Int]?
        var offsets: [Int]?
        try reader.object { key, reader in
            switch key {
            case "dtype": try once(&dtypeWord, reader.string(), key, name)
            case "shape": try once(&extents, integers(&reader), key, name)
            case "data_offsets": try once(&offsets, integers(&reader), key, name)
            default: try reader.skip()
            }
        }
        guard let dtypeWord else { throw file.malformed(name, expected: "a dtype", found: "none") }
        guard let extents else { throw file.malformed(name, expected: "a shape", found: "none") }
        guard let offsets else { throw file.malformed(name, expected: "data_offsets", found: "none") }
        guard offsets.count == 2, offsets[0] >= 0, offsets[0] <= offsets[1] else {
            throw file.malformed(name, expected: "data_offsets [begin, end]", found: "\(offsets.prefix(16))")
        }
        let range = offsets[0]..<offsets[1]
        guard let dtype = DType(safetensors: dtypeWord) else {
            let error = CheckpointError.unknownDType(file: file.path, tensor: name, found: dtypeWord)
            return SafetensorsHeader.Entry(name: name, content: .unreadable(error), range: range)
        }
        let content = try content(dtype, extents, range, name)
        return SafetensorsHeader.Entry(name: name, content: content, range: range)
    }

    private func once<Value>(_ slot: inout Value?, _ value: Value, _ key: String, _ name: String) throws {
        guard slot == nil else { throw file.malformed(name, expected: "one \(key)", found: "two") }
        slot = value
    }

    private func integers(_ reader: inout JSONReader) throws -> [Int] {
        var numbers: [Int] = []
        try reader.array { try numbers.append($0.integer()) }
        return numbers
    }

    /// Checks that the shape accounts for every byte.
    private func content(
        _ dtype: DType, _ extents: [Int], _ range: Range<Int>, _ name: String
    ) throws -> SafetensorsHeader.Content {
        let shape: Shape
        do {
            shape = try file.shape(extents, of: name)
        } catch let error as CheckpointError {
            guard case .unsupportedRank = error else { throw error }
            return .unreadable(error)
        }
        let (needed, overflow) = shape.count.multipliedReportingOverflow(by: dtype.byteCount)
        guard !overflow, range.count == needed else {
            throw file.malformed(
                name, expected: overflow ? "a shape that memory can hold" : "\(needed) bytes for \(dtype) \(shape)",
                found: overflow ? "\(dtype) \(shape)" : "\(range.count)")
        }
        return .elements(dtype, shape)
    }
}

extension MappedFile {
    /// A shape from a file: at most four dimensions, none negative, no overflow.
    func shape(_ extents: [Int], of tensor: String) throws -> Shape {
        guard extents.count <= Shape.maximumRank else {
            throw CheckpointError.unsupportedRank(file: path, tensor: tensor, shape: Array(extents.prefix(64)))
        }
        guard let shape = Shape(validating: extents) else {
            throw malformed(tensor, expected: "a shape of non-negative extents that memory can hold", found: "\(extents)")
        }
        return shape
    }
}

extension DType {
    private static let safetensorsWords: [(word: String, dtype: DType)] = [
        ("F64", .float64), ("F32", .float32), ("F16", .float16), ("BF16", .bfloat16),
        ("I64", .int64), ("I32", .int32), ("I16", .int16), ("I8", .int8),
        ("U64", .uint64), ("U32", .uint32), ("U16", .uint16), ("U8", .uint8),
        ("BOOL", .bool), ("F8_E4M3", .float8E4M3), ("F8_E5M2", .float8E5M2),
    ]

    /// The dtype of a safetensors word such as `BF16`.
    init?(safetensors word: String) {
        guard let match = Self.safetensorsWords.first(where: { $0.word == word }) else { return nil }
        self = match.dtype
    }

    var safetensorsWord: String { Self.safetensorsWords.first { $0.dtype == self }?.word ?? rawValue }
}
