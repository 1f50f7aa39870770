import Foundation

/// Damaged copies of one file, the same ones in every run.
package struct Damage {
    let original: [UInt8]
    private var state: UInt64

    /// How many copies of each kind of file a test tries.
    package static let rounds = ProcessInfo.processInfo.environment["NIBBLE_FUZZ"].flatMap(Int.init) ?? 150

    package init(original: [UInt8], seed: UInt64) {
        self.original = original
        state = seed
    }

    package mutating func next() -> [UInt8] {
        var bytes = original
        for _ in 0...below(3) { strike(&bytes) }
        return bytes
    }

    private mutating func strike(_ bytes: inout [UInt8]) {
        guard !bytes.isEmpty else { return }
        // Headers are at the beginning, except a zip archive's directory.
        let place =
            below(4) == 0
            ? below(bytes.count) : below(2) == 0 ? below(min(bytes.count, 600)) : bytes.count - 1 - below(min(bytes.count, 600))
        switch below(8) {
        case 0: bytes[place] ^= 1 << UInt8(below(8))
        case 1: bytes[place] = UInt8(below(256))
        case 2: bytes[place] = [0, 1, 0x7F, 0x80, 0xFF][below(5)]
        case 3: bytes.removeSubrange(place..<min(place + 1 + below(16), bytes.count))
        case 4: bytes.insert(contentsOf: (0...below(16)).map { UInt8(truncatingIfNeeded: $0 &* 37) }, at: place)
        case 5: bytes.removeSubrange(place...)
        case 6:
            let piece = Array(bytes[place..<min(place + 1 + below(64), bytes.count)])
            bytes.insert(contentsOf: piece, at: below(bytes.count))
        default:
            let value = [0, 1, .max, 1 << 31, 1 << 32, 1 << 62, 1 << 63, UInt64(bytes.count)][below(8)]
            for (index, byte) in Self.littleEndian(value).prefix(below(2) == 0 ? 4 : 8).enumerated()
            where place + index < bytes.count {
                bytes[place + index] = byte
            }
        }
    }

    private static func littleEndian(_ value: UInt64) -> [UInt8] { (0..<8).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) } }

    /// SplitMix64.
    private mutating func below(_ bound: Int) -> Int {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
        return Int((mixed ^ mixed >> 31) % UInt64(bound))
    }
}
