package import NibbleCore

/// A request for placement that cannot be understood or met.
package enum DeviceMapError: Error, Sendable, Equatable {
    case unknownWord(String)
    case malformedMap(source: String, expected: String, found: String)
    case unknownLimitKey(String)
    case malformedLimit(String)
    /// The reference refuses to place part of a quantized model off the GPUs.
    case offloadOfQuantizedModules([Device])
    case uncovered([String])
    case doesNotFit([MemoryShortage], ways: [String])

    /// A device that cannot hold what is placed on it.
    package struct MemoryShortage: Sendable, Equatable {
        package var device: Device
        package var needed: Int
        package var free: Int

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
    package var description: String {
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
