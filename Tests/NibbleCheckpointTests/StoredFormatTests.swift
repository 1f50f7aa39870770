import Foundation
import NibbleCheckpoint
import NibbleCore
import NibbleTestSupport
import Testing

/// Weights in the forms of other quantizers. The files of `Tests/Fixtures/stored` were written by the libraries that own the forms:
/// compressed-tensors 0.20.1, AutoAWQ 0.2.9, AutoGPTQ 0.7.1; ModelOpt 0.47 dequantized its own. Each holds one layer, what the library
/// itself makes of it (`expected`), and in its metadata the `quantization_config`.
@Suite struct StoredFormatTests {
    private static let folder = Fixtures.repository.appending(path: "Tests/Fixtures/stored")
    private static let files: [String] = {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        return names.filter { $0.hasSuffix(".safetensors") }.sorted()
    }()
    private static let weight = "model.layers.0.mlp.down_proj.weight"

    private func format(_ json: JSONValue) throws -> StoredFormat {
        let object = try #require(json.object)
        return try #require(try StoredFormat(object, file: "/models/m/config.json"))
    }

    @Test("files of all libraries are there")
    func present() { #expect(Self.files.count >= 17) }

    @Test("weights are bit for bit those of the libraries", arguments: files)
    func golden(name: String) throws {
        let file = try SafetensorsFile(Self.folder.appending(path: name))
        let text = try #require(file.metadata["quantization_config"])
        let config = try JSONValue.parse(text)
        let expected = try file.tensor("expected")
        let checkpoint = DequantizedCheckpoint(file, try format(config), dtype: expected.dtype)
        #expect(checkpoint.names == ["expected", Self.weight])
        let descriptor = try #require(checkpoint.descriptor(Self.weight))
        #expect(descriptor.shape == expected.shape && descriptor.dtype == expected.dtype && !descriptor.isContiguous)
        #expect(try checkpoint.tensor(Self.weight).bytes == expected.bytes)
    }

    @Test("matrices of a set are read alone")
    func matrices() throws {
        let folder = try TemporaryFolder()
        let url = folder.url.appending(path: "model.safetensors")
        let (experts, outer, inner) = (3, 6, 64)
        let blocks = (0..<experts * outer * inner / 2).map { UInt8(truncatingIfNeeded: $0 * 29 + 3) }
        let scales = (0..<experts * outer * 2).map { UInt8(120 + $0 % 11) }
        try SafetensorsWriter().write(
            [
                (name: "e.down_proj_blocks", tensor: .host(blocks, .uint8, [experts, outer, 2, 16])),
                (name: "e.down_proj_scales", tensor: .host(scales, .uint8, [experts, outer, 2])),
            ], to: url)
        let checkpoint = DequantizedCheckpoint(
            try SafetensorsFile(url), try format(["quant_method": "mxfp4"]), dtype: .float32)
        #expect(checkpoint.names == ["e.down_proj"])
        let whole = try checkpoint.tensor("e.down_proj")
        #expect(whole.shape == [experts, inner, outer])
        let values: [Float] = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
        for (index, value) in whole.floats.enumerated() {
            let (expert, k, n) = (index / (inner * outer), index / outer % inner, index % outer)
            let element = (expert * outer + n) * inner + k
            let code = Int(blocks[element / 2] >> (element % 2 == 0 ? 0 : 4) & 15)
            let expected = (code < 8 ? values[code] : -values[code - 8]) * pow(2, Float(Int(scales[element / 32]) - 127))
            #expect(value == expected, "\(index)")
        }
        for expert in 0..<experts {
            #expect(try checkpoint.rows("e.down_proj", expert..<expert + 1).bytes == whole.rows(expert..<expert + 1).bytes)
        }
    }

    @Test("the dtype of the floats is the caller's, rounded once", arguments: [DType.float32, .float16, .bfloat16])
    func rounding(dtype: DType) throws {
        let folder = try TemporaryFolder()
        let url = folder.url.appending(path: "model.safetensors")
        let scale: Float = 0.0123
        try SafetensorsWriter().write(
            [
                (name: "m.weight", tensor: .host((0...255).map { UInt8($0) }, .float8E4M3, [2, 128])),
                (name: "m.weight_scale_inv", tensor: .host([scale], .float32, [])),
            ], to: url)
        let checkpoint = DequantizedCheckpoint(try SafetensorsFile(url), try format(["quant_method": "fp8"]), dtype: dtype)
        let tensor = try checkpoint.tensor("m.weight")
        for code in 0..<256 {
            let (exponent, mantissa) = (code >> 3 & 15, Float(code & 7))
            let magnitude = exponent == 0 ? mantissa * pow(2, -9) : (8 + mantissa) * pow(2, Float(exponent - 10))
            let value = (code < 128 ? magnitude : -magnitude) * scale
            let found: Float =
                switch dtype {
                case .float16: Float(tensor.hostElements(Float16.self)[code])
                case .bfloat16: Float(tensor.hostElements(BFloat16.self)[code])
                default: tensor.hostElements(Float.self)[code]
                }
            if code & 127 == 127 {
                #expect(found.isNaN)
            } else {
                #expect(
                    found == (dtype == .float16 ? Float(Float16(value)) : dtype == .bfloat16 ? Float(BFloat16(value)) : value))
            }
        }
    }
}
