internal import CNibbleCUDA
internal import Foundation

/// What kernels are compiled for.
public struct KernelTarget: Sendable, Hashable, CustomStringConvertible {
    /// NVRTC's word: `sm_90a` gives machine code, `compute_75` PTX that the driver finishes.
    package let architecture: String

    package init(architecture: String) { self.architecture = architecture }

    package var isMachineCode: Bool { architecture.hasPrefix("sm_") }
    /// The error as a sentence for the user.
    public var description: String { architecture }
    /// 90 for `sm_90a`.
    package var level: Int { Int(architecture.filter(\.isNumber)) ?? 0 }

    /// Whether kernels may begin before the one before them has ended (programmatic dependent launch): from compute capability
    /// 9.0, and only with a driver that can record such launches in a graph.
    /// - Parameter driverVersion: 12030 for CUDA 12.3.
    package func canOverlap(driverVersion: Int) -> Bool { level >= 90 && driverVersion >= 12030 }

    /// The best a compiler that knows `levels` can do for a card of compute capability `level` (90 for 9.0).
    /// - Parameter forced: a level from NIBBLE_CUDA_ARCH: PTX for an older card, so that its code paths run here.
    static func best(for level: Int, levels: [Int], forced: Int?) -> KernelTarget {
        if let forced { return KernelTarget(architecture: "compute_\(min(forced, level))") }
        // Features of one generation alone ("a") exist from 9.0.
        if levels.contains(level) { return KernelTarget(architecture: "sm_\(level)\(level >= 90 ? "a" : "")") }
        let known = levels.filter { $0 <= level }.max() ?? 75
        return KernelTarget(architecture: "compute_\(known)")
    }
}

/// A CUDA kernel that NVRTC refuses, with the compiler's log.
public enum KernelCompilationError: Error, Sendable, CustomStringConvertible {
    /// NVRTC refused a program; `log` holds its messages.
    case failed(program: String, target: KernelTarget, status: String, log: String)

    /// The error as a sentence for the user.
    public var description: String {
        switch self {
        case .failed(let program, let target, let status, let log):
            "compiling \(program) for \(target) failed: \(status)\n\(log)"
        }
    }
}

/// NVRTC: needs no GPU.
package enum KernelCompiler {
    /// Architectures NVRTC knows, 75 for 7.5.
    package static let levels: [Int] = {
        guard CUDALibraries.compiler.opened != nil else { return [] }
        var levels = [Int32](repeating: 0, count: 64)
        let count = min(Int(nibble_nvrtcArchitectures(&levels, 64)), 64)
        return levels.prefix(max(count, 0)).map(Int.init)
    }()

    static func options(_ target: KernelTarget, _ unit: KernelUnit) -> [String] {
        options(target, unit.element, form: unit.form) + (unit.symbol.map { ["-DNIBBLE_KERNEL=\($0)"] } ?? [])
    }

    private static func options(_ target: KernelTarget, _ element: KernelElement?, form: KernelForm) -> [String] {
        ["--gpu-architecture=\(target)", "--std=c++17", "-default-device"] + (element.map { [$0.define] } ?? [])
            + form.defines
    }

    /// - Parameters:
    ///   - element: limits the instances; `nil` compiles all types.
    ///   - form: what products are compiled for.
    /// - Throws: ``CUDAUnavailable/noCompiler(_:)``, ``KernelCompilationError`` with the compiler's messages.
    package static func compile(
        _ program: CUDAKernelSources.Source, for target: KernelTarget, element: KernelElement? = nil, form: KernelForm = []
    ) throws -> [UInt8] {
        try compile(program, options: options(target, element, form: form), for: target)
    }

    static func compile(
        _ program: CUDAKernelSources.Source, options: [String], for target: KernelTarget
    ) throws -> [UInt8] {
        guard CUDALibraries.compiler.opened != nil else { throw CUDAUnavailable.noCompiler(CUDALibraries.compiler) }
        var code: UnsafeMutablePointer<CChar>?
        var codeSize = 0
        var log: UnsafeMutablePointer<CChar>?
        defer {
            free(code)
            free(log)
        }
        let headers = CUDAKernelSources.headers
        let status = withCStrings(headers.map(\.text)) { headerTexts in
            withCStrings(headers.map(\.name)) { headerNames in
                withCStrings(options) { options in
                    withCStrings([program.text, program.name]) { strings in
                        var compilation = NibbleCompilation(
                            source: strings[0], name: strings[1], headerCount: Int32(headers.count),
                            headerSources: headerTexts.baseAddress, headerNames: headerNames.baseAddress,
                            optionCount: Int32(options.count), options: options.baseAddress,
                            wantsMachineCode: target.isMachineCode ? 1 : 0)
                        return nibble_nvrtcCompile(&compilation, &code, &codeSize, &log)
                    }
                }
            }
        }
        guard status == 0, let code else {
            throw KernelCompilationError.failed(
                program: program.name, target: target, status: String(cString: nibble_nvrtcErrorText(status)),
                log: log.map { String(cString: $0) } ?? "")
        }
        // PTX is text that must end with a zero; one behind machine code does no harm.
        return Array(UnsafeRawBufferPointer(start: code, count: codeSize)) + [0]
    }

    private static func withCStrings<Result>(
        _ strings: [String], _ body: (UnsafeBufferPointer<UnsafePointer<CChar>?>) throws -> Result
    ) rethrows -> Result {
        let copies = strings.map { strdup($0) }
        defer { for copy in copies { free(copy) } }
        return try copies.map { UnsafePointer($0) }.withUnsafeBufferPointer(body)
    }
}
