import Foundation
import NibbleCUDA
import Testing

/// Whether NVRTC is here; CI insists on it.
private let hasCompiler =
    CUDALibraries.compiler.opened != nil || ProcessInfo.processInfo.environment["NIBBLE_REQUIRE_NVRTC"] == "1"

@Suite(.enabled(if: hasCompiler, "NVRTC is not here"))
struct KernelCompilationTests {
    @Test(
        "every program compiles for every generation", arguments: CUDAKernelSources.all.map(\.name), ["sm_75", "sm_80", "sm_90a"])
    func compiles(program: String, architecture: String) throws {
        let source = try #require(CUDAKernelSources.all.first { $0.name == program })
        let target = KernelTarget(architecture: architecture)
        #expect(try KernelCompiler.compile(source, for: target).count > 1000)
    }

    @Test("PTX names the level it was asked for")
    func ptx() throws {
        let source = try #require(CUDAKernelSources.all.first { $0.name == "embed.cu" })
        let code = try KernelCompiler.compile(source, for: KernelTarget(architecture: "compute_75"))
        let text = String(decoding: code, as: UTF8.self)
        let namesLevel = text.contains(".target sm_75")
        #expect(namesLevel && text.contains(".entry embed("))
    }

    @Test("a program that does not compile is reported with the compiler's words")
    func failure() {
        let source = CUDAKernelSources.Source(name: "broken.cu", text: "extern \"C\" __global__ void f() { nonsense; }")
        let error = #expect(throws: KernelCompilationError.self) {
            _ = try KernelCompiler.compile(source, for: KernelTarget(architecture: "sm_80"))
        }
        let text = error.map { "\($0)" } ?? ""
        #expect(text.contains("broken.cu") && text.contains("sm_80") && text.contains("nonsense"))
    }

    @Test("every kernel the host launches is in a program", arguments: KernelElement.allCases)
    func symbols(element: KernelElement) throws {
        for (program, names) in Kernels.symbols(element) {
            let source = try #require(CUDAKernelSources.all.first { $0.name == program })
            let code = try KernelCompiler.compile(source, for: KernelTarget(architecture: "compute_80"), element: element)
            let text = String(decoding: code, as: UTF8.self)
            let missing = names.filter { !text.contains(".entry \($0)(") }
            #expect(missing.isEmpty, "in \(program)")
        }
    }
}
