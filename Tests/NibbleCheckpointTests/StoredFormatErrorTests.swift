import Foundation
import NibbleCheckpoint
import NibbleCore
import NibbleTestSupport
import Testing

/// Tensors of stored forms that do not fit each other, and configs that mean nothing.
@Suite struct StoredFormatErrorTests {
    /// A checkpoint, its config, and what the error says of it.
    struct Bad: Sendable, CustomStringConvertible {
        let description: String
        let config: JSONValue
        let tensors: [(name: String, tensor: Tensor)]
        /// The tensor at fault.
        let tensor: String
        let expected: String
        let found: String
    }

    private static let fp8: JSONValue = ["quant_method": "fp8", "weight_block_size": [16, 16]]
    private static let codes = Tensor.host([UInt8](repeating: 0x38, count: 32 * 48), .float8E4M3, [32, 48])
    private static func words(_ shape: Shape) -> Tensor { .host([UInt32](repeating: 7, count: shape.count), .int32, shape) }
    private static func bytes(_ shape: Shape) -> Tensor { .host([UInt8](repeating: 7, count: shape.count), .uint8, shape) }
    private static func floats(_ shape: Shape, _ value: Float = 1) -> Tensor {
        .host([Float](repeating: value, count: shape.count), .float32, shape)
    }
    private static func halves(_ shape: Shape) -> Tensor { .host([Float16](repeating: 1, count: shape.count), .float16, shape) }
    private static func groups(_ weights: JSONValue) -> JSONValue {
        [
            "quant_method": "compressed-tensors", "format": "pack-quantized",
            "config_groups": ["g": ["targets": ["Linear"], "weights": weights]],
        ]
    }
    private static let packed = groups(["num_bits": 4, "type": "int", "strategy": "group", "group_size": 16, "symmetric": false])
    private static let shape = Tensor.host([Int64(8), 32], .int64, [2])
    private static let gptq: JSONValue = ["quant_method": "gptq", "bits": 4, "group_size": 16]
    private static let awq: JSONValue = ["quant_method": "awq", "bits": 4, "group_size": 16, "version": "gemm"]
    private static let nvfp4: JSONValue = ["quant_method": "modelopt", "quant_algo": "NVFP4"]

    static let all: [Bad] = [
        Bad(
            description: "fp8 without scale", config: fp8, tensors: [("m.weight", codes)], tensor: "m.weight",
            expected: "a scale beside it", found: "none"),
        Bad(
            description: "fp8 scales of another shape", config: fp8,
            tensors: [("m.weight", codes), ("m.weight_scale_inv", floats([2, 4]))], tensor: "m.weight_scale_inv",
            expected: "16 × 16", found: "[2, 4]"),
        Bad(
            description: "fp8 scales transposed", config: fp8,
            tensors: [("m.weight", codes), ("m.weight_scale_inv", floats([3, 2]))], tensor: "m.weight_scale_inv",
            expected: "16 × 16", found: "[3, 2]"),
        Bad(
            description: "fp8 integer scales", config: fp8,
            tensors: [("m.weight", codes), ("m.weight_scale_inv", words([2, 3]))], tensor: "m.weight_scale_inv",
            expected: "float32", found: "int32"),
        Bad(
            description: "fp8 NaN scale", config: fp8,
            tensors: [("m.weight", codes), ("m.weight_scale_inv", floats([2, 3], .nan))], tensor: "m.weight_scale_inv",
            expected: "finite", found: "nan at 0"),
        Bad(
            description: "fp8 infinite scale", config: fp8,
            tensors: [("m.weight", codes), ("m.weight_scale", floats([], .infinity))], tensor: "m.weight_scale",
            expected: "finite", found: "inf"),
        Bad(
            description: "mxfp4 without scales", config: ["quant_method": "mxfp4"],
            tensors: [("m.weight_blocks", bytes([2, 4, 1, 16]))], tensor: "m.weight_scales", expected: "no tensor",
            found: "safetensors"),
        Bad(
            description: "mxfp4 scales of another shape", config: ["quant_method": "mxfp4"],
            tensors: [("m.weight_blocks", bytes([2, 4, 1, 16])), ("m.weight_scales", bytes([2, 4, 2]))],
            tensor: "m.weight_scales", expected: "[2, 4, 1]", found: "[2, 4, 2]"),
        Bad(
            description: "mxfp4 short blocks", config: ["quant_method": "mxfp4"],
            tensors: [("m.weight_blocks", bytes([2, 4, 1, 8])), ("m.weight_scales", bytes([2, 4, 1]))], tensor: "m.weight_blocks",
            expected: "16]", found: "[2, 4, 1, 8]"),
        Bad(
            description: "mxfp4 NaN scale", config: ["quant_method": "mxfp4"],
            tensors: [("m.weight_blocks", bytes([1, 1, 1, 16])), ("m.weight_scales", .host([UInt8(255)], .uint8, [1, 1, 1]))],
            tensor: "m.weight_scales", expected: "finite", found: "nan"),
        Bad(
            description: "packed without shape", config: packed,
            tensors: [("m.weight_packed", words([8, 4])), ("m.weight_scale", halves([8, 2]))], tensor: "m.weight_shape",
            expected: "no tensor", found: "safetensors"),
        Bad(
            description: "packed without zero points", config: packed,
            tensors: [("m.weight_packed", words([8, 4])), ("m.weight_shape", shape), ("m.weight_scale", halves([8, 2]))],
            tensor: "m.weight_zero_point", expected: "no tensor", found: "safetensors"),
        Bad(
            description: "packed of another width", config: packed,
            tensors: [
                ("m.weight_packed", words([8, 5])), ("m.weight_shape", shape), ("m.weight_scale", halves([8, 2])),
                ("m.weight_zero_point", words([1, 2])),
            ], tensor: "m.weight_packed", expected: "[8, 4]", found: "[8, 5]"),
        Bad(
            description: "packed groups of another size", config: packed,
            tensors: [
                ("m.weight_packed", words([8, 4])), ("m.weight_shape", shape), ("m.weight_scale", halves([8, 4])),
                ("m.weight_zero_point", words([1, 4])),
            ], tensor: "m.weight_scale", expected: "1 × 16", found: "[8, 4]"),
        Bad(
            description: "packed with a negative shape", config: packed,
            tensors: [("m.weight_packed", words([8, 4])), ("m.weight_shape", .host([Int64(-8), 32], .int64, [2]))],
            tensor: "m.weight_shape", expected: "two extents", found: "-8"),
        Bad(
            description: "packed with a group that is none", config: packed,
            tensors: [
                ("m.weight_packed", words([8, 4])), ("m.weight_shape", shape), ("m.weight_scale", halves([8, 2])),
                ("m.weight_zero_point", words([1, 2])), ("m.weight_g_idx", .host([Int32](repeating: 2, count: 32), .int32, [32])),
            ], tensor: "m.weight_g_idx", expected: "from 0 to 1", found: "2 at 0"),
        Bad(
            description: "nvfp4 without global scale", config: nvfp4,
            tensors: [
                ("m.weight", bytes([4, 16])), ("m.weight_scale", .host([UInt8](repeating: 56, count: 8), .float8E4M3, [4, 2])),
            ], tensor: "m.weight_scale_2", expected: "no tensor", found: "safetensors"),
        Bad(
            description: "nvfp4 groups of 8", config: nvfp4,
            tensors: [
                ("m.weight", bytes([4, 16])), ("m.weight_scale", .host([UInt8](repeating: 56, count: 16), .float8E4M3, [4, 4])),
                ("m.weight_scale_2", floats([])),
            ], tensor: "m.weight_scale", expected: "1 × 16", found: "[4, 4]"),
        Bad(
            description: "awq without scales", config: awq,
            tensors: [("m.qweight", words([32, 2])), ("m.qzeros", words([2, 2]))], tensor: "m.scales", expected: "no tensor",
            found: "safetensors"),
        Bad(
            description: "awq groups of another size", config: awq,
            tensors: [("m.qweight", words([32, 2])), ("m.qzeros", words([4, 2])), ("m.scales", halves([4, 16]))],
            tensor: "m.qzeros", expected: "[2, 2]", found: "[4, 2]"),
        Bad(
            description: "gptq without zero points", config: gptq,
            tensors: [("m.qweight", words([4, 16])), ("m.scales", halves([2, 16]))], tensor: "m.qzeros", expected: "no tensor",
            found: "safetensors"),
        Bad(
            description: "gptq scales of another shape", config: gptq,
            tensors: [("m.qweight", words([4, 16])), ("m.qzeros", words([2, 2])), ("m.scales", halves([16, 2]))],
            tensor: "m.scales", expected: "[2, 16]", found: "[16, 2]"),
        Bad(
            description: "gptq with a group that is none", config: gptq,
            tensors: [
                ("m.qweight", words([4, 16])), ("m.qzeros", words([2, 2])), ("m.scales", halves([2, 16])),
                ("m.g_idx", .host([Int32](repeating: -3, count: 32), .int32, [32])),
            ], tensor: "m.g_idx", expected: "from 0 to 1", found: "-3 at 0"),
        Bad(
            description: "int8 without scale", config: groups(["num_bits": 8, "type": "int", "strategy": "channel"]),
            tensors: [("m.weight", .host([Int8](repeating: 1, count: 64), .int8, [4, 16]))], tensor: "m.weight",
            expected: "a scale beside it", found: "none"),
    ]

    private static func scale8(_ count: Int, _ shape: Shape, _ code: UInt8 = 56) -> Tensor {
        .host([UInt8](repeating: code, count: count), .float8E4M3, shape)
    }
    private static func halves(_ shape: Shape, _ value: Float16) -> Tensor {
        .host([Float16](repeating: value, count: shape.count), .float16, shape)
    }
    private static let int8: JSONValue = groups(["num_bits": 8, "type": "int", "strategy": "channel", "symmetric": false])
    private static let bytes8 = Tensor.host([Int8](repeating: 1, count: 64), .int8, [4, 16])
    private static let nvfp4Packed: JSONValue = [
        "quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized",
        "config_groups": ["g": ["targets": ["Linear"], "weights": ["num_bits": 4, "type": "float", "group_size": 16]]],
    ]
    private static func packedTensors(_ changed: (name: String, tensor: Tensor)) -> [(name: String, tensor: Tensor)] {
        let all = [
            ("m.weight_packed", words([8, 4])), ("m.weight_shape", shape), ("m.weight_scale", halves([8, 2])),
            ("m.weight_zero_point", words([1, 2])),
        ]
        return all.filter { $0.0 != changed.name } + [changed]
    }
    private static func gptqTensors(_ changed: (name: String, tensor: Tensor)...) -> [(name: String, tensor: Tensor)] {
        let all = [("m.qweight", words([4, 16])), ("m.qzeros", words([2, 2])), ("m.scales", halves([2, 16]))]
        return all.filter { entry in !changed.contains { $0.name == entry.0 } } + changed
    }
    private static func awqTensors(_ changed: (name: String, tensor: Tensor)) -> [(name: String, tensor: Tensor)] {
        let all = [("m.qweight", words([32, 2])), ("m.qzeros", words([2, 2])), ("m.scales", halves([2, 16]))]
        return all.filter { $0.0 != changed.name } + [changed]
    }

    static let more: [Bad] = [
        Bad(
            description: "fp8 scales of a block that does not divide, one too few", config: fp8,
            tensors: [
                ("m.weight", .host([UInt8](repeating: 0x38, count: 33 * 48), .float8E4M3, [33, 48])),
                ("m.weight_scale_inv", floats([2, 3])),
            ], tensor: "m.weight_scale_inv", expected: "16 × 16", found: "[2, 3]"),
        Bad(
            description: "fp8 scales of three axes", config: fp8,
            tensors: [("m.weight", codes), ("m.weight_scale_inv", floats([1, 2, 3]))], tensor: "m.weight_scale_inv",
            expected: "16 × 16", found: "[1, 2, 3]"),
        Bad(
            description: "fp8 scales in fp8", config: fp8,
            tensors: [("m.weight", codes), ("m.weight_scale_inv", scale8(6, [2, 3]))], tensor: "m.weight_scale_inv",
            expected: "float32", found: "float8"),
        Bad(
            description: "fp8 no scales at all", config: fp8,
            tensors: [("m.weight", codes), ("m.weight_scale_inv", floats([0, 3]))], tensor: "m.weight_scale_inv",
            expected: "16 × 16", found: "[0, 3]"),
        Bad(
            description: "int8 without a group",
            config: [
                "quant_method": "compressed-tensors", "format": "int-quantized",
                "config_groups": [
                    "a": ["targets": ["re:.*other"], "weights": ["num_bits": 8]],
                    "b": ["targets": ["else"], "weights": ["num_bits": 8]],
                ],
            ], tensors: [("m.weight", bytes8), ("m.weight_scale", floats([4, 1]))], tensor: "m.weight",
            expected: "among its targets", found: "none"),
        Bad(
            description: "int8 zero points of another shape", config: int8,
            tensors: [
                ("m.weight", bytes8), ("m.weight_scale", floats([4, 1])),
                ("m.weight_zero_point", .host([Int8](repeating: 1, count: 8), .int8, [8, 1])),
            ], tensor: "m.weight_zero_point", expected: "[4, 1]", found: "[8, 1]"),
        Bad(
            description: "int8 zero points in floats", config: int8,
            tensors: [("m.weight", bytes8), ("m.weight_scale", floats([4, 1])), ("m.weight_zero_point", floats([4, 1]))],
            tensor: "m.weight_zero_point", expected: "int8", found: "float32"),
        Bad(
            description: "mxfp4 codes in another dtype", config: ["quant_method": "mxfp4"],
            tensors: [("m.weight_blocks", words([2, 4, 1, 16])), ("m.weight_scales", bytes([2, 4, 1]))],
            tensor: "m.weight_blocks", expected: "uint8", found: "int32"),
        Bad(
            description: "mxfp4 scales in floats", config: ["quant_method": "mxfp4"],
            tensors: [("m.weight_blocks", bytes([2, 4, 1, 16])), ("m.weight_scales", floats([2, 4, 1]))],
            tensor: "m.weight_scales", expected: "uint8", found: "float32"),
        Bad(
            description: "mxfp4 of one matrix", config: ["quant_method": "mxfp4"],
            tensors: [("m.weight_blocks", bytes([4, 1, 16])), ("m.weight_scales", bytes([4, 1]))], tensor: "m.weight_blocks",
            expected: "[experts, N, K/32, 16]", found: "[4, 1, 16]"),
        Bad(
            description: "packed scale NaN", config: packed, tensors: packedTensors(("m.weight_scale", halves([8, 2], .nan))),
            tensor: "m.weight_scale", expected: "finite", found: "nan at 0"),
        Bad(
            description: "packed shape of three extents", config: packed,
            tensors: packedTensors(("m.weight_shape", .host([Int64(8), 32, 1], .int64, [3]))), tensor: "m.weight_shape",
            expected: "2 elements", found: "[3]"),
        Bad(
            description: "packed shape in floats", config: packed,
            tensors: packedTensors(("m.weight_shape", floats([2]))), tensor: "m.weight_shape", expected: "int64",
            found: "float32"),
        Bad(
            description: "packed shape beyond all memory", config: packed,
            tensors: packedTensors(("m.weight_shape", .host([Int64.max, 32], .int64, [2]))), tensor: "m.weight_shape",
            expected: "two extents", found: "9223372036854775807"),
        Bad(
            description: "packed zero points of another shape", config: packed,
            tensors: packedTensors(("m.weight_zero_point", words([8, 2]))), tensor: "m.weight_zero_point", expected: "[1, 2]",
            found: "[8, 2]"),
        Bad(
            description: "packed group index too short", config: packed,
            tensors: packedTensors(("m.weight_g_idx", .host([Int32](repeating: 0, count: 31), .int32, [31]))),
            tensor: "m.weight_g_idx", expected: "[32]", found: "[31]"),
        Bad(
            description: "packed codes in floats", config: packed, tensors: packedTensors(("m.weight_packed", floats([8, 4]))),
            tensor: "m.weight_packed", expected: "int32", found: "float32"),
        Bad(
            description: "nvfp4 NaN scale", config: nvfp4,
            tensors: [
                ("m.weight", bytes([4, 16])), ("m.weight_scale", scale8(8, [4, 2], 127)), ("m.weight_scale_2", floats([])),
            ], tensor: "m.weight_scale", expected: "finite", found: "nan at 0"),
        Bad(
            description: "nvfp4 NaN global scale", config: nvfp4,
            tensors: [
                ("m.weight", bytes([4, 16])), ("m.weight_scale", scale8(8, [4, 2])), ("m.weight_scale_2", floats([], .nan)),
            ], tensor: "m.weight_scale_2", expected: "finite", found: "nan"),
        Bad(
            description: "nvfp4 two global scales", config: nvfp4,
            tensors: [
                ("m.weight", bytes([4, 16])), ("m.weight_scale", scale8(8, [4, 2])), ("m.weight_scale_2", floats([2])),
            ], tensor: "m.weight_scale_2", expected: "1 element", found: "[2]"),
        Bad(
            description: "nvfp4 scales in floats", config: nvfp4,
            tensors: [("m.weight", bytes([4, 16])), ("m.weight_scale", floats([4, 2])), ("m.weight_scale_2", floats([]))],
            tensor: "m.weight_scale", expected: "float8", found: "float32"),
        Bad(
            description: "nvfp4 divided by zero", config: nvfp4Packed,
            tensors: [
                ("m.weight_packed", bytes([4, 16])), ("m.weight_scale", scale8(8, [4, 2])),
                ("m.weight_global_scale", floats([1], 0)),
            ], tensor: "m.weight_global_scale", expected: "finite", found: "inf for group 0"),
        Bad(
            description: "nvfp4 codes in another dtype", config: nvfp4Packed,
            tensors: [
                ("m.weight_packed", words([4, 4])), ("m.weight_scale", scale8(8, [4, 2])),
                ("m.weight_global_scale", floats([1])),
            ], tensor: "m.weight_packed", expected: "uint8", found: "int32"),
        Bad(
            description: "awq infinite scale", config: awq, tensors: awqTensors(("m.scales", halves([2, 16], .infinity))),
            tensor: "m.scales", expected: "finite", found: "inf at 0"),
        Bad(
            description: "awq codes of 16 bits", config: awq, tensors: awqTensors(("m.qweight", halves([32, 2]))),
            tensor: "m.qweight", expected: "int32", found: "float16"),
        Bad(
            description: "awq scales of the words", config: awq, tensors: awqTensors(("m.scales", halves([2, 2]))),
            tensor: "m.scales", expected: "[2, 16]", found: "[2, 2]"),
        Bad(
            description: "awq groups that do not divide", config: awq,
            tensors: [("m.qweight", words([40, 2])), ("m.qzeros", words([2, 2])), ("m.scales", halves([2, 16]))],
            tensor: "m.qzeros", expected: "[3, 2]", found: "[2, 2]"),
        Bad(
            description: "gptq NaN scale", config: gptq, tensors: gptqTensors(("m.scales", halves([2, 16], .nan))),
            tensor: "m.scales", expected: "finite", found: "nan at 0"),
        Bad(
            description: "gptq zero points of one axis", config: gptq, tensors: gptqTensors(("m.qzeros", words([4]))),
            tensor: "m.qzeros", expected: "[groups", found: "[4]"),
        Bad(
            description: "gptq group index in floats", config: gptq, tensors: gptqTensors(("m.g_idx", floats([32]))),
            tensor: "m.g_idx", expected: "int32", found: "float32"),
        Bad(
            description: "gptq group index too long", config: gptq,
            tensors: gptqTensors(("m.g_idx", .host([Int32](repeating: 0, count: 33), .int32, [33]))), tensor: "m.g_idx",
            expected: "[32]", found: "[33]"),
        Bad(
            description: "gptq rows that fill no word", config: gptq,
            tensors: gptqTensors(("m.qweight", words([4, 12])), ("m.qzeros", words([2, 1])), ("m.scales", halves([2, 12]))),
            tensor: "m.qweight", expected: "multiple of 8", found: "[4, 12]"),
        Bad(
            description: "gptq without groups", config: ["quant_method": "gptq", "bits": 4, "dynamic": ["a": [:]]],
            tensors: gptqTensors(("m.qzeros", words([0, 2])), ("m.scales", halves([0, 16]))), tensor: "m.qzeros",
            expected: "each group", found: "[0, 2]"),
        Bad(
            description: "gptq too few groups for columns in order", config: gptq,
            tensors: gptqTensors(
                ("m.qzeros", words([1, 2])), ("m.scales", halves([1, 16])),
                ("m.g_idx", .host([Int32](repeating: -1, count: 32), .int32, [32]))), tensor: "m.scales",
            expected: "2 groups of 16", found: "1"),
    ]

    @Test("what does not fit is an error that names it", arguments: all + more)
    func tensors(bad: Bad) throws {
        let folder = try TemporaryFolder()
        let url = folder.url.appending(path: "model.safetensors")
        try SafetensorsWriter().write(bad.tensors, to: url)
        let format = try #require(try StoredFormat(bad.config.object ?? JSONObject(), file: "config.json"))
        let checkpoint = DequantizedCheckpoint(try SafetensorsFile(url), format, dtype: .float32)
        expectCheckpointError(naming: url, containing: bad.tensor, bad.expected, bad.found) { try checkpoint.tensor("m.weight") }
        #expect(checkpoint.unreadableNames + checkpoint.names.filter { $0 == "m.weight" } == ["m.weight"])
    }

    @Test(
        "configs that mean nothing are errors that name the field",
        arguments: [
            (["quant_method": "fp8", "weight_block_size": [128]], "weight_block_size"),
            (["quant_method": "fp8", "weight_block_size": [0, 128]], "weight_block_size"),
            (["quant_method": "fp8", "weight_block_size": "all"], "weight_block_size"),
            (["quant_method": 8], "quant_method"),
            (["quant_method": "gptq", "bits": 4, "group_size": 0], "group_size"),
            (["quant_method": "gptq", "bits": 4, "group_size": -2], "group_size"),
            (["quant_method": "gptq", "bits": "four"], "bits"),
            (["quant_method": "gptq", "bits": 3], "3 bits"),
            (["quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"], "marlin"),
            (["quant_method": "awq", "version": "gemv"], "gemv"),
            (["quant_method": "awq", "bits": 3], "3 bits"),
            (["quant_method": "awq", "group_size": 1.5], "group_size"),
            (["quant_method": "modelopt", "quant_algo": "W4A8_AWQ"], "W4A8_AWQ"),
            (["quant_method": "compressed-tensors", "format": "marlin-24", "config_groups": [:]], "marlin-24"),
            (["quant_method": "compressed-tensors", "format": "pack-quantized"], "config_groups"),
            (["quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": []], "config_groups"),
            (groups(["num_bits": 4, "strategy": "group"]), "group_size"),
            (groups(["num_bits": 4, "strategy": "spiral"]), "strategy"),
            (groups(["num_bits": 3, "strategy": "channel"]), "3 bits"),
            (groups(["num_bits": 8, "strategy": "block"]), "block_structure"),
            (groups(["num_bits": 8, "type": "complex"]), "type"),
            (
                [
                    "quant_method": "compressed-tensors", "format": "float-quantized",
                    "config_groups": ["g": ["targets": ["re:("], "weights": ["num_bits": 8]]],
                ], "targets"
            ),
            (
                [
                    "quant_method": "compressed-tensors", "format": "dense", "sparsity_config": ["format": "sparse-24-bitmask"],
                    "config_groups": [:],
                ], "sparse-24-bitmask"
            ),
        ] as [(JSONValue, String)])
    func configs(config: JSONValue, word: String) throws {
        let error = #expect(throws: CheckpointError.self) {
            try StoredFormat(config.object ?? JSONObject(), file: "/m/config.json")
        }
        #expect(
            error?.description.contains("/m/config.json") == true && error?.description.contains(word) == true, "\(error as Any)")
    }

    @Test("a group is found by name, then by pattern, then by class")
    func targets() throws {
        func group(_ targets: [JSONValue], _ size: Int) -> JSONValue {
            [
                "targets": .array(targets),
                "weights": ["num_bits": 4, "type": "int", "strategy": "group", "group_size": .int(size), "symmetric": true],
            ]
        }
        let config: JSONValue = [
            "quant_method": "compressed-tensors", "format": "mixed-precision",
            "config_groups": [
                "a": group(["Linear"], 8), "b": group(["re:.*down"], 16), "c": group(["x.down"], 32), "d": ["weights": nil],
            ],
        ]
        let format = try #require(try StoredFormat(config.object ?? JSONObject(), file: "config.json"))
        let folder = try TemporaryFolder()
        let url = folder.url.appending(path: "model.safetensors")
        let modules = [("x.up", 4), ("y.down", 2), ("x.down", 1)]
        try SafetensorsWriter().write(
            modules.flatMap { name, count in
                [
                    (name: "\(name).weight_packed", tensor: Self.words([8, 4])),
                    (name: "\(name).weight_shape", tensor: Self.shape),
                    (name: "\(name).weight_scale", tensor: Self.halves([8, count])),
                ]
            }, to: url)
        let checkpoint = DequantizedCheckpoint(try SafetensorsFile(url), format, dtype: .float32)
        #expect(checkpoint.names.count == 3 && checkpoint.unreadableNames.isEmpty)
        for (name, _) in modules { #expect(try checkpoint.tensor("\(name).weight").floats.prefix(2) == [-1, -8]) }
    }
}
