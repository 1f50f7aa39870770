import Foundation
import NibbleCUDA
import NibbleTestSupport
import Testing

@Suite struct LibrarySearchTests {
    /// A folder with files of the given contents.
    private func folder(_ files: [String: String]) throws -> String {
        let folder = try Fixtures.temporaryFolder()
        for (name, text) in files { try Data(text.utf8).write(to: folder.appending(path: name)) }
        return folder.path
    }

    private static let elf = "\u{7F}ELF…"

    @Test("the first file that opens is taken, and what failed before it is remembered")
    func remembersAttempts() throws {
        let first = try folder(["libx.so.2": "INPUT(-lx)", "libx.so.1": Self.elf])
        let second = try folder(["libx.so.2": Self.elf])
        let search = LibrarySearch.simulated(names: ["libx.so.2", "libx.so.1"], folders: [first, second]) { path in
            path == first + "/libx.so.1" ? nil : "it is damaged"
        }
        #expect(search.opened == first + "/libx.so.1")
        let lines = search.attempts.map(\.description)
        #expect(
            lines == [
                "\(first)/libx.so.2: not an ELF shared library", "\(second)/libx.so.2: it is damaged",
                "libx.so.2: it is damaged", "\(first)/libx.so.1: opened",
            ])
    }

    @Test("a library that is nowhere is reported with names, folders and reasons")
    func reportsFailure() throws {
        let empty = try folder([:])
        let search = LibrarySearch.simulated(names: ["libx.so"], folders: [empty]) { _ in "no such file" }
        #expect(search.opened == nil)
        #expect(search.attempts.map(\.description) == ["libx.so: no such file"])
        let text = "\(search)"
        #expect(text.contains(empty) && text.contains("libx.so: no such file") && text.contains("NIBBLE_CUDA_PATH"))
    }

    @Test("NIBBLE_CUDA_PATH comes first, then the binary's folder, the loader's path, wheels")
    func order() throws {
        let root = try Fixtures.temporaryFolder()
        let paths = ["named", "binary", "loader", "venv/lib/python3.12/site-packages/nvidia/cu13/lib"].map {
            root.appending(path: $0).path
        }
        for path in paths { try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true) }
        let folders = LibrarySearch.folders(
            environment: [
                "NIBBLE_CUDA_PATH": paths[0], "LD_LIBRARY_PATH": paths[2] + ":/nowhere/at/all",
                "PATH": root.appending(path: "venv/bin").path,
            ], binaryFolder: paths[1])
        #expect(folders.filter { $0.hasPrefix(root.path) } == paths)
        #expect(!folders.contains("/nowhere/at/all"))
    }

    @Test("libraries of the driver's major version are preferred, newer ones come last")
    func majorVersions() {
        #expect(CUDALibraries.names(of: "l.so", driverMajor: 13) == ["l.so.13", "l.so.12", "l.so.11.2", "l.so.11", "l.so"])
        #expect(CUDALibraries.names(of: "l.so", driverMajor: 12) == ["l.so.12", "l.so.11.2", "l.so.11", "l.so.13", "l.so"])
    }

    @Test("without a driver, asking for devices says what was tried", .enabled(if: CUDALibraries.driver.opened == nil))
    func noDriver() {
        let error = #expect(throws: CUDAUnavailable.self) { try CUDABackend.devices() }
        #expect(error.map { "\($0)" }?.contains("libcuda.so.1") == true)
    }
}

@Suite struct KernelTargetTests {
    @Test("machine code for a card the compiler knows, PTX of the highest older level otherwise")
    func best() {
        let levels = [75, 80, 86, 90]
        #expect(KernelTarget.chosen(for: 90, levels: levels, forced: nil).architecture == "sm_90a")
        #expect(KernelTarget.chosen(for: 86, levels: levels, forced: nil).architecture == "sm_86")
        #expect(KernelTarget.chosen(for: 120, levels: levels, forced: nil).architecture == "compute_90")
        #expect(KernelTarget.chosen(for: 90, levels: levels, forced: 75).architecture == "compute_75")
        #expect(KernelTarget.chosen(for: 75, levels: levels, forced: 80).architecture == "compute_75")
        #expect(KernelTarget.chosen(for: 90, levels: levels, forced: nil).level == 90)
    }

    @Test("NIBBLE_CUDA_ARCH in its spellings", arguments: [("75", 75), ("8.0", 80), ("sm_90", 90), ("", nil), ("12", nil)])
    func level(text: String, level: Int?) {
        #expect(CUDAOptions.kernelLevel(from: text) == level)
    }
}
