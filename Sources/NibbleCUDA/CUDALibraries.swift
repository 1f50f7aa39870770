internal import CNibbleCUDA

/// The three libraries, each opened once, on first use. The driver alone decides whether there is a GPU.
package enum CUDALibraries {
    /// libcuda, from the graphics driver.
    package static let driver: LibrarySearch = {
        var search = LibrarySearch(library: "CUDA driver", names: ["libcuda.so.1"], folders: LibraryFolders.current.all)
        search.run { reason(nibble_cuda_open, $0) }
        return search
    }()

    /// The run-time compiler.
    package static let compiler: LibrarySearch = {
        var search = LibrarySearch(library: "NVRTC", names: fileNames("libnvrtc.so"), folders: LibraryFolders.current.all)
        search.run { reason(nibble_nvrtc_open, $0) }
        return search
    }()

    /// Matrix products; optional.
    package static let matrixProducts: LibrarySearch = {
        var search = LibrarySearch(library: "cuBLASLt", names: fileNames("libcublasLt.so"), folders: LibraryFolders.current.all)
        search.run { reason(nibble_cublaslt_open, $0) }
        return search
    }()

    /// File names, the driver's own major version first: machine code of a newer major version may not load.
    /// Without a driver (0) it does not matter, and the newest comes first.
    static func fileNames(_ file: String, driverMajor: Int = driverVersion / 1000) -> [String] {
        let majors = ["13", "12", "11.2", "11"]
        let preferred = majors.filter { driverMajor == 0 || Int($0.prefix(2)) ?? 0 <= driverMajor }
        let others = majors.filter { !preferred.contains($0) }.reversed()
        return (preferred + others).map { file + "." + $0 } + [file]
    }

    /// 13000 for CUDA 13.0; 0 without a driver.
    package static var driverVersion: Int {
        guard driver.opened != nil else { return 0 }
        var version: Int32 = 0
        return nibble_cuDriverGetVersion(&version) == 0 ? Int(version) : 0
    }

    /// (13, 0); `nil` without NVRTC.
    package static var compilerVersion: (major: Int, minor: Int)? {
        guard compiler.opened != nil else { return nil }
        var major: Int32 = 0
        var minor: Int32 = 0
        return nibble_nvrtcVersion(&major, &minor) == 0 ? (Int(major), Int(minor)) : nil
    }

    private static func reason(
        _ open: (UnsafePointer<CChar>?, UnsafeMutablePointer<CChar>?, Int) -> Int32, _ path: String
    ) -> String? {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 1024) { text in
            text[0] = 0
            guard open(path, text.baseAddress, text.count) != 0 else { return nil }
            return String(cString: text.baseAddress!)
        }
    }
}

/// Why there is no GPU to use.
public enum CUDAUnavailable: Error, Sendable, CustomStringConvertible {
    /// libcuda was not found: no NVIDIA driver here.
    case noDriver(LibrarySearch)
    /// The driver is there and would not start.
    case initializationFailed(name: String, text: String)
    /// The driver reports no GPU.
    case noDevice
    /// A number at or beyond the count of GPUs.
    case noSuchDevice(number: Int, count: Int)
    /// `NIBBLE_CUDA_DEVICES` names what is not there.
    case badList(String, count: Int)
    /// The compute capability is below 7.5.
    case tooOld(name: String, major: Int, minor: Int)
    /// Kernels cannot be compiled.
    case noCompiler(LibrarySearch)

    /// The error as a sentence for the user.
    public var description: String {
        switch self {
        case .noDriver(let search): "no GPU can be used.\n\(search)"
        case .initializationFailed(let name, let text): "the CUDA driver did not start: \(name), \(text)"
        case .noDevice: "the CUDA driver is there, but it reports no GPU"
        case .noSuchDevice(let number, let count):
            "there is no GPU \(number): the driver reports \(count), numbered from 0"
        case .badList(let list, let count):
            "NIBBLE_CUDA_DEVICES=\(list): expected numbers separated by commas, each below \(count), the GPUs that the driver reports"
        case .tooOld(let name, let major, let minor):
            "\(name) has compute capability \(major).\(minor); Nibble needs 7.5"
        case .noCompiler(let search):
            "GPU kernels cannot be compiled: install a CUDA toolkit or the Python package nvidia-cuda-nvrtc.\n\(search)"
        }
    }
}
