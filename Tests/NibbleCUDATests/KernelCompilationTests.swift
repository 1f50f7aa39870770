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
        for form in Kernels.forms(of: program) {
            #expect(try KernelCompiler.compile(source, for: target, form: form).count > 1000)
        }
    }

    @Test(
        "kernels that read the other 16-bit type compile for every generation", arguments: Kernels.mixed(.bf16),
        ["sm_75", "sm_80", "sm_90a"])
    func mixed(symbol: String, architecture: String) throws {
        let target = KernelTarget(architecture: architecture)
        let code = try #require(try Kernels.compileAlone(symbol, .bf16, form: .mixed, for: target))
        let plain = try #require(try Kernels.compileAlone(symbol, .bf16, for: target))
        #expect(code.count > 1000 && code != plain)
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

    @Test(
        "every kernel the host launches is in a program; those that overlap others wait for them and let the next begin",
        arguments: KernelElement.allCases)
    func symbols(element: KernelElement) throws {
        let overlapping = Kernels.overlapping(element)
        #expect(!overlapping.isEmpty)
        for (program, names) in Kernels.symbols(element) {
            let source = try #require(CUDAKernelSources.all.first { $0.name == program })
            let code = try KernelCompiler.compile(source, for: KernelTarget(architecture: "compute_90a"), element: element)
            let entries = entries(String(decoding: code, as: UTF8.self))
            for name in names {
                let body = try #require(entries[name], "\(name) in \(program)")
                guard overlapping.contains(name) else { continue }
                let waits = body.contains("griddepcontrol.wait") && body.contains("griddepcontrol.launch_dependents")
                #expect(waits, "\(name) in \(program)")
            }
        }
    }

    @Test("a program that is limited to one kernel holds the body of no other", arguments: Kernels.compiledAlone(.f16))
    func alone(symbol: String) throws {
        let code = try #require(try Kernels.compileAlone(symbol, .f16, for: KernelTarget(architecture: "compute_90a")))
        let lengths = entries(String(decoding: code, as: UTF8.self)).mapValues { $0.split(separator: "\n").count }
        let others = lengths.filter { $0.key != symbol }
        #expect(try #require(lengths[symbol]) > 60)
        #expect(others.values.allSatisfy { $0 < 60 }, "\(others)")
    }

    @Test(
        "attention reads keys and values as memory that kernels write: never through the read-only path",
        arguments: CUDAKernelSources.all.map(\.name).filter { $0.hasPrefix("attention") || $0 == "rotary.cu" })
    func writtenMemory(program: String) throws {
        let source = try #require(CUDAKernelSources.all.first { $0.name == program })
        let code = try KernelCompiler.compile(source, for: KernelTarget(architecture: "compute_90"), element: .f16)
        let readOnly = String(decoding: code, as: UTF8.self).split(separator: "\n").filter {
            $0.contains("ld.global") && $0.contains(".nc")
        }
        #expect(readOnly.isEmpty)
    }

    /// The text of each kernel in PTX, by its name.
    private func entries(_ text: String) -> [String: String] {
        var entries: [String: String] = [:]
        for part in text.components(separatedBy: ".entry ").dropFirst() {
            guard let end = part.firstIndex(of: "(") else { continue }
            entries[String(part[..<end])] = part
        }
        return entries
    }
}
