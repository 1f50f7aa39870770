internal import Foundation

/// Compiled kernels on disk, so that only the first start on a machine compiles.
///
/// An entry's name is a hash of everything the code depends on; the entry repeats that text and carries a checksum, so that
/// a damaged or foreign file is compiled anew. Written under a temporary name and renamed: two processes may do it at once.
struct KernelCache {
    /// `nil`: nothing is kept.
    let folder: URL?

    /// `NIBBLE_CACHE_DIR`, else `~/.cache/nibble`; kernels lie in `kernels` below it.
    init(environment: [String: String] = ProcessInfo.processInfo.environment) {
        let root: URL? =
            if let named = environment["NIBBLE_CACHE_DIR"], !named.isEmpty {
                URL(filePath: named)
            } else if let home = environment["HOME"], !home.isEmpty { URL(filePath: home).appending(path: ".cache/nibble") } else
            { nil }
        folder = root?.appending(path: "kernels")
    }

    /// What compiled code depends on.
    struct Key: Hashable {
        /// Program and headers: names and texts.
        let sources: [CUDAKernelSources.Source]
        let options: [String]
        /// `13.0`
        let compilerVersion: String

        /// Readable, and different for different code.
        var text: String {
            let digests = sources.map { "\($0.name) \($0.digest)" }
            return (digests + options + ["NVRTC \(compilerVersion)"]).joined(separator: "\n")
        }

        var name: String { KernelCache.hash(text.utf8) + ".bin" }

        static func == (a: Key, b: Key) -> Bool { a.text == b.text }
        func hash(into hasher: inout Hasher) { hasher.combine(text) }
    }

    func code(for key: Key) -> [UInt8]? {
        guard let folder, let data = try? Data(contentsOf: folder.appending(path: key.name)) else { return nil }
        return KernelCache.decode([UInt8](data), key: key.text)
    }

    /// A cache that cannot be written is no error: the next start compiles again.
    func store(_ code: [UInt8], for key: Key) {
        guard let folder else { return }
        let temporary = folder.appending(path: ".\(UUID().uuidString)")
        do {
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            try Data(KernelCache.encode(code, key: key.text)).write(to: temporary)
            if rename(temporary.path, folder.appending(path: key.name).path) != 0 { throw CocoaError(.fileWriteUnknown) }
        } catch {
            try? FileManager.default.removeItem(at: temporary)
        }
    }

    // MARK: Entries: magic, length of the key, key, checksum of the code, code

    private static let magic = Array("nibble kernel 1\n".utf8)

    static func encode(_ code: [UInt8], key: String) -> [UInt8] {
        let keyBytes = Array(key.utf8)
        let length = (0..<8).map { UInt8(truncatingIfNeeded: keyBytes.count >> (8 * $0)) }
        return magic + length + keyBytes + Array(hash(code).utf8) + code
    }

    static func decode(_ entry: [UInt8], key: String) -> [UInt8]? {
        let keyBytes = Array(key.utf8)
        let start = magic.count + 8 + keyBytes.count
        guard entry.count >= start + 32, entry.starts(with: encode([], key: key).prefix(start)) else { return nil }
        let code = Array(entry[(start + 32)...])
        return entry[start..<start + 32].elementsEqual(hash(code).utf8) ? code : nil
    }

    /// 128 bits of FNV-1a in hexadecimal digits: against accidents, not against enemies.
    static func hash(_ bytes: some Sequence<UInt8>) -> String {
        var high: UInt64 = 0x6C62_272E_07BB_0142
        var low: UInt64 = 0x62B8_2175_6295_C58D
        for byte in bytes {
            low ^= UInt64(byte)
            // × (2⁸⁸ + 0x13B)
            let product = low.multipliedFullWidth(by: 0x13B)
            high = high &* 0x13B &+ product.high &+ (low << 24)
            low = product.low
        }
        func digits(_ value: UInt64) -> String {
            let text = String(value, radix: 16)
            return String(repeating: "0", count: 16 - text.count) + text
        }
        return digits(high) + digits(low)
    }
}
