/// SHA-1 and SHA-256 (FIPS 180-4), the hashes that ETags of the Hub are. Nothing here is secret, so that no more is asked of them.
struct BlockHash {
    enum Kind { case sha1, sha256 }

    private let kind: Kind
    private var state: [UInt32]
    /// The beginning of a block that is not whole yet.
    private var pending: [UInt8] = []
    private var byteCount: UInt64 = 0

    private static let blockBytes = 64

    init(_ kind: Kind) {
        self.kind = kind
        state = switch kind {
        case .sha1: [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0]
        case .sha256:
            [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19]
        }
    }

    /// - Complexity: linear.
    mutating func update(_ bytes: UnsafeRawBufferPointer) {
        byteCount += UInt64(bytes.count)
        var rest = bytes[...]
        if !pending.isEmpty {
            let missing = rest.prefix(Self.blockBytes - pending.count)
            pending += missing
            rest = rest.dropFirst(missing.count)
            guard pending.count == Self.blockBytes else { return }
            pending.withUnsafeBytes { compress($0) }
            pending.removeAll(keepingCapacity: true)
        }
        let whole = rest.count / Self.blockBytes * Self.blockBytes
        compress(UnsafeRawBufferPointer(rebasing: rest.prefix(whole)))
        pending += rest.dropFirst(whole)
    }

    /// The hash of what came so far, in hexadecimal digits.
    func text() -> String {
        var last = self
        var padding: [UInt8] = [0x80]
        let filled = (pending.count + 1) % Self.blockBytes
        padding += [UInt8](repeating: 0, count: (Self.blockBytes + 56 - filled) % Self.blockBytes)
        withUnsafeBytes(of: (byteCount * 8).bigEndian) { padding += $0 }
        padding.withUnsafeBytes { last.update($0) }
        return last.state.map { word in
            let digits = String(word, radix: 16)
            return String(repeating: "0", count: 8 - digits.count) + digits
        }.joined()
    }

    /// - Parameter blocks: whole ones.
    private mutating func compress(_ blocks: UnsafeRawBufferPointer) {
        guard let start = blocks.baseAddress, !blocks.isEmpty else { return }
        let kind = kind
        // Plain pointers: checks of every index would take longer than the rounds.
        withUnsafeTemporaryAllocation(of: UInt32.self, capacity: 80) { buffer in
            guard let words = buffer.baseAddress else { return }
            state.withUnsafeMutableBufferPointer { state in
                Self.constants.withUnsafeBufferPointer { constants in
                    for offset in stride(from: 0, to: blocks.count, by: Self.blockBytes) {
                        switch kind {
                        case .sha1: Self.compressSHA1(start + offset, state, words)
                        case .sha256: Self.compressSHA256(start + offset, state, words, constants)
                        }
                    }
                }
            }
        }
    }
}

@inline(__always)
private func rotateLeft(_ word: UInt32, _ count: UInt32) -> UInt32 { word &<< count | word &>> (32 - count) }

@inline(__always)
private func rotateRight(_ word: UInt32, _ count: UInt32) -> UInt32 { word &>> count | word &<< (32 - count) }

@inline(__always)
private func readWords(_ block: UnsafeRawPointer, into words: UnsafeMutablePointer<UInt32>) {
    for t in 0..<16 { words[t] = UInt32(bigEndian: block.loadUnaligned(fromByteOffset: 4 * t, as: UInt32.self)) }
}

extension BlockHash {
    private typealias Words = UnsafeMutablePointer<UInt32>

    private static func compressSHA1(_ block: UnsafeRawPointer, _ state: UnsafeMutableBufferPointer<UInt32>, _ words: Words) {
        readWords(block, into: words)
        for t in 16..<80 { words[t] = rotateLeft(words[t - 3] ^ words[t - 8] ^ words[t - 14] ^ words[t - 16], 1) }
        var (a, b, c, d, e) = (state[0], state[1], state[2], state[3], state[4])
        func rounds(_ range: Range<Int>, _ constant: UInt32, _ mix: (UInt32, UInt32, UInt32) -> UInt32) {
            for t in range {
                let next = rotateLeft(a, 5) &+ mix(b, c, d) &+ e &+ constant &+ words[t]
                (e, d, c, b, a) = (d, c, rotateLeft(b, 30), a, next)
            }
        }
        rounds(0..<20, 0x5a82_7999) { $0 & $1 | ~$0 & $2 }
        rounds(20..<40, 0x6ed9_eba1) { $0 ^ $1 ^ $2 }
        rounds(40..<60, 0x8f1b_bcdc) { $0 & $1 | $0 & $2 | $1 & $2 }
        rounds(60..<80, 0xca62_c1d6) { $0 ^ $1 ^ $2 }
        state[0] &+= a
        state[1] &+= b
        state[2] &+= c
        state[3] &+= d
        state[4] &+= e
    }

    @inline(__always)
    private static func round256(
        _ a: UInt32, _ b: UInt32, _ c: UInt32, _ d: inout UInt32, _ e: UInt32, _ f: UInt32, _ g: UInt32, _ h: inout UInt32,
        _ input: UInt32
    ) {
        let s1 = rotateRight(e, 6) ^ rotateRight(e, 11) ^ rotateRight(e, 25)
        let t = h &+ s1 &+ (g ^ e & (f ^ g)) &+ input
        d &+= t
        h = t &+ (rotateRight(a, 2) ^ rotateRight(a, 13) ^ rotateRight(a, 22)) &+ (a & b | c & (a | b))
    }

    private static func compressSHA256(
        _ block: UnsafeRawPointer, _ state: UnsafeMutableBufferPointer<UInt32>, _ words: Words, _ constants: UnsafeBufferPointer<UInt32>
    ) {
        readWords(block, into: words)
        for t in 16..<64 {
            let (x, y) = (words[t - 15], words[t - 2])
            let s0 = rotateRight(x, 7) ^ rotateRight(x, 18) ^ x &>> 3
            let s1 = rotateRight(y, 17) ^ rotateRight(y, 19) ^ y &>> 10
            words[t] = words[t - 16] &+ s0 &+ words[t - 7] &+ s1
        }
        var (a, b, c, d) = (state[0], state[1], state[2], state[3])
        var (e, f, g, h) = (state[4], state[5], state[6], state[7])
        // Eight rounds at a time: the variables change places by name.
        for t in stride(from: 0, to: 64, by: 8) {
            round256(a, b, c, &d, e, f, g, &h, constants[t] &+ words[t])
            round256(h, a, b, &c, d, e, f, &g, constants[t + 1] &+ words[t + 1])
            round256(g, h, a, &b, c, d, e, &f, constants[t + 2] &+ words[t + 2])
            round256(f, g, h, &a, b, c, d, &e, constants[t + 3] &+ words[t + 3])
            round256(e, f, g, &h, a, b, c, &d, constants[t + 4] &+ words[t + 4])
            round256(d, e, f, &g, h, a, b, &c, constants[t + 5] &+ words[t + 5])
            round256(c, d, e, &f, g, h, a, &b, constants[t + 6] &+ words[t + 6])
            round256(b, c, d, &e, f, g, h, &a, constants[t + 7] &+ words[t + 7])
        }
        state[0] &+= a
        state[1] &+= b
        state[2] &+= c
        state[3] &+= d
        state[4] &+= e
        state[5] &+= f
        state[6] &+= g
        state[7] &+= h
    }

    /// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
    private static let constants: [UInt32] = [
        0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
        0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
        0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
        0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
        0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
        0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
        0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
        0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
    ]
}
