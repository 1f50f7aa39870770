import Foundation
import NibbleCore

extension Normalizer {
    init(_ field: JSONField) throws {
        let type = try field.required("type")
        switch try type.string() {
        case "Sequence":
            var normalizers: [Normalizer] = []
            for element in try field.required("normalizers").elements() { normalizers.append(try Normalizer(element)) }
            self = .sequence(normalizers)
        case "NFC": self = .unicode(.nfc)
        case "NFD": self = .unicode(.nfd)
        case "NFKC": self = .unicode(.nfkc)
        case "NFKD": self = .unicode(.nfkd)
        case "Lowercase": self = .lowercase
        case "Strip":
            self = .strip(left: try field.flag("strip_left", default: true), right: try field.flag("strip_right", default: true))
        case "Prepend": self = .prepend(try field.text("prepend").unicodeScalars.map(\.value))
        case "Replace":
            self = .replace(try TextPattern(field.required("pattern")), content: Array(try field.text("content").utf8))
        case "Precompiled": self = try Self.precompiled(field)
        case let other: throw type.unsupported(other)
        }
    }

    private static func precompiled(_ field: JSONField) throws -> Normalizer {
        guard let map = field.child("precompiled_charsmap") else { return .sequence([]) }
        guard let data = Data(base64Encoded: try map.string()) else { throw map.unexpected("base64 data") }
        if data.isEmpty { return .sequence([]) }
        do {
            return .precompiled(try PrecompiledCharsMap(Array(data), rule: .clusters))
        } catch {
            throw TokenizerError.invalidField(file: map.file, field: map.path, expected: "a charsmap", found: error.reason)
        }
    }
}
