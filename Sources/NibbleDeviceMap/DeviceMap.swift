package import NibbleCore

/// Which device each module lies on, by module name. The longest matching name decides.
///
/// Names match whole parts: `h.1` covers `h.1.mlp`, but not `h.11`. The empty name covers everything.
package struct DeviceMap: Sendable, Hashable {
    package var entries: [String: Device]

    package init(_ entries: [String: Device]) { self.entries = entries }

    /// The whole model on one device.
    package static func all(on device: Device) -> DeviceMap { DeviceMap(["": device]) }

    /// The device of a module or parameter. `nil` if no entry covers it.
    package func device(of path: String) -> Device? {
        var name = Substring(path)
        while true {
            if let device = entries[String(name)] { return device }
            guard !name.isEmpty else { return nil }
            name = name.lastIndex(of: ".").map { name[..<$0] } ?? ""
        }
    }

    /// The distinct devices, GPUs first.
    package var devices: [Device] { Set(entries.values).sorted() }
}
