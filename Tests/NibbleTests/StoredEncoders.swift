import Foundation
import NibbleCore

/// Plain writers of the forms in which other quantizers store a linear layer, and what those forms stand for, computed from their
/// definitions element by element.
struct StoredEncoder: Sendable, CustomStringConvertible {
    typealias Tensors = [(name: String, tensor: Tensor)]

    let description: String
    /// The `quantization_config`.
    let config: JSONValue
    /// Whether a file of ModelOpt's own holds the config.
    var isInOwnFile = false
    /// The stored tensors of the layer `module` with the weight [N, K], and the dense weight that they stand for.
    let encode: @Sendable (_ module: String, _ weight: [Float], _ n: Int, _ k: Int) -> (stored: Tensors, dense: [Float])

    static let all: [StoredEncoder] = [
        float8Blocks, float8Tensor, float8Rows, int8Rows, packedRows(bits: 4, symmetric: true),
        packedRows(bits: 8, symmetric: false),
        packedRows(bits: 4, symmetric: false, sorted: true), nvfp4, nvfp4ModelOpt, mxfp4, awq, gptq(version: 1, sorted: true),
        gptq(version: 2, sorted: false),
    ]
}

// MARK: Eight bits

extension StoredEncoder {
    /// Codes of E4M3 by value, without NaN.
    private static let float8: [(value: Float, code: UInt8)] = (0..<256).filter { $0 & 127 != 127 }.map { code in
        let (exponent, mantissa) = (code >> 3 & 15, Float(code & 7))
        let magnitude = exponent == 0 ? mantissa / 8 * pow(2, -6) : (1 + mantissa / 8) * pow(2, Float(exponent - 7))
        return (code < 128 ? magnitude : -magnitude, UInt8(code))
    }.sorted { $0.value < $1.value }

    /// The code whose value is nearest.
    private static func nearest(_ value: Float, in table: [(value: Float, code: UInt8)]) -> (value: Float, code: UInt8) {
        var (low, high) = (0, table.count - 1)
        while high - low > 1 {
            let middle = (low + high) / 2
            if table[middle].value <= value { low = middle } else { high = middle }
        }
        return value - table[low].value <= table[high].value - value ? table[low] : table[high]
    }

    /// One scale for each block of a grid; `block`: rows and columns.
    private static func byBlocks(
        _ weight: [Float], _ n: Int, _ k: Int, block: (Int, Int), largest: Float,
        _ code: (_ scaled: Float) -> (value: Float, code: UInt8)
    ) -> (codes: [UInt8], scales: [Float], dense: [Float]) {
        let (down, across) = ((n + block.0 - 1) / block.0, (k + block.1 - 1) / block.1)
        var scales = [Float](repeating: 0, count: down * across)
        func index(_ element: Int) -> Int { element / k / block.0 * across + element % k / block.1 }
        for element in weight.indices { scales[index(element)] = max(scales[index(element)], abs(weight[element])) }
        scales = scales.map { $0 == 0 ? 1 : $0 / largest }
        let found = weight.indices.map { code(weight[$0] / scales[index($0)]) }
        return (found.map(\.code), scales, weight.indices.map { found[$0].value * scales[index($0)] })
    }

    private static func float8(
        _ module: String, _ weight: [Float], _ n: Int, _ k: Int, block: (Int, Int), scale: String, shape: Shape
    ) -> (stored: Tensors, dense: [Float]) {
        let (codes, scales, dense) = byBlocks(weight, n, k, block: block, largest: 448) { nearest($0, in: float8) }
        return (
            [
                ("\(module).weight", .host(codes, .float8E4M3, [n, k])), ("\(module).\(scale)", .host(scales, .float32, shape)),
                ("\(module).input_scale", .host([Float(1)], .float32, [])),
            ], dense
        )
    }

    /// Blocks of 48 × 40 leave ragged edges in matrices of 64 and 128.
    private static let float8Blocks = StoredEncoder(
        description: "fp8 blocks",
        config: ["quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [48, 40], "modules_to_not_convert": ["lm_head"]]
    ) {
        float8($0, $1, $2, $3, block: (48, 40), scale: "weight_scale_inv", shape: [($2 + 47) / 48, ($3 + 39) / 40])
    }

    private static let float8Tensor = StoredEncoder(
        description: "fp8 tensor", config: ["quant_method": "modelopt", "quant_algo": "FP8"], isInOwnFile: true
    ) {
        float8($0, $1, $2, $3, block: ($2, $3), scale: "weight_scale", shape: [])
    }

    private static func compressedTensors(_ format: String, _ weights: JSONValue) -> JSONValue {
        [
            "quant_method": "compressed-tensors", "format": .string(format), "ignore": ["re:.*lm_head"],
            "config_groups": [
                "group_0": ["targets": ["re:.*other.*"], "weights": ["num_bits": 8, "type": "int", "strategy": "channel"]],
                "group_1": ["targets": ["Linear"], "weights": weights],
            ],
        ]
    }

    private static let float8Rows = StoredEncoder(
        description: "float-quantized",
        config: compressedTensors("float-quantized", ["num_bits": 8, "type": "float", "strategy": "channel"])
    ) {
        float8($0, $1, $2, $3, block: (1, $3), scale: "weight_scale", shape: [$2, 1])
    }

    private static let int8Rows = StoredEncoder(
        description: "int-quantized",
        config: compressedTensors("int-quantized", ["num_bits": 8, "type": "int", "strategy": "channel"])
    ) { module, weight, n, k in
        let (codes, scales, dense) = byBlocks(weight, n, k, block: (1, k), largest: 127) { scaled in
            let code = Int8(scaled.rounded())
            return (Float(code), UInt8(bitPattern: code))
        }
        return (
            [
                ("\(module).weight", .host(codes, .int8, [n, k])), ("\(module).weight_scale", .host(scales, .float32, [n, 1])),
            ], dense
        )
    }
}

// MARK: FP4

extension StoredEncoder {
    private static let float4: [(value: Float, code: UInt8)] = {
        let magnitudes: [Float] = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
        var table: [(value: Float, code: UInt8)] = []
        for (index, magnitude) in magnitudes.enumerated() {
            table.append((magnitude, UInt8(index)))
            if index > 0 { table.append((-magnitude, UInt8(index + 8))) }
        }
        return table.sorted { $0.value < $1.value }
    }()

    /// The first code in the low half of each byte.
    private static func pairs(_ codes: [UInt8]) -> [UInt8] {
        stride(from: 0, to: codes.count, by: 2).map { codes[$0] | codes[$0 + 1] << 4 }
    }

    private static let nvfp4 = float4(
        "nvfp4-pack-quantized",
        compressedTensors(
            "nvfp4-pack-quantized", ["num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16]),
        ("weight_packed", "weight_global_scale"), divides: true)
    private static let nvfp4ModelOpt = float4(
        "modelopt NVFP4", ["quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]],
        ("weight", "weight_scale_2"), divides: false)

    private static func float4(
        _ description: String, _ config: JSONValue, _ names: (codes: String, global: String), divides: Bool
    ) -> StoredEncoder {
        StoredEncoder(description: description, config: config) { module, weight, n, k in
            let global: Float = divides ? 2000 : 1 / 2000
            let groups = weight.count / 16
            var (codes, scaleCodes, dense) = ([UInt8](), [UInt8](), [Float]())
            for group in 0..<groups {
                let values = weight[group * 16..<(group + 1) * 16]
                let wanted = (values.map(abs).max() ?? 0) / 6
                let scale = nearest(divides ? wanted * global : wanted / global, in: float8)
                let whole = divides ? scale.value / global : scale.value * global
                scaleCodes.append(scale.code)
                for value in values {
                    let found = nearest(whole == 0 ? 0 : value / whole, in: float4)
                    codes.append(found.code)
                    dense.append(found.value * whole)
                }
            }
            return (
                [
                    ("\(module).\(names.codes)", .host(pairs(codes), .uint8, [n, k / 2])),
                    ("\(module).weight_scale", .host(scaleCodes, .float8E4M3, [n, k / 16])),
                    ("\(module).\(names.global)", .host([global], .float32, [1])),
                    ("\(module).input_global_scale", .host([Float(3)], .float32, [1])),
                ], dense
            )
        }
    }

    /// Codes and exponents of groups of 32.
    static func mxfp4(_ weight: [Float]) -> (codes: [UInt8], exponents: [UInt8], dense: [Float]) {
        var (codes, exponents, dense) = ([UInt8](), [UInt8](), [Float]())
        for group in stride(from: 0, to: weight.count, by: 32) {
            let values = weight[group..<group + 32]
            let exponent = Int(floor(log2(max(values.map(abs).max() ?? 0, 1e-30)))) - 2
            exponents.append(UInt8(exponent + 127))
            for value in values {
                let found = nearest(value / pow(2, Float(exponent)), in: float4)
                codes.append(found.code)
                dense.append(found.value * pow(2, Float(exponent)))
            }
        }
        return (pairs(codes), exponents, dense)
    }

    private static let mxfp4 = StoredEncoder(
        description: "mxfp4-pack-quantized",
        config: compressedTensors(
            "mxfp4-pack-quantized", ["num_bits": 4, "type": "float", "strategy": "group", "group_size": 32])
    ) { module, weight, n, k in
        let (codes, exponents, dense) = mxfp4(weight)
        return (
            [
                ("\(module).weight_packed", .host(codes, .uint8, [n, k / 2])),
                ("\(module).weight_scale", .host(exponents, .uint8, [n, k / 32])),
            ], dense
        )
    }
}

// MARK: Integers in words

extension StoredEncoder {
    /// Codes, zero points and scales (halves) of groups of columns: w = (q − z)·s.
    private struct Groups {
        var codes: [[Int]] = []
        /// [N][groups]
        var zeros: [[Int]]
        var scales: [[Float16]]
        var dense: [Float] = []

        /// - Parameter group: of a column.
        init(_ weight: [Float], _ n: Int, _ k: Int, count: Int, bits: Int, symmetric: Bool, group: (Int) -> Int) {
            let largest = 1 << bits - 1
            zeros = Array(repeating: Array(repeating: 1 << (bits - 1), count: count), count: n)
            scales = Array(repeating: Array(repeating: 1, count: count), count: n)
            for row in 0..<n {
                let values = weight[row * k..<(row + 1) * k]
                for index in 0..<count {
                    let members = (0..<k).filter { group($0) == index }.map { values[row * k + $0] }
                    let (low, high) = (min(members.min() ?? 0, 0), max(members.max() ?? 0, 0))
                    let range = symmetric ? 2 * max(-low, high) : high - low
                    scales[row][index] = Float16(max(range / Float(largest), 1e-4))
                    if !symmetric { zeros[row][index] = min(Int((-low / Float(scales[row][index])).rounded()), largest) }
                }
                codes.append(
                    (0..<k).map { column in
                        let index = group(column)
                        let code = Int((values[row * k + column] / Float(scales[row][index])).rounded()) + zeros[row][index]
                        return min(max(code, 0), largest)
                    })
                for column in 0..<k {
                    dense.append(Float(codes[row][column] - zeros[row][group(column)]) * Float(scales[row][group(column)]))
                }
            }
        }
    }

    /// Words of codes, the first in the lowest bits, rows of which are filled up.
    private static func words(_ rows: [[Int]], bits: Int) -> [UInt32] {
        rows.flatMap { row in
            stride(from: 0, to: row.count, by: 32 / bits).map { start in
                row[start..<min(start + 32 / bits, row.count)].enumerated().reduce(UInt32(0)) {
                    $0 | UInt32($1.element) << UInt32($1.offset * bits)
                }
            }
        }
    }

    private static func transposed<T>(_ rows: [[T]]) -> [[T]] { rows[0].indices.map { column in rows.map { $0[column] } } }

    private static func packedRows(bits: Int, symmetric: Bool, sorted: Bool = false) -> StoredEncoder {
        let weights: JSONValue = [
            "num_bits": .int(bits), "type": "int", "strategy": "group", "group_size": 32, "symmetric": .bool(symmetric),
        ]
        return StoredEncoder(
            description: "pack-quantized \(bits) \(symmetric ? "symmetric" : "asymmetric")\(sorted ? " sorted" : "")",
            config: compressedTensors("pack-quantized", weights)
        ) { module, weight, n, k in
            let count = k / 32
            let group: (Int) -> Int = sorted ? { $0 * 7 % k % count } : { $0 / 32 }
            let made = Groups(weight, n, k, count: count, bits: bits, symmetric: symmetric, group: group)
            let packed = words(made.codes, bits: bits)
            var tensors: Tensors = [
                ("\(module).weight_packed", .host(packed, .int32, [n, k * bits / 32])),
                ("\(module).weight_scale", .host(made.scales.flatMap { $0 }, .float16, [n, count])),
                ("\(module).weight_shape", .host([Int64(n), Int64(k)], .int64, [2])),
            ]
            if !symmetric {
                let zeros = transposed(words(transposed(made.zeros), bits: bits).chunks(of: (n * bits + 31) / 32))
                tensors.append(
                    ("\(module).weight_zero_point", .host(zeros.flatMap { $0 }, .int32, [(n * bits + 31) / 32, count])))
            }
            if sorted { tensors.append(("\(module).weight_g_idx", .host((0..<k).map { Int32(group($0)) }, .int32, [k]))) }
            return (tensors, made.dense)
        }
    }

    private static let awq = StoredEncoder(
        description: "awq", config: ["quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": true, "version": "GEMM"]
    ) { module, weight, n, k in
        let made = Groups(weight, n, k, count: k / 32, bits: 4, symmetric: false) { $0 / 32 }
        func packed(_ rows: [[Int]]) -> [UInt32] {
            // Of eight codes, the third is the second in its word.
            words(rows.map { row in row.indices.map { row[$0 / 8 * 8 + [0, 2, 4, 6, 1, 3, 5, 7][$0 % 8]] } }, bits: 4)
        }
        return (
            [
                ("\(module).qweight", .host(packed(transposed(made.codes)), .int32, [k, n / 8])),
                ("\(module).qzeros", .host(packed(transposed(made.zeros)), .int32, [k / 32, n / 8])),
                ("\(module).scales", .host(transposed(made.scales).flatMap { $0 }, .float16, [k / 32, n])),
            ], made.dense
        )
    }

    private static func gptq(version: Int, sorted: Bool) -> StoredEncoder {
        StoredEncoder(
            description: "gptq v\(version)",
            config: [
                "quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": .bool(sorted),
                "checkpoint_format": version == 2 ? "gptq_v2" : "gptq",
            ]
        ) { module, weight, n, k in
            let count = k / 32
            let group: (Int) -> Int = sorted ? { $0 * 7 % k % count } : { $0 / 32 }
            let made = Groups(weight, n, k, count: count, bits: 4, symmetric: false, group: group)
            let zeros = transposed(made.zeros).map { row in row.map { version == 2 ? $0 : ($0 - 1) & 15 } }
            let columns = transposed(words(made.codes, bits: 4).chunks(of: k / 8))
            var tensors: Tensors = [
                ("\(module).qweight", .host(columns.flatMap { $0 }, .int32, [k / 8, n])),
                ("\(module).qzeros", .host(words(zeros, bits: 4), .int32, [count, n / 8])),
                ("\(module).scales", .host(transposed(made.scales).flatMap { $0 }, .float16, [count, n])),
            ]
            if sorted { tensors.append(("\(module).g_idx", .host((0..<k).map { Int32(group($0)) }, .int32, [k]))) }
            return (tensors, made.dense)
        }
    }
}

extension Array {
    fileprivate func chunks(of size: Int) -> [[Element]] {
        stride(from: 0, to: count, by: size).map { Array(self[$0..<Swift.min($0 + size, count)]) }
    }
}
