public import NibbleCore

/// The values of `device_map`.
public enum DeviceMapRequest: Sendable, Hashable {
    /// Spread evenly over the GPUs; on the CPU if there are none.
    case auto
    /// Spread over all GPUs so that each carries its share.
    case balanced
    /// As ``balanced``, but the first GPU is kept as free as possible.
    case balancedLow0
    /// Devices are filled in order.
    case sequential
    /// Everything on one device.
    case device(Device)
    /// As the map says.
    case explicit(DeviceMap)
}

extension DeviceMapRequest {
    /// Parses `auto`, `balanced`, `balanced_low_0`, `sequential` and device names.
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
