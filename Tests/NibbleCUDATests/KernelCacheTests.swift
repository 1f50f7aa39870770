import Foundation
import NibbleCUDA
import NibbleTestSupport
import Testing

@Suite struct KernelCacheTests {
    private let folder: URL
    private let cache: CacheSimulation
    private let options = ["--gpu-architecture=sm_90a"]
    private let code = [UInt8](0..<200)

    init() throws {
        folder = try Fixtures.temporaryFolder()
        cache = CacheSimulation(environment: ["NIBBLE_CACHE_DIR": folder.path])
    }

    private var file: URL {
        folder.appending(path: "kernels").appending(
            path: cache.fileName(source: "a", options: options, compiler: "13.0"))
    }

    @Test("what is stored is found again, and only under the same source, options and compiler")
    func roundTrip() {
        #expect(cache.code(source: "a", options: options, compiler: "13.0") == nil)
        cache.store(code, source: "a", options: options, compiler: "13.0")
        #expect(cache.code(source: "a", options: options, compiler: "13.0") == code)
        #expect(cache.code(source: "b", options: options, compiler: "13.0") == nil)
        #expect(cache.code(source: "a", options: ["--gpu-architecture=sm_80"], compiler: "13.0") == nil)
        #expect(cache.code(source: "a", options: options, compiler: "12.9") == nil)
    }

    @Test("nothing but finished entries is left behind")
    func noTemporaries() throws {
        cache.store(code, source: "a", options: options, compiler: "13.0")
        cache.store(code, source: "a", options: options, compiler: "13.0")
        let names = try FileManager.default.contentsOfDirectory(atPath: folder.appending(path: "kernels").path)
        #expect(names == [file.lastPathComponent])
    }

    @Test("a damaged entry is not used", arguments: [0, 1, 20, 60, 150])
    func damage(offset: Int) throws {
        cache.store(code, source: "a", options: options, compiler: "13.0")
        var bytes = try Data(contentsOf: file)
        bytes[bytes.startIndex + offset] ^= 0x40
        try bytes.write(to: file)
        #expect(cache.code(source: "a", options: options, compiler: "13.0") == nil)
    }

    @Test("a truncated entry is not used", arguments: [0, 10, 100, 300])
    func truncation(length: Int) throws {
        cache.store(code, source: "a", options: options, compiler: "13.0")
        try Data(contentsOf: file).prefix(length).write(to: file)
        #expect(cache.code(source: "a", options: options, compiler: "13.0") == nil)
    }

    @Test("a folder that cannot be written is no error")
    func unwritable() {
        let cache = CacheSimulation(environment: ["NIBBLE_CACHE_DIR": "/dev/null/nowhere"])
        cache.store(code, source: "a", options: options, compiler: "13.0")
        #expect(cache.code(source: "a", options: options, compiler: "13.0") == nil)
    }

    @Test("the default folder is in the user's cache")
    func defaultFolder() {
        #expect(CacheSimulation(environment: ["HOME": "/home/someone"]).folder == "/home/someone/.cache/nibble/kernels")
        #expect(CacheSimulation(environment: [:]).folder == nil)
    }
}
