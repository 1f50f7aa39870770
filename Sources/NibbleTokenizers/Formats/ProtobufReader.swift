/// Walks the fields of one protocol buffers message.
struct ProtobufReader {
    enum Value {
        case varint(UInt64)
        case fixed32(UInt32)
        case bytes(Range<Int>)
        /// Fixed 64 bits, unused by the formats here.
        case other
    }

    struct Malformed: Error {}

    let bytes: [UInt8]
    private var position: Int
    private let end: Int

    init(_ bytes: [UInt8], range: Range<Int>? = nil) {
        self.bytes = bytes
        position = range?.lowerBound ?? 0
        end = range?.upperBound ?? bytes.count
    }

    mutating func next() throws(Malformed) -> (field: UInt64, value: Value)? {
        guard position < end else { return nil }
        let tag = try varint()
        guard tag >> 3 > 0 else { throw Malformed() }
        switch tag & 7 {
        case 0: return (tag >> 3, .varint(try varint()))
        case 1:
            _ = try take(8)
            return (tag >> 3, .other)
        case 2:
            let length = try varint()
            guard length <= UInt64(end - position) else { throw Malformed() }
            return (tag >> 3, .bytes(try take(Int(length))))
        case 5:
            let range = try take(4)
            let word = bytes[range].reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
            return (tag >> 3, .fixed32(word))
        default: throw Malformed()
        }
    }

    private mutating func take(_ count: Int) throws(Malformed) -> Range<Int> {
        guard count <= end - position else { throw Malformed() }
        position += count
        return (position - count)..<position
    }

    private mutating func varint() throws(Malformed) -> UInt64 {
        var value: UInt64 = 0
        for shift in stride(from: UInt64(0), to: 70, by: 7) {
            guard position < end, shift < 64 else { throw Malformed() }
            let byte = bytes[position]
            position += 1
            value |= UInt64(byte & 0x7F) << shift
            if byte < 0x80 { return value }
        }
        throw Malformed()
    }
}
