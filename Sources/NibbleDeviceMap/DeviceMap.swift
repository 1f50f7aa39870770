public import NibbleCore

/// Which device each module lies on, by module name. The longest matching name decides.
///
/// Names match whole parts: `h.1` covers `h.1.mlp`, but not `h.11`. The empty name covers everything.
public struct DeviceMap: Sendable, Hashable {
    /// Devices by module name.
    public var entries: [String: Device]

    /// A map with these entries.
    public init(_ entries: [String: Device]) { self.entries = entries }

    /// The whole model on one device.
    public static func all(on device: Device) -> DeviceMap { DeviceMap(["": device]) }

    /// The device of a module or parameter. `nil` if no entry covers it.
    public func device(of path: String) -> Device? {
        var name = Substring(path)
        while true {
            if let device = entries[String(name)] { return device }
            guard !name.isEmpty else { return nil }
            name = name.lastIndex(of: ".").map { name[..<$0] } ?? ""
        }
    }

    /// The distinct devices, GPUs first.
    public var devices: [Device] { Set(entries.values).sorted() }
}
