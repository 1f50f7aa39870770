/// A place where weights lie and layers run.
public enum Device: Sendable, Hashable {
    /// The processor and main memory.
    case cpu
    /// The GPU with this number.
    case cuda(Int)
    /// Weights stay in the checkpoint file and are streamed for each use.
    case disk
}

extension Device {
    /// Reads `cpu`, `disk`, `cuda`, `cuda:1` and a bare GPU number. `nil` for anything else.
    public init?(name: String) {
        switch name {
        case "cpu": self = .cpu
        case "disk": self = .disk
        case "cuda": self = .cuda(0)
        default:
            let digits = name.hasPrefix("cuda:") ? name.dropFirst("cuda:".count) : name[...]
            guard let number = Int(digits), number >= 0, digits.allSatisfy(\.isNumber) else { return nil }
            self = .cuda(number)
        }
    }

    /// The key used in device maps: `cpu`, `disk`, or the GPU's number.
    package var mapKey: String {
        switch self {
        case .cpu: "cpu"
        case .disk: "disk"
        case .cuda(let number): String(number)
        }
    }
}

extension Device: CustomStringConvertible {
    /// `cpu`, `disk` or `cuda:N`.
    public var description: String {
        switch self {
        case .cpu: "cpu"
        case .disk: "disk"
        case .cuda(let number): "cuda:\(number)"
        }
    }
}

extension Device: Comparable {
    /// GPUs ascending, then CPU, then disk: the order in which a planner fills them.
    public static func < (a: Device, b: Device) -> Bool { a.order < b.order }

    private var order: Int {
        switch self {
        case .cuda(let number): number
        case .cpu: Int.max - 1
        case .disk: Int.max
        }
    }
}
