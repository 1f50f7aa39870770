/// Decompresses a raw deflate stream (RFC 1951) into memory of known size. Output never grows beyond that size.
struct Inflate {
    /// The stream is damaged, ends too early, or holds more than was announced.
    struct Damage: Error {}

    private let input: UnsafeRawBufferPointer
    private let output: UnsafeMutableRawBufferPointer
    private var position = 0
    private var written = 0
    /// Bits that were read and not used yet, the next one lowest.
    private var bits: UInt64 = 0
    private var bitCount = 0

    /// Fills `output` completely.
    /// - Throws: ``Damage``.
    static func run(_ input: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer) throws(Damage) {
        var inflate = Inflate(input: input, output: output)
        while try inflate.block() {}
        guard inflate.written == output.count else { throw Damage() }
    }

    private init(input: UnsafeRawBufferPointer, output: UnsafeMutableRawBufferPointer) {
        self.input = input
        self.output = output
    }

    // MARK: Bits

    private mutating func refill() {
        while bitCount <= 56, position < input.count {
            bits |= UInt64(input[position]) << UInt64(bitCount)
            position += 1
            bitCount += 8
        }
    }

    private mutating func take(_ count: Int) throws(Damage) -> Int {
        refill()
        guard count <= bitCount else { throw Damage() }
        let value = Int(bits & (1 << UInt64(count) - 1))
        bits >>= UInt64(count)
        bitCount -= count
        return value
    }

    private mutating func symbol(_ code: PrefixCode) throws(Damage) -> Int {
        refill()
        let entry = code.entry(bits)
        guard entry.length > 0, entry.length <= bitCount else { throw Damage() }
        bits >>= UInt64(entry.length)
        bitCount -= entry.length
        return entry.symbol
    }

    // MARK: Blocks

    /// - Returns: whether another block follows.
    private mutating func block() throws(Damage) -> Bool {
        let isLast = try take(1) == 1
        switch try take(2) {
        case 0: try stored()
        case 1: try compressed(PrefixCode.fixedLiterals, PrefixCode.fixedDistances)
        case 2:
            let (literals, distances) = try dynamicCodes()
            try compressed(literals, distances)
        default: throw Damage()
        }
        return !isLast
    }

    private mutating func stored() throws(Damage) {
        _ = try take(bitCount % 8)
        let count = try take(16)
        guard try take(16) == count ^ 0xFFFF else { throw Damage() }
        // Whole bytes may wait among the bits.
        position -= bitCount / 8
        (bits, bitCount) = (0, 0)
        guard count <= input.count - position, count <= output.count - written else { throw Damage() }
        UnsafeMutableRawBufferPointer(rebasing: output[written..<written + count])
            .copyMemory(from: UnsafeRawBufferPointer(rebasing: input[position..<position + count]))
        position += count
        written += count
    }

    private mutating func dynamicCodes() throws(Damage) -> (literals: PrefixCode, distances: PrefixCode) {
        let literalCount = try take(5) + 257
        let distanceCount = try take(5) + 1
        let order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]
        var lengthLengths = [UInt8](repeating: 0, count: order.count)
        for place in order.prefix(try take(4) + 4) { lengthLengths[place] = UInt8(try take(3)) }
        guard let lengthCode = PrefixCode(lengthLengths[...]) else { throw Damage() }
        var lengths: [UInt8] = []
        while lengths.count < literalCount + distanceCount {
            let symbol = try symbol(lengthCode)
            let value: UInt8
            let count: Int
            switch symbol {
            case 16:
                guard let last = lengths.last else { throw Damage() }
                (value, count) = (last, try take(2) + 3)
            case 17: (value, count) = (0, try take(3) + 3)
            case 18: (value, count) = (0, try take(7) + 11)
            default: (value, count) = (UInt8(symbol), 1)
            }
            lengths.append(contentsOf: repeatElement(value, count: count))
        }
        guard lengths.count == literalCount + distanceCount, let literals = PrefixCode(lengths[..<literalCount]),
            let distances = PrefixCode(lengths[literalCount...])
        else { throw Damage() }
        return (literals, distances)
    }

    private static let lengthBases = [
        3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258,
    ]
    private static let lengthBits = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0]

    private mutating func compressed(_ literals: PrefixCode, _ distances: PrefixCode) throws(Damage) {
        while true {
            let symbol = try symbol(literals)
            if symbol < 256 {
                guard written < output.count else { throw Damage() }
                output[written] = UInt8(symbol)
                written += 1
                continue
            }
            if symbol == 256 { return }
            guard symbol - 257 < Self.lengthBases.count else { throw Damage() }
            let length = try Self.lengthBases[symbol - 257] + take(Self.lengthBits[symbol - 257])
            try copy(length, distance: distance(distances))
        }
    }

    private mutating func distance(_ code: PrefixCode) throws(Damage) -> Int {
        let symbol = try symbol(code)
        guard symbol < 30 else { throw Damage() }
        guard symbol >= 4 else { return symbol + 1 }
        let extraBits = symbol / 2 - 1
        return try (2 + symbol % 2) << extraBits + 1 + take(extraBits)
    }

    /// The source may overlap the target: a distance of one repeats a byte.
    private mutating func copy(_ length: Int, distance: Int) throws(Damage) {
        guard distance <= written, length <= output.count - written else { throw Damage() }
        for index in written..<written + length { output[index] = output[index - distance] }
        written += length
    }
}

/// A canonical prefix code, as a table over all bit patterns of its longest code word.
private struct PrefixCode {
    /// `symbol << 4 | length`; zero for a pattern that is no code word.
    private let table: [UInt16]
    private let mask: UInt64

    static let fixedLiterals = PrefixCode(
        ([UInt8](repeating: 8, count: 144) + [UInt8](repeating: 9, count: 112) + [UInt8](repeating: 7, count: 24)
            + [UInt8](repeating: 8, count: 8))[...])!
    static let fixedDistances = PrefixCode([UInt8](repeating: 5, count: 30)[...])!

    /// - Parameter lengths: of the code word of each symbol, at most 15; zero for a symbol that does not occur.
    /// - Returns: `nil` if there are more code words than patterns.
    init?(_ lengths: ArraySlice<UInt8>) {
        var counts = [Int](repeating: 0, count: 16)
        for length in lengths where length > 0 { counts[Int(length)] += 1 }
        let width = counts.lastIndex { $0 > 0 } ?? 0
        var next = [Int](repeating: 0, count: 16)
        var (code, free) = (0, 1)
        for length in 1..<16 {
            code = (code + counts[length - 1]) << 1
            next[length] = code
            free = free * 2 - counts[length]
            guard free >= 0 else { return nil }
        }
        var table = [UInt16](repeating: 0, count: 1 << width)
        for (symbol, length) in lengths.enumerated() where length > 0 {
            let length = Int(length)
            var (word, reversed) = (next[length], 0)
            next[length] += 1
            for _ in 0..<length { (reversed, word) = (reversed << 1 | word & 1, word >> 1) }
            for pattern in stride(from: reversed, to: table.count, by: 1 << length) {
                table[pattern] = UInt16(symbol << 4 | length)
            }
        }
        self.table = table
        mask = UInt64(table.count - 1)
    }

    func entry(_ bits: UInt64) -> (symbol: Int, length: Int) {
        let entry = Int(table[Int(bits & mask)])
        return (entry >> 4, entry & 15)
    }
}

/// The checksum of zip archives.
enum CRC32 {
    private static let table: [UInt32] = (0..<256).map { byte in
        (0..<8).reduce(UInt32(byte)) { value, _ in value >> 1 ^ (value & 1 == 1 ? 0xEDB8_8320 : 0) }
    }

    static func checksum(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
        table.withUnsafeBufferPointer { table in
            ~bytes.reduce(~0) { table[Int(($0 ^ UInt32($1)) & 0xFF)] ^ $0 >> 8 }
        }
    }
}
