public import NibbleCore

/// A request for placement that cannot be understood or met.
public enum DeviceMapError: Error, Sendable, Equatable {
    /// The word names no device map.
    case unknownWord(String)
    /// A device map that cannot be read.
    case malformedMap(source: String, expected: String, found: String)
    /// A memory limit for something that is no device.
    case unknownLimitKey(String)
    /// A memory limit that is not `DEVICE=SIZE`.
    case malformedLimit(String)
    /// The reference refuses to place part of a quantized model off the GPUs.
    case offloadOfQuantizedModules([Device])
    /// Modules that the device map places nowhere.
    case uncovered([String])
    /// The devices are too small; `ways` names what would help.
    case doesNotFit([MemoryShortage], ways: [String])

    /// A device that cannot hold what is placed on it.
    public struct MemoryShortage: Sendable, Equatable {
        /// The device that is short of memory.
        public var device: Device
        /// Bytes the plan needs there.
        public var needed: Int
        /// Bytes the device can give.
        public var free: Int

        package init(device: Device, needed: Int, free: Int) {
            self.device = device
            self.needed = needed
            self.free = free
        }
    }
}

extension DeviceMapError {
    /// The word `nibble plan --json` reports.
    package var code: String {
        switch self {
        case .offloadOfQuantizedModules: "offload_of_quantized_modules"
        case .doesNotFit: "does_not_fit"
        case .uncovered: "uncovered_modules"
        case .unknownWord, .malformedMap, .unknownLimitKey, .malformedLimit: "malformed_request"
        }
    }
}

extension DeviceMapError: CustomStringConvertible {
    /// The error as a sentence for the user.
    public var description: String {
        switch self {
        case .unknownWord(let word):
            "\"\(word)\" is no device map: use auto, balanced, balanced_low_0, sequential, a device (cpu, cuda, cuda:1, disk), "
                + "or a JSON object of modules to devices"
        case .malformedMap(let source, let expected, let found):
            "\(source): expected \(expected), found \(found)"
        case .unknownLimitKey(let key):
            "\"\(key)\" is no device for a memory limit: use GPU numbers, cpu or disk, such as 0=600MB,cpu=2GB"
        case .malformedLimit(let text):
            "\"\(text)\" is no memory limit: use DEVICE=SIZE, such as 0=600MB,cpu=2GB"
        case .offloadOfQuantizedModules(let devices):
            "part of the model was planned on \(devices.map(\.description).joined(separator: " and ")), but quantized layers must fit "
                + "in GPU memory: allow more GPU memory, use a smaller model, or allow fp32 CPU offload and give a device map"
        case .uncovered(let names):
            "the device map names no device for \(names.prefix(5).joined(separator: ", "))"
                + (names.count > 5 ? " and \(names.count - 5) more" : "")
        case .doesNotFit(let shortages, let ways):
            "the model does not fit: "
                + shortages.map {
                    "\($0.device) needs \(ByteCount.text($0.needed)), \(ByteCount.text($0.free)) are available"
                }.joined(separator: "; ") + (ways.isEmpty ? "" : ". Either " + ways.joined(separator: ", or "))
        }
    }
}
