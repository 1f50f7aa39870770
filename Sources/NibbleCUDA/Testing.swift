/// What tests see of the host side that is not public.
@_spi(Testing) public enum Kernels {
    /// For each program, the functions that the host launches for `element`.
    public static func symbols(_ element: KernelElement) -> [String: [String]] {
        var symbols: [String: [String]] = [:]
        for kernel in Kernel.allCases where kernel.exists(element) {
            guard kernel.isTyped || element == .f32 else { continue }
            symbols[kernel.place.program, default: []].append(kernel.symbol(element))
        }
        return symbols
    }
}

/// The pool's arithmetic over made-up addresses.
@_spi(Testing) public final class PoolSimulation {
    private var pool: PoolAllocator
    private var next: UInt = 1 << 40
    /// Segments taken and not given back: address and size.
    public private(set) var segments: [UInt: Int] = [:]
    /// Bytes the made-up device has.
    public var deviceBytes: Int

    public enum Outcome: Equatable, Sendable {
        case address(UInt)
        case exceedsBudget(available: Int)
        case deviceFull(available: Int)
    }

    public init(budget: Int, deviceBytes: Int = .max) {
        pool = PoolAllocator(budget: budget)
        self.deviceBytes = deviceBytes
    }

    public var budget: Int { pool.budget }
    public var used: Int { pool.used }
    public var reserved: Int { pool.reserved }
    public var peak: Int { pool.peak }

    public func allocate(_ byteCount: Int) -> Outcome {
        do {
            return .address(try pool.allocate(byteCount, take: take, giveBack: giveBack))
        } catch PoolAllocator.Failure.exceedsBudget(let available) {
            return .exceedsBudget(available: available)
        } catch PoolAllocator.Failure.deviceFull(let available) {
            return .deviceFull(available: available)
        } catch {
            preconditionFailure("\(error)")
        }
    }

    public func expect(_ byteCount: Int) { pool.expect(byteCount, take: take) }
    public func free(_ address: UInt) { pool.free(address) }
    public func releaseAll() { pool.releaseAll(giveBack) }

    private func take(_ size: Int) -> UInt? {
        guard segments.values.reduce(size, +) <= deviceBytes else { return nil }
        // Segments touch, as a driver's may: the pool must not join ranges across them.
        defer { next += UInt(size) }
        segments[next] = size
        return next
    }

    private func giveBack(_ address: UInt) { segments[address] = nil }
}

/// The disk cache, with text in place of sources.
@_spi(Testing) public struct CacheSimulation {
    private let cache: KernelCache

    public init(environment: [String: String]) { cache = KernelCache(environment: environment) }

    public var folder: String? { cache.folder?.path }

    public func store(_ code: [UInt8], source: String, options: [String], compiler: String) {
        cache.store(code, for: key(source, options, compiler))
    }

    public func code(source: String, options: [String], compiler: String) -> [UInt8]? {
        cache.code(for: key(source, options, compiler))
    }

    public func fileName(source: String, options: [String], compiler: String) -> String { key(source, options, compiler).name }

    private func key(_ source: String, _ options: [String], _ compiler: String) -> KernelCache.Key {
        KernelCache.Key(sources: [.init(name: "a.cu", text: source)], options: options, compilerVersion: compiler)
    }
}

extension LibrarySearch {
    /// A search of the given folders with a made-up loader.
    @_spi(Testing) public static func simulated(
        names: [String], folders: [String], open: (String) -> String?
    ) -> LibrarySearch {
        var search = LibrarySearch(library: "library", names: names, folders: folders)
        search.run(open: open)
        return search
    }

    /// The folders that would be searched.
    @_spi(Testing) public static func folders(environment: [String: String], binaryFolder: String? = nil) -> [String] {
        LibraryFolders(environment: environment, binaryFolder: binaryFolder).all
    }
}

extension CUDALibraries {
    @_spi(Testing) public static func names(of file: String, driverMajor: Int) -> [String] {
        fileNames(file, driverMajor: driverMajor)
    }
}

extension KernelTarget {
    @_spi(Testing) public static func chosen(for level: Int, levels: [Int], forced: Int?) -> KernelTarget {
        best(for: level, levels: levels, forced: forced)
    }
}

extension CUDAOptions {
    @_spi(Testing) public static func kernelLevel(from text: String) -> Int? { level(text) }
}
