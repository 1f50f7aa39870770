internal import CNibbleCUDA
internal import Dispatch
internal import NibbleCore
internal import Synchronization

/// A context's loaded kernels. A program is compiled, or read from disk, when one of its kernels is first wanted.
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
        var modules: [String: CUDAModule] = [:]
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
            let function = try module(of: kernel, element, form, &state).function(kernel.symbol(element))
            state.functions[slot] = function
            return function
        }
    }

    /// Makes every program for `element` ready: compiled on several threads where it is not on disk, then loaded.
    /// - Precondition: the context is current.
    func prepare(_ element: KernelElement) throws {
        let wanted = Kernel.allCases.filter { $0.exists(element) }
        var programs: [(source: CUDAKernelSources.Source, element: KernelElement)] = []
        for kernel in wanted {
            let element = kernel.isTyped ? element : .f32
            let source = try source(of: kernel)
            if !programs.contains(where: { $0.source.name == source.name && $0.element == element }) {
                programs.append((source, element))
            }
        }
        let failures = Mutex<[any Error]>([])
        let list = programs
        DispatchQueue.concurrentPerform(iterations: list.count) { index in
            do {
                _ = try code(list[index].source, list[index].element)
            } catch {
                failures.withLock { $0.append(error) }
            }
        }
        if let failure = failures.withLock({ $0.first }) { throw failure }
        for kernel in wanted { _ = try function(kernel, element) }
    }

    private func module(
        of kernel: Kernel, _ element: KernelElement, _ form: KernelForm, _ state: inout State
    ) throws -> CUDAModule {
        let program = kernel.place.program
        // Programs without typed kernels are compiled once, under the first type.
        let element = kernel.isTyped ? element : .f32
        let key = "\(program)\(element.suffix) \(form.rawValue)"
        if let module = state.modules[key] { return module }
        let module = try CUDAModule(context, image: try code(try source(of: kernel), element, form))
        state.modules[key] = module
        return module
    }

    private func source(of kernel: Kernel) throws -> CUDAKernelSources.Source {
        let program = kernel.place.program
        guard let source = CUDAKernelSources.all.first(where: { $0.name == program }) else {
            throw BackendError.unsupported(
                device: context.device, operation: kernel.place.name, reason: "this build has no \(program)")
        }
        return source
    }

    private func code(
        _ source: CUDAKernelSources.Source, _ element: KernelElement, _ form: KernelForm = []
    ) throws -> [UInt8] {
        let key = KernelCache.Key(
            sources: [source] + CUDAKernelSources.headers,
            options: KernelCompiler.options(target, element, form: form),
            compilerVersion: version)
        if let code = cache.code(for: key) { return code }
        let code = try KernelCompiler.compile(source, for: target, element: element, form: form)
        cache.store(code, for: key)
        return code
    }
}
