internal import CNibbleCUDA
internal import Dispatch
internal import NibbleCore
internal import Synchronization

/// A context's loaded kernels. One is compiled, or read from disk, when it is first wanted.
final class KernelLibrary: @unchecked Sendable {
    let context: CUDAContext
    let target: KernelTarget
    private let cache: KernelCache
    private let version: String
    private let state = Mutex(State())

    private struct State {
        /// By kernel, element type and form.
        var functions = [NibbleFunction?](
            repeating: nil, count: KernelForm.count * Kernel.allCases.count * KernelElement.allCases.count)
        var modules: [KernelUnit: CUDAModule] = [:]
    }

    /// - Throws: ``CUDAUnavailable/noCompiler(_:)``
    init(_ context: CUDAContext, target: KernelTarget, cache: KernelCache = KernelCache()) throws {
        guard let version = CUDALibraries.compilerVersion else {
            throw CUDAUnavailable.noCompiler(CUDALibraries.compiler)
        }
        self.context = context
        self.target = target
        self.cache = cache
        self.version = "\(version.major).\(version.minor)"
    }

    /// - Parameter form: the form that is wanted, as far as the kernel has it.
    /// - Precondition: the context is current.
    func function(_ kernel: Kernel, _ element: KernelElement, form: KernelForm = []) throws -> NibbleFunction {
        let form = form.intersection(kernel.forms)
        let typed = kernel.rawValue * KernelElement.allCases.count + (kernel.isTyped ? element.rawValue : 0)
        let slot = KernelForm.count * typed + form.rawValue
        return try state.withLock { state in
            if let function = state.functions[slot] { return function }
            let function = try module(of: KernelUnit(kernel, element, form), &state).function(kernel.symbol(element))
            state.functions[slot] = function
            return function
        }
    }

    /// Makes the kernels that `request` calls for ready: compiled on several threads where they are not on disk, then loaded.
    /// - Precondition: the context is current.
    func prepare(_ request: KernelRequest, _ elements: [KernelElement]) throws {
        var wanted: [(kernel: Kernel, element: KernelElement, form: KernelForm)] = []
        for kernel in Kernel.allCases where kernel.isWanted(by: request, level: target.level) {
            for element in elements where kernel.exists(element) {
                wanted += kernel.forms(for: request).map { (kernel, element, $0) }
            }
        }
        // What is compiled alone takes long, and comes first.
        let units = Set(wanted.map { KernelUnit($0.kernel, $0.element, $0.form) }).sorted {
            ($0.symbol ?? "", $0.name) > ($1.symbol ?? "", $1.name)
        }
        let failures = Mutex<[any Error]>([])
        DispatchQueue.concurrentPerform(iterations: units.count) { index in
            do {
                _ = try code(of: units[index])
            } catch {
                failures.withLock { $0.append(error) }
            }
        }
        if let failure = failures.withLock({ $0.first }) { throw failure }
        for (kernel, element, form) in wanted { _ = try function(kernel, element, form: form) }
    }

    private func module(of unit: KernelUnit, _ state: inout State) throws -> CUDAModule {
        if let module = state.modules[unit] { return module }
        let module = try CUDAModule(context, image: try code(of: unit))
        state.modules[unit] = module
        return module
    }

    private func code(of unit: KernelUnit) throws -> [UInt8] {
        guard let source = CUDAKernelSources.all.first(where: { $0.name == unit.program }) else {
            throw BackendError.unsupported(
                device: context.device, operation: unit.name, reason: "this build has no \(unit.program)")
        }
        let options = KernelCompiler.options(target, unit)
        let key = KernelCache.Key(
            sources: [source] + CUDAKernelSources.headers, options: options, compilerVersion: version)
        if let code = cache.code(for: key) { return code }
        let code = try KernelCompiler.compile(source, options: options, for: target)
        cache.store(code, for: key)
        return code
    }
}

/// What one run of the compiler makes: a program for one element type and form, or one of its kernels.
struct KernelUnit: Hashable {
    let program: String
    let element: KernelElement
    let form: KernelForm
    /// The kernel that the program is limited to.
    let symbol: String?

    init(_ kernel: Kernel, _ element: KernelElement, _ form: KernelForm) {
        program = kernel.place.program
        // Programs without typed kernels are compiled once, under the first type.
        self.element = kernel.isTyped ? element : .f32
        self.form = form
        symbol = kernel.isCompiledAlone ? kernel.symbol(element) : nil
    }

    var name: String { "\(symbol ?? program + element.suffix) \(form.rawValue)" }
}
