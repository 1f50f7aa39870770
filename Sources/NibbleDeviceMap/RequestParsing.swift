package import NibbleCore

extension DeviceMapRequest {
    /// Parses a word, a device name, or a JSON object of module names to devices.
    /// - Parameter source: for errors.
    /// - Throws: ``DeviceMapError``
    package init(parsing text: String, source: String) throws {
        if text.drop(while: \.isWhitespace).first == "{" {
            let json: JSONValue
            do { json = try JSONValue.parse(Array(text.utf8)) } catch {
                throw DeviceMapError.malformedMap(source: source, expected: "a JSON object", found: "\(error)")
            }
            self = .explicit(try DeviceMap(json: json, source: source))
        } else if let request = DeviceMapRequest(name: String(text[...].trimmed())) {
            self = request
        } else if Int(text) != nil {
            throw DeviceMapError.malformedMap(
                source: source, expected: "a GPU number of at least 0 (for the CPU write \"cpu\")", found: text)
        } else {
            throw DeviceMapError.unknownWord(text)
        }
    }
}

extension DeviceMap {
    /// Parses `{"transformer.h.0": 0, "lm_head": "cpu"}`.
    /// - Throws: ``DeviceMapError/malformedMap(source:expected:found:)``
    package init(json: JSONValue, source: String) throws {
        guard let object = json.object else {
            throw DeviceMapError.malformedMap(
                source: source, expected: "an object of modules to devices", found: json.encoded(.spaced))
        }
        var entries: [String: Device] = [:]
        for (name, value) in object {
            guard let device = (value.string ?? value.int.map(String.init)).flatMap(Device.init(name:)) else {
                throw DeviceMapError.malformedMap(
                    source: source, expected: "a GPU number, \"cpu\" or \"disk\" for \"\(name)\"", found: value.encoded(.spaced))
            }
            entries[name] = device
        }
        self.init(entries)
    }

    /// Keys that name nothing in `isKnown`, sorted; they have no effect.
    package func unknownNames(isKnown: (String) -> Bool) -> [String] {
        entries.keys.filter { !isKnown($0) }.sorted()
    }
}

extension MemoryLimit {
    /// Parses `0=600MB, 1=1GB, cpu=2GB`; spaces are ignored.
    /// - Throws: ``DeviceMapError``, ``MemoryLimitError``
    package static func limits(parsing text: String) throws -> [Device: MemoryLimit] {
        var limits: [Device: MemoryLimit] = [:]
        for entry in text.split(separator: ",") {
            let parts = entry.split(separator: "=", omittingEmptySubsequences: false).map { $0.trimmed() }
            guard parts.count == 2, !parts[0].isEmpty else { throw DeviceMapError.malformedLimit(String(entry)) }
            guard let device = Device(name: String(parts[0])) else { throw DeviceMapError.unknownLimitKey(String(parts[0])) }
            let limit = MemoryLimit(String(parts[1]))
            _ = try limit.bytes()
            guard limits.updateValue(limit, forKey: device) == nil else { throw DeviceMapError.malformedLimit(text) }
        }
        guard !limits.isEmpty else { throw DeviceMapError.malformedLimit(text) }
        return limits
    }
}
