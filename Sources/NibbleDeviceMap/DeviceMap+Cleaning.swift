import NibbleCore

extension DeviceMap {
    /// The same map, with one entry for each module that lies on one device as a whole.
    package func cleaned() -> DeviceMap {
        var entries = entries
        DeviceMap.clean(&entries, "")
        return DeviceMap(entries)
    }

    private static func clean(_ entries: inout [String: Device], _ name: String) {
        let prefix = name.isEmpty ? "" : name + "."
        let below = entries.filter { $0.key.hasPrefix(prefix) }
        if below.count > 1, let device = below.values.first, below.values.allSatisfy({ $0 == device }) {
            for key in below.keys { entries[key] = nil }
            entries[name] = device
            return
        }
        let depth = name.isEmpty ? 1 : name.split(separator: ".").count + 1
        let children = Set(
            below.keys.filter { $0.count > name.count }.map { key in
                key.split(separator: ".").prefix(depth).joined(separator: ".")
            })
        for child in children { clean(&entries, child) }
    }
}
