import Foundation
import NibbleCheckpoint
import NibbleConformance
import NibbleCore
import NibbleTestSupport

/// One recorded operation of the reference library: golden/quantization/index.json.
struct GoldenCase: Sendable, CustomStringConvertible {
    let id: String
    let operation: String
    let parameters: JSONValue
    private let inputs: JSONObject
    private let expectations: JSONObject

    var description: String { id }

    /// Cases of one operation; none where the fixtures are missing, which `GoldenTests` reports.
    static func all(_ operation: String) -> [GoldenCase] { every.filter { $0.operation == operation } }

    static let every: [GoldenCase] = {
        guard let index = try? JSONValue(contentsOf: folder.appending(path: "index.json")) else { return [] }
        return (index["cases"]?.array ?? []).compactMap { entry in
            guard let id = entry["id"]?.string, let operation = entry["op"]?.string, let parameters = entry["params"],
                let inputs = entry["inputs"]?.object, let expectations = entry["expected"]?.object
            else { return nil }
            return GoldenCase(
                id: id, operation: operation, parameters: parameters, inputs: inputs, expectations: expectations)
        }
    }()

    static let folder = Fixtures.url("golden/quantization")

    private static let files: [String: SafetensorsFile] = {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        return names.filter { $0.hasSuffix(".safetensors") }.reduce(into: [:]) { files, name in
            files[name] = try? SafetensorsFile(folder.appending(path: name))
        }
    }()

    struct Missing: Error {
        let what: String
    }

    func input(_ name: String) throws -> Tensor { try tensor(inputs, name) }
    func expected(_ name: String) throws -> Tensor { try tensor(expectations, name) }
    func hasInput(_ name: String) -> Bool { inputs[name] != nil }
    func expects(_ name: String) -> Bool { expectations[name] != nil }

    private func tensor(_ group: JSONObject, _ name: String) throws -> Tensor {
        guard let file = group[name]?["file"]?.string, let key = group[name]?["tensor"]?.string,
            let checkpoint = GoldenCase.files[file]
        else { throw Missing(what: "\(id): \(name)") }
        return try checkpoint.tensor(key)
    }

    var format: FourBitFormat {
        get throws {
            guard let codebook = parameters["quant_type"]?.string.flatMap(FourBitFormat.Codebook.init(rawValue:)) else {
                throw Missing(what: "\(id): quant_type")
            }
            return FourBitFormat(
                codebook: codebook, blockSize: parameters["blocksize"]?.int ?? FourBitFormat.defaultBlockSize,
                isNested: parameters["nested"]?.bool ?? false)
        }
    }
}

extension Tensor {
    /// Elements of a float tensor; aligned or not.
    var floats: [Float] {
        let copy = aligned
        return withExtendedLifetime(copy) { HostValues.values(copy).map { Float($0) } }
    }
    var bytes: [UInt8] { Array(hostBytes) }
    var signedBytes: [Int8] { hostBytes.map { Int8(bitPattern: $0) } }
    func integers<Value: FixedWidthInteger & BitwiseCopyable>(_: Value.Type) -> [Value] {
        let copy = aligned
        return withExtendedLifetime(copy) { Array(copy.hostElements(Value.self)) }
    }

    /// A copy in memory of its own.
    var aligned: Tensor {
        let copy = Tensor.host(dtype, shape)
        copy.mutableHostBytes.copyMemory(from: hostBytes)
        return copy
    }

    static func floats(_ values: [Float], _ shape: Shape) -> Tensor { .host(values, .float32, shape) }
}
