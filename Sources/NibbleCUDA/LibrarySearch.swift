internal import Foundation

/// Where a shared library was looked for, and what came of it.
///
/// CUDA's libraries may come from a toolkit, from Python wheels, or stand beside the binary. All places are tried, in an
/// order that does not depend on chance, and every try is remembered, so that "not found" can say where it looked.
public struct LibrarySearch: Sendable {
    package struct Attempt: Sendable, Equatable, CustomStringConvertible {
        /// A path, or a bare name that the system's loader resolved.
        package let path: String
        /// Why it was not taken; `nil` for the one that was.
        package let reason: String?

        package var description: String { "\(path): \(reason ?? "opened")" }
    }

    /// `CUDA driver`, `NVRTC`, `cuBLASLt`
    package let library: String
    /// File names, in order of preference.
    package let names: [String]
    /// Folders that exist and were searched.
    package let folders: [String]
    package private(set) var attempts: [Attempt] = []
    /// What was opened in the end.
    package private(set) var opened: String?

    init(library: String, names: [String], folders: [String]) {
        self.library = library
        self.names = names
        self.folders = folders
    }

    /// Tries each name in each folder, then each bare name with the system's loader.
    /// - Parameter open: returns `nil` on success, else the reason.
    mutating func run(open: (String) -> String?) {
        for name in names {
            for folder in folders {
                let path = folder + "/" + name
                guard FileManager.default.fileExists(atPath: path) else { continue }
                if take(path, open: { LibrarySearch.objection(to: $0) ?? open($0) }) { return }
            }
            if take(name, open: open) { return }
        }
    }

    private mutating func take(_ path: String, open: (String) -> String?) -> Bool {
        let reason = open(path)
        attempts.append(Attempt(path: path, reason: reason))
        if reason == nil { opened = path }
        return reason == nil
    }

    /// Why a file cannot be a shared library: toolkits ship linker scripts under such names.
    static func objection(to path: String) -> String? {
        guard let file = FileHandle(forReadingAtPath: path) else { return "cannot be read" }
        defer { try? file.close() }
        guard let start = try? file.read(upToCount: 4), start.elementsEqual([0x7F, 0x45, 0x4C, 0x46]) else {
            return "not an ELF shared library"
        }
        return nil
    }
}

extension LibrarySearch: CustomStringConvertible {
    /// The error as a sentence for the user.
    public var description: String {
        if let opened { return "\(library): \(opened)" }
        let tried = attempts.map { "  \($0)" }.joined(separator: "\n")
        let places = folders.isEmpty ? "no folder" : folders.joined(separator: ", ")
        return """
            \(library): not found. Looked for \(names.joined(separator: ", ")) in \(places), and with the system's loader:
            \(tried)
            NIBBLE_CUDA_PATH may name the folder that holds it.
            """
    }
}

/// The folders where CUDA's libraries are kept.
struct LibraryFolders {
    let environment: [String: String]
    /// The folder of the running binary.
    let binaryFolder: String?

    static let current = LibraryFolders(
        environment: ProcessInfo.processInfo.environment,
        binaryFolder: (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")).map {
            URL(filePath: $0).deletingLastPathComponent().path
        })

    /// Existing folders, in order of preference, each once.
    var all: [String] {
        var seen: Set<String> = []
        return (named + beside + loaderPath + toolkits + wheels + system).filter { folder in
            var isFolder: ObjCBool = false
            return FileManager.default.fileExists(atPath: folder, isDirectory: &isFolder) && isFolder.boolValue
                && seen.insert(folder).inserted
        }
    }

    private func list(_ variable: String) -> [String] {
        (environment[variable] ?? "").split(separator: ":").map(String.init)
    }

    private var named: [String] { list("NIBBLE_CUDA_PATH").flatMap { [$0, $0 + "/lib64", $0 + "/lib"] } }

    private var beside: [String] { binaryFolder.map { [$0, $0 + "/lib", $0 + "/../lib"] } ?? [] }

    private var loaderPath: [String] { list("LD_LIBRARY_PATH") }

    private var toolkits: [String] {
        let roots =
            list("CUDA_HOME") + list("CUDA_PATH") + ["/usr/local/cuda"]
            + entries(of: "/usr/local", where: { $0.hasPrefix("cuda-") }).sorted(by: >) + ["/opt/cuda"]
        return roots.flatMap { [$0 + "/lib64", $0 + "/targets/x86_64-linux/lib", $0 + "/targets/sbsa-linux/lib"] }
    }

    /// `nvidia/…/lib` in the site-packages of the Pythons at hand.
    private var wheels: [String] {
        packages.flatMap { packages in
            entries(of: packages + "/nvidia", where: { _ in true }).sorted(by: >).map { $0 + "/lib" }
        }
    }

    private var packages: [String] {
        let prefixes =
            list("VIRTUAL_ENV") + list("CONDA_PREFIX")
            + list("PATH").filter { $0.hasSuffix("/bin") }.map { String($0.dropLast("/bin".count)) }
            + (environment["HOME"].map { [$0 + "/.local"] } ?? []) + ["/usr/local", "/usr"]
        let versioned = prefixes.flatMap { prefix in
            entries(of: prefix + "/lib", where: { $0.hasPrefix("python3") }).sorted(by: >)
                .flatMap { [$0 + "/site-packages", $0 + "/dist-packages"] }
        }
        return list("PYTHONPATH") + versioned
    }

    private var system: [String] {
        ["/usr/local/nvidia/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib/wsl/lib"]
    }

    private func entries(of folder: String, where isWanted: (String) -> Bool) -> [String] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        return names.filter(isWanted).map { folder + "/" + $0 }
    }
}
