package import NibbleCore

/// Hooks for tests.
package enum Kernels {
    /// For each program, the functions that the host launches for `element`.
    package static func symbols(_ element: KernelElement) -> [String: [String]] {
        var symbols: [String: [String]] = [:]
        for kernel in Kernel.allCases where kernel.exists(element) {
            guard kernel.isTyped || element == .f32 else { continue }
            symbols[kernel.place.program, default: []].append(kernel.symbol(element))
        }
        return symbols
    }

    /// The functions that are made ready for a model, by the form and program that holds them.
    package static func wanted(by request: KernelRequest, _ element: KernelElement, level: Int) -> [String: Set<String>] {
        var programs: [String: Set<String>] = [:]
        for kernel in Kernel.allCases where kernel.isWanted(by: request, level: level) && kernel.exists(element) {
            for form in kernel.forms(for: request) {
                programs[kernel.place.program + (form == .powers ? " powers" : ""), default: []].insert(kernel.symbol(element))
            }
        }
        return programs
    }

    /// The functions of programs that are compiled for one of them at a time.
    package static func compiledAlone(_ element: KernelElement) -> [String] {
        Kernel.allCases.filter { $0.isCompiledAlone && $0.exists(element) }.map { $0.symbol(element) }
    }

    /// The functions that are also compiled for inputs of the other 16-bit type.
    package static func mixed(_ element: KernelElement) -> [String] {
        Kernel.allCases.filter { $0.forms.contains(.mixed) && $0.exists(element) }.map { $0.symbol(element) }
    }

    /// Code of the program of a function, limited to it if it is one that is compiled alone.
    package static func compileAlone(
        _ symbol: String, _ element: KernelElement, form: KernelForm = [], for target: KernelTarget
    ) throws -> [UInt8]? {
        guard let kernel = Kernel.allCases.first(where: { $0.symbol(element) == symbol }),
            let source = CUDAKernelSources.all.first(where: { $0.name == kernel.place.program })
        else { return nil }
        let unit = KernelUnit(kernel, element, form)
        return try KernelCompiler.compile(source, options: KernelCompiler.options(target, unit), for: target)
    }

    /// The forms that a whole program is compiled in; only some functions have the others.
    package static func forms(of program: String) -> [KernelForm] {
        let options = Kernel.allCases.filter { $0.place.program == program }.reduce(KernelForm()) { $0.union($1.forms) }
        return (0..<KernelForm.count).map(KernelForm.init).filter { options.subtracting(.mixed).isSuperset(of: $0) }
    }

    /// The functions that may begin before the kernel before them has ended.
    package static func overlapping(_ element: KernelElement) -> Set<String> {
        Set(Kernel.allCases.filter { $0.overlaps && $0.exists(element) }.map { $0.symbol(element) })
    }
}

/// The pool's arithmetic over made-up addresses.
package final class PoolSimulation {
    private var pool: PoolAllocator
    private var next: UInt = 1 << 40
    /// Segments taken and not given back: address and size.
    package private(set) var segments: [UInt: Int] = [:]
    /// Bytes the made-up device has.
    package var deviceBytes: Int

    package enum Outcome: Equatable, Sendable {
        case address(UInt)
        case exceedsBudget(available: Int)
        case deviceFull(available: Int)
    }

    package init(budget: Int, deviceBytes: Int = .max) {
        pool = PoolAllocator(budget: budget)
        self.deviceBytes = deviceBytes
    }

    package var budget: Int { pool.budget }
    package var used: Int { pool.used }
    package var reserved: Int { pool.reserved }
    package var peak: Int { pool.peak }

    package func allocate(_ byteCount: Int) -> Outcome {
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

    package func expect(_ byteCount: Int) { pool.expect(byteCount, take: take) }
    package func free(_ address: UInt) { pool.free(address) }
    package func releaseAll() { pool.releaseAll(giveBack) }

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
package struct CacheSimulation {
    private let cache: KernelCache

    package init(environment: [String: String]) { cache = KernelCache(environment: environment) }

    package var folder: String? { cache.folder?.path }

    package func store(_ code: [UInt8], source: String, options: [String], compiler: String) {
        cache.store(code, for: key(source, options, compiler))
    }

    package func code(source: String, options: [String], compiler: String) -> [UInt8]? {
        cache.code(for: key(source, options, compiler))
    }

    package func fileName(source: String, options: [String], compiler: String) -> String { key(source, options, compiler).name }

    private func key(_ source: String, _ options: [String], _ compiler: String) -> KernelCache.Key {
        KernelCache.Key(sources: [.init(name: "a.cu", text: source)], options: options, compilerVersion: compiler)
    }
}

extension LibrarySearch {
    /// A search of the given folders with a made-up loader.
    package static func simulated(
        names: [String], folders: [String], open: (String) -> String?
    ) -> LibrarySearch {
        var search = LibrarySearch(library: "library", names: names, folders: folders)
        search.run(open: open)
        return search
    }

    /// The folders that would be searched.
    package static func folders(environment: [String: String], binaryFolder: String? = nil) -> [String] {
        LibraryFolders(environment: environment, binaryFolder: binaryFolder).all
    }
}

extension CUDALibraries {
    package static func names(of file: String, driverMajor: Int) -> [String] {
        fileNames(file, driverMajor: driverMajor)
    }
}

extension KernelTarget {
    package static func chosen(for level: Int, levels: [Int], forced: Int?) -> KernelTarget {
        best(for: level, levels: levels, forced: forced)
    }
}

extension CUDAOptions {
    package static func kernelLevel(from text: String) -> Int? { level(text) }
}
