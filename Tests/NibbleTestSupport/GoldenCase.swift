internal import Foundation
internal import NibbleCheckpoint
internal import NibbleConformance
package import NibbleCore

/// One recorded operation of the reference library: golden/quantization/index.json.
package struct GoldenCase: Sendable, CustomStringConvertible {
    package let id: String
    package let operation: String
    package let parameters: JSONValue
    private let inputs: JSONObject
    private let expectations: JSONObject

    package var description: String { id }

    /// Cases of one operation; none if the fixtures are missing, which the tests report.
    package static func all(_ operation: String) -> [GoldenCase] { every.filter { $0.operation == operation } }

    package static let every: [GoldenCase] = {
        guard let index = try? JSONValue(contentsOf: folder.appending(path: "index.json")) else { return [] }
        return (index["cases"]?.array ?? []).compactMap { entry in
            guard let id = entry["id"]?.string, let operation = entry["op"]?.string, let parameters = entry["params"],
                let inputs = entry["inputs"]?.object, let expectations = entry["expected"]?.object
            else { return nil }
            return GoldenCase(
                id: id, operation: operation, parameters: parameters, inputs: inputs, expectations: expectations)
        }
    }()

    private static let folder = Fixtures.url("golden/quantization")

    private static let files: [String: SafetensorsFile] = {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        return names.filter { $0.hasSuffix(".safetensors") }.reduce(into: [:]) { files, name in
            files[name] = try? SafetensorsFile(folder.appending(path: name))
        }
    }()

    package struct Missing: Error {
        let what: String
    }

    package func input(_ name: String) throws -> Tensor { try tensor(inputs, name) }
    package func expected(_ name: String) throws -> Tensor { try tensor(expectations, name) }
    package func hasInput(_ name: String) -> Bool { inputs[name] != nil }
    package func expects(_ name: String) -> Bool { expectations[name] != nil }

    private func tensor(_ group: JSONObject, _ name: String) throws -> Tensor {
        guard let file = group[name]?["file"]?.string, let key = group[name]?["tensor"]?.string,
            let checkpoint = GoldenCase.files[file]
        else { throw Missing(what: "\(id): \(name)") }
        return try checkpoint.tensor(key)
    }

    package var format: FourBitFormat {
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

extension GoldenCase {
    /// The recorded codes and scales as a weight.
    package func fourBitWeight(shape: Shape, sourceDType: DType) throws -> FourBitWeight {
        let absmax = try expected("absmax").aligned
        let scales: BlockScales =
            if expects("nested_absmax") {
                .nested(
                    NestedScales(
                        codes: absmax, absmax: try expected("nested_absmax").aligned,
                        offset: try expected("nested_offset").floats[0]))
            } else {
                .plain(absmax)
            }
        return FourBitWeight(
            format: try format, outFeatures: shape[0], inFeatures: shape[1], codes: try expected("packed").aligned,
            scales: scales, sourceDType: sourceDType)
    }
}

extension Tensor {
    /// Elements of a float tensor, which need not be aligned.
    package var floats: [Float] {
        let copy = aligned
        return withExtendedLifetime(copy) { HostValues.values(copy).map { Float($0) } }
    }
    package var bytes: [UInt8] { Array(hostBytes) }
    package var signedBytes: [Int8] { hostBytes.map { Int8(bitPattern: $0) } }
    package func integers<Value: FixedWidthInteger & BitwiseCopyable>(_: Value.Type) -> [Value] {
        let copy = aligned
        return withExtendedLifetime(copy) { Array(copy.hostElements(Value.self)) }
    }

    /// A copy in memory of its own.
    package var aligned: Tensor {
        let copy = Tensor.host(dtype, shape)
        copy.mutableHostBytes.copyMemory(from: hostBytes)
        return copy
    }

    package static func floats(_ values: [Float], _ shape: Shape) -> Tensor { .host(values, .float32, shape) }
}
