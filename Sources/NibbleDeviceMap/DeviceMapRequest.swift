public import NibbleCore

/// What a user may ask of placement: the values of `device_map`.
public enum DeviceMapRequest: Sendable, Hashable {
    /// GPUs if there are any, else the CPU: spread so that each carries its share.
    case auto
    /// Spread over all GPUs so that each carries its share.
    case balanced
    /// Balanced over all GPUs but the first, which stays as free as possible.
    case balancedLow0
    /// Devices are filled in order.
    case sequential
    /// Everything on one device.
    case device(Device)
    /// As the map says.
    case explicit(DeviceMap)
}

extension DeviceMapRequest {
    /// Reads `auto`, `balanced`, `balanced_low_0`, `sequential` and device names.
    public init?(name: String) {
        switch name {
        case "auto": self = .auto
        case "balanced": self = .balanced
        case "balanced_low_0": self = .balancedLow0
        case "sequential": self = .sequential
        default:
            guard let device = Device(name: name) else { return nil }
            self = .device(device)
        }
    }
}
