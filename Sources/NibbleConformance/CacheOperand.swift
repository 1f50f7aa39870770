internal import NibbleCore

/// A cache on the backend, and the values it held at first.
struct CacheOperand {
    let cache: KeyValueCache
    var keys: [Double]
    var values: [Double]
    private let keyBytes: [UInt8]
    private let valueBytes: [UInt8]

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
        keyBytes = try context.bytes(of: keys.tensor)
        valueBytes = try context.bytes(of: values.tensor)
    }

    /// Compares every byte of the cache with what it was, except for the vectors of `written` slots: an operation that writes
    /// beyond its own vectors disturbs other tokens.
    func neighbours(_ context: OperationContext, written: [(block: Int, slot: Int)]) throws -> OperationResult {
        func compare(_ tensor: Tensor, _ before: [UInt8], size: Int, name: String) throws -> OperationResult {
            var (got, wanted) = (try context.bytes(of: tensor), before)
            for place in written {
                for head in 0..<cache.geometry.heads {
                    for range in byteRanges(place, head: head, size: size) {
                        for index in range { (got[index], wanted[index]) = (0, 0) }
                    }
                }
            }
            guard let place = got.indices.first(where: { got[$0] != wanted[$0] }) else {
                return OperationResult(worstError: 0, tolerance: 0)
            }
            return OperationResult(
                worstError: .infinity, tolerance: 0, detail: "byte \(place) of the \(name) belongs to a vector no token writes")
        }
        return try compare(cache.keys, keyBytes, size: cache.geometry.keySize, name: "keys")
            .and(try compare(cache.values, valueBytes, size: cache.geometry.valueSize, name: "values"))
    }

    /// The bytes of one head's vector: its elements, or its codes and scales.
    private func byteRanges(_ place: (block: Int, slot: Int), head: Int, size: Int) -> [Range<Int>] {
        guard let quantization = cache.geometry.quantization else {
            let bytes = size * cache.geometry.dtype.byteCount
            let start = CacheOperand.offset(place, head: head, heads: cache.geometry.heads, size: bytes)
            return [start..<start + bytes]
        }
        let slots = KeyValueGeometry.blockSize
        let (codes, scales) = (quantization.codeBytes(size), 4 * quantization.groups(size))
        let panel = (place.block * cache.geometry.heads + head) * slots * (codes + scales)
        let firstCode = panel + place.slot * codes
        let firstScale = panel + slots * codes + place.slot * scales
        return [firstCode..<firstCode + codes, firstScale..<firstScale + scales]
    }

    /// The index of the first element of one head's vector in a slot.
    static func offset(_ place: (block: Int, slot: Int), head: Int, heads: Int, size: Int) -> Int {
        ((place.block * heads + head) * KeyValueGeometry.blockSize + place.slot) * size
    }

    /// What the backend's keys (or values) hold now.
    func held(_ context: OperationContext, _ tensor: Tensor, size: Int) throws -> [Double] {
        guard let quantization = cache.geometry.quantization else { return try context.values(of: tensor) }
        return QuantizedVectors(quantization, size: size).values(try context.bytes(of: tensor))
    }

    /// Compares what is held with `wanted`. Elements of a quantized cache may differ by the rounding to codes, and by `tolerance`
    /// before it.
    func compare(got: [Double], wanted: [Double], before: [Double], size: Int, tolerance: Double) -> OperationResult {
        guard let quantization = cache.geometry.quantization else {
            return OperationResult(got: got, wanted: wanted, tolerance: tolerance)
        }
        var worst = OperationResult(worstError: 0, tolerance: 1)
        for start in stride(from: 0, to: wanted.count, by: size) {
            let vector = start..<start + size
            if wanted[vector] == before[vector] { continue }
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

/// The plain form of a quantized cache's bytes.
struct QuantizedVectors {
    let quantization: KeyValueQuantization
    /// D
    let size: Int

    init(_ quantization: KeyValueQuantization, size: Int) {
        self.quantization = quantization
        self.size = size
    }

    private var panelBytes: Int { KeyValueGeometry.blockSize * quantization.byteCount(size) }

    /// Random codes, with scales and minima that make values about as large as those of a dense operand.
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
