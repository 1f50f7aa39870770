/// GPT-2's printable stand-ins for the 256 bytes: most of Latin-1 stands for itself, the other 68 bytes for U+0100 onwards.
enum ByteLevelAlphabet {
    private static let scalars: [UInt32] = {
        var next: UInt32 = 0x100
        return (UInt32(0)..<256).map { byte in
            switch byte {
            case 0x21...0x7E, 0xA1...0xAC, 0xAE...0xFF: return byte
            default:
                next += 1
                return next - 1
            }
        }
    }()

    /// The byte of the scalar at the index, −1 for none.
    private static let bytes: [Int16] = {
        var bytes = [Int16](repeating: -1, count: 0x144)
        for (byte, scalar) in scalars.enumerated() { bytes[Int(scalar)] = Int16(byte) }
        return bytes
    }()

    static func scalar(of byte: UInt8) -> UInt32 { scalars[Int(byte)] }

    static func byte(of scalar: UInt32) -> UInt8? {
        scalar < 0x144 && bytes[Int(scalar)] >= 0 ? UInt8(bytes[Int(scalar)]) : nil
    }

    static func encode(_ raw: some Sequence<UInt8>) -> [UInt8] {
        var out: [UInt8] = []
        for byte in raw { UTF8Text.append(scalar(of: byte), to: &out) }
        return out
    }

    /// The bytes that `text` stands for, or `nil` if it holds any other character.
    static func decode(_ text: some Collection<UInt8>) -> [UInt8]? {
        var out: [UInt8] = []
        out.reserveCapacity(text.count)
        var iterator = text.makeIterator()
        while let lead = iterator.next() {
            var scalar = UInt32(lead)
            if lead >= 0x80 {
                // All characters of the alphabet have at most two bytes.
                guard lead < 0xE0, let second = iterator.next() else { return nil }
                scalar = UInt32(lead & 0x1F) << 6 | UInt32(second & 0x3F)
            }
            guard let byte = byte(of: scalar) else { return nil }
            out.append(byte)
        }
        return out
    }
}
