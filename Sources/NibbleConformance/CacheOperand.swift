internal import NibbleCore

/// A cache on the backend with the values it holds.
struct CacheOperand {
    let cache: KeyValueCache
    let keys: [Double]
    let values: [Double]

    init(_ context: OperationContext, _ geometry: KeyValueGeometry, blocks: Int, seed: UInt64) throws {
        func operand(_ size: Int, _ seed: UInt64) throws -> OperationContext.Operand {
            let shape = geometry.shape(blocks: blocks, size: size)
            guard let quantization = geometry.quantization else {
                return try context.random(geometry.dtype, shape, seed: seed)
            }
            let codes = QuantizedVectors(quantization, size: size)
            let bytes = codes.random(panels: blocks * geometry.heads, seed: seed)
            return .init(tensor: try context.upload(.host(bytes, .uint8, shape)), values: codes.values(bytes))
        }
        let keys = try operand(geometry.keySize, seed)
        let values = try operand(geometry.valueSize, seed + 1)
        cache = KeyValueCache(geometry: geometry, keys: keys.tensor, values: values.tensor)
        self.keys = keys.values
        self.values = values.values
    }

    /// Where the elements of one head begin at a slot.
    static func offset(_ place: (block: Int, slot: Int), head: Int, heads: Int, size: Int) -> Int {
        ((place.block * heads + head) * KeyValueGeometry.blockSize + place.slot) * size
    }

    /// What the backend's keys (or values) hold now.
    func held(_ context: OperationContext, _ tensor: Tensor, size: Int) throws -> [Double] {
        guard let quantization = cache.geometry.quantization else { return try context.values(of: tensor) }
        return QuantizedVectors(quantization, size: size).values(try context.bytes(of: tensor))
    }

    /// Compares what is held with `wanted`: vectors equal to `before` must be untouched, others may differ by the rounding to
    /// codes, and by `tolerance` before it.
    func compare(got: [Double], wanted: [Double], before: [Double], size: Int, tolerance: Double) -> OperationResult {
        guard let quantization = cache.geometry.quantization else {
            return OperationResult(got: got, wanted: wanted, tolerance: tolerance)
        }
        var worst = OperationResult(worstError: 0, tolerance: 1)
        for start in stride(from: 0, to: wanted.count, by: size) {
            let vector = start..<start + size
            if wanted[vector] == before[vector] {
                worst = worst.and(OperationResult(got: Array(got[vector]), wanted: Array(wanted[vector]), tolerance: 0))
                continue
            }
            for first in stride(from: start, to: start + size, by: quantization.groupSize) {
                let group = first..<min(first + quantization.groupSize, start + size)
                let bound = quantization.bound(wanted[group], tolerance: tolerance)
                let errors = group.map { abs(got[$0] - wanted[$0]) / bound }
                let error = errors.contains(where: \.isNaN) ? .infinity : errors.max() ?? 0
                worst = worst.and(OperationResult(worstError: error, tolerance: 1, detail: "elements \(group), bound \(bound)"))
            }
        }
        return worst
    }
}

/// The plain reference of a quantized cache's bytes.
struct QuantizedVectors {
    let quantization: KeyValueQuantization
    /// D
    let size: Int

    init(_ quantization: KeyValueQuantization, size: Int) {
        self.quantization = quantization
        self.size = size
    }

    private var panelBytes: Int { KeyValueGeometry.blockSize * quantization.byteCount(size) }

    /// Codes as they come; scales and minima such that values are about as large as those of a dense operand.
    func random(panels: Int, seed: UInt64) -> [UInt8] {
        let codeBytes = KeyValueGeometry.blockSize * quantization.codeBytes(size)
        let start = RandomStream.mix(seed)
        var bytes = (0..<panels * panelBytes).map { UInt8(truncatingIfNeeded: RandomStream.mix(start ^ UInt64($0))) }
        let numbers = HostValues.random(panels * panelBytes, seed: seed + 100)
        for panel in 0..<panels {
            for pair in stride(from: panel * panelBytes + codeBytes, to: (panel + 1) * panelBytes, by: 4) {
                let width = 2 + abs(numbers[pair])
                let scale = Half(rounding: width / Float(1 << quantization.bits - 1))
                let minimum = Half(rounding: numbers[pair + 1] - width / 2)
                for (offset, half) in [(0, scale), (2, minimum)] {
                    bytes[pair + offset] = UInt8(truncatingIfNeeded: half.bits)
                    bytes[pair + offset + 1] = UInt8(half.bits >> 8)
                }
            }
        }
        return bytes
    }

    /// [panels, 32, D]
    func values(_ bytes: [UInt8]) -> [Double] {
        let (rowBytes, groups, perByte) = (quantization.codeBytes(size), quantization.groups(size), 8 / quantization.bits)
        var values: [Double] = []
        for panel in stride(from: 0, to: bytes.count, by: panelBytes) {
            for slot in 0..<KeyValueGeometry.blockSize {
                var codes = panel + slot * rowBytes
                for group in 0..<groups {
                    let count = min(quantization.groupSize, size - group * quantization.groupSize)
                    let groupBytes = (count + perByte - 1) / perByte
                    let pair = panel + KeyValueGeometry.blockSize * rowBytes + (slot * groups + group) * 4
                    let (scale, minimum) = (half(bytes, pair), half(bytes, pair + 2))
                    for index in 0..<count {
                        let shifted = Int(bytes[codes + index % groupBytes]) >> (index / groupBytes * quantization.bits)
                        values.append(minimum + Double(shifted & (1 << quantization.bits - 1)) * scale)
                    }
                    codes += groupBytes
                }
            }
        }
        return values
    }

    private func half(_ bytes: [UInt8], _ place: Int) -> Double {
        Half(bits: UInt16(bytes[place]) | UInt16(bytes[place + 1]) << 8).value
    }
}

extension KeyValueQuantization {
    /// How far a stored group may be from `values`: half a step, the roundings of scale and minimum, and `tolerance` of the
    /// values themselves.
    func bound(_ values: ArraySlice<Double>, tolerance: Double) -> Double {
        let (least, largest) = (values.min() ?? 0, values.max() ?? 0)
        let magnitude = max(abs(least), abs(largest))
        return (largest - least) / Double(1 << bits - 1) * 0.5 + magnitude * (0x1p-10 + 2 * tolerance) + 1e-7
    }
}
