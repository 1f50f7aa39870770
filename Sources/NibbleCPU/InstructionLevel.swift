internal import CNibbleCPU
internal import Foundation

/// A set of instructions with CPU kernels of its own. A thread pool runs the kernels of one level; pools of different levels may
/// run side by side.
package struct InstructionLevel: Sendable, Hashable, CustomStringConvertible {
    /// `generic`, `avx2`, `avx512vnni` …: what the environment variable `NIBBLE_CPU` calls it.
    package let name: String
    /// The level's table of kernels, which is never freed.
    private let address: UInt

    /// Every level this machine runs, in ascending order of what it needs. The first is `generic`, the plain one.
    package static let available: [InstructionLevel] = (0..<nibble_level_count())
        .compactMap { nibble_level($0) }
        .filter { nibble_level_is_supported($0) }
        .map(InstructionLevel.init)

    /// The fastest level of this machine.
    package static let best: InstructionLevel = {
        guard let kernels = nibble_best_level() else { preconditionFailure("no instruction level") }
        return InstructionLevel(kernels)
    }()

    /// The level that `NIBBLE_CPU` names, or ``best``.
    package static let standard: InstructionLevel = nibble_standard_level().map(InstructionLevel.init) ?? best

    /// What `NIBBLE_CPU` says if no level of this machine has that name.
    package static let refused: String? = requested.flatMap { name in
        available.contains { $0.name == name } ? nil : name
    }

    private static let requested: String? =
        ProcessInfo.processInfo.environment["NIBBLE_CPU"].flatMap { $0.isEmpty ? nil : $0 }

    private init(_ kernels: OpaquePointer) {
        name = String(cString: nibble_level_name(kernels))
        address = UInt(bitPattern: kernels)
    }

    var kernels: OpaquePointer {
        guard let kernels = OpaquePointer(bitPattern: address) else { preconditionFailure("no kernels of \(name)") }
        return kernels
    }

    package var description: String { name }
}
