internal import Foundation
package import NibbleCore

/// A backend for a case, with uploads and downloads.
package struct OperationContext {
    package let backend: any Backend
    /// The dtype of activations on this backend.
    package let activation: DType

    package init(backend: any Backend, activation: DType) {
        self.backend = backend
        self.activation = activation
    }

    /// A tensor on the backend, and the values it holds after rounding to its dtype.
    package struct Operand {
        package let tensor: Tensor
        package let values: [Double]
    }

    /// Uploads `values`, rounded to `dtype`.
    @inline(never)
    package func operand(_ values: [Float], _ dtype: DType, _ shape: Shape) throws -> Operand {
        let host = HostValues.tensor(values, dtype, shape)
        return Operand(tensor: try upload(host), values: HostValues.values(host))
    }

    /// Deterministic values, roughly normal with standard deviation `scale` around `offset`.
    @inline(never)
    package func random(_ dtype: DType, _ shape: Shape, seed: UInt64, scale: Float = 1, offset: Float = 0) throws -> Operand {
        try operand(HostValues.random(shape.count, seed: seed, scale: scale, offset: offset), dtype, shape)
    }

    package func integers(_ values: [Int32], _ shape: Shape? = nil) throws -> Tensor {
        try upload(.host(values, .int32, shape ?? [values.count]))
    }

    /// Memory for a result, filled with NaN so that an element that is never written is noticed.
    package func output(_ dtype: DType, _ shape: Shape) throws -> Tensor {
        try upload(HostValues.tensor([Float](repeating: .nan, count: shape.count), dtype, shape))
    }

    @inline(never)
    package func upload(_ host: Tensor) throws -> Tensor {
        let tensor = try backend.allocate(host.dtype, host.shape)
        try backend.copy(host, to: tensor)
        return tensor
    }

    /// A float tensor's elements.
    package func values(of tensor: Tensor) throws -> [Double] { HostValues.values(try download(tensor)) }

    package func integers(of tensor: Tensor) throws -> [Int32] {
        let host = try download(tensor)
        return withExtendedLifetime(host) { Array(host.hostElements(Int32.self)) }
    }

    package func bytes(of tensor: Tensor) throws -> [UInt8] { HostValues.bytes(try download(tensor)) }

    /// The tensor, or a copy of it in host memory.
    func host(_ tensor: Tensor) throws -> Tensor { tensor.device == .cpu ? tensor : try download(tensor) }

    private func download(_ tensor: Tensor) throws -> Tensor {
        let host = Tensor.host(tensor.dtype, tensor.shape)
        try backend.read(tensor, into: host.mutableHostBytes)
        return host
    }

    /// The error allowed for a result of `steps` roundings to the activation dtype, with float32 arithmetic in between.
    package func tolerance(steps: Double = 1) -> Double { OperationContext.tolerance(activation, steps: steps) }

    package static func tolerance(_ dtype: DType, steps: Double = 1) -> Double {
        switch dtype {
        case .float16: steps * 0x1p-10
        case .bfloat16: steps * 0x1p-7
        default: steps * 1e-5
        }
    }
}

/// Float values in host tensors of any dtype.
package enum HostValues {
    /// Deterministic values: the sum of four uniform numbers of 16 bits, which is close enough to normal.
    @inline(never)
    package static func random(_ count: Int, seed: UInt64, scale: Float = 1, offset: Float = 0) -> [Float] {
        let start = RandomStream.mix(seed)
        let factor = scale * Float(3).squareRoot()
        return (0..<count).map { index in
            let bits = RandomStream.mix(start ^ UInt64(index))
            let sum = (bits & 0xFFFF) &+ (bits >> 16 & 0xFFFF) &+ (bits >> 32 & 0xFFFF) &+ (bits >> 48)
            return offset + factor * (Float(sum) * 0x1p-16 - 2)
        }
    }

    /// - Precondition: `dtype` is float32, float16, bfloat16 or float64.
    package static func tensor(_ values: [Float], _ dtype: DType, _ shape: Shape) -> Tensor {
        switch dtype {
        case .float64: .host(values.map(Double.init), dtype, shape)
        case .float16: .host(values.map(Half.init(rounding:)), dtype, shape)
        case .bfloat16: .host(values.map { BFloat16($0) }, dtype, shape)
        default: .host(values, dtype, shape)
        }
    }

    /// - Precondition: the tensor lies on the host.
    package static func bytes(_ tensor: Tensor) -> [UInt8] { withExtendedLifetime(tensor) { Array(tensor.hostBytes) } }

    /// - Precondition: the tensor lies on the host and has one of the dtypes of ``tensor(_:_:_:)``.
    package static func values(_ tensor: Tensor) -> [Double] {
        switch tensor.dtype {
        case .float64: Array(tensor.hostElements(Double.self))
        case .float16: tensor.hostElements(Half.self).map(\.value)
        case .bfloat16: tensor.hostElements(BFloat16.self).map { Double(Float($0)) }
        default: tensor.hostElements(Float.self).map(Double.init)
        }
    }
}

/// IEEE binary16 in plain integer arithmetic, so that it is the same on every platform.
struct Half: BitwiseCopyable {
    let bits: UInt16

    init(bits: UInt16) { self.bits = bits }

    /// To nearest, ties to even.
    init(rounding value: Float) {
        let sign = UInt16(truncatingIfNeeded: value.bitPattern >> 16) & 0x8000
        let size = Double(abs(value))
        if value.isNaN {
            bits = sign | 0x7E00
        } else if size >= 65520 {
            bits = sign | 0x7C00
        } else if size < 0x1p-14 {
            bits = sign | UInt16((size * 0x1p24).rounded(.toNearestOrEven))
        } else {
            let exponent = Int(size.exponent)
            let fraction = (scalbn(size, 10 - exponent)).rounded(.toNearestOrEven)
            bits = sign | UInt16((exponent + 14) * 1024 + Int(fraction))
        }
    }

    var value: Double {
        let size = Int(bits & 0x7FFF)
        let exponent = size >> 10
        let fraction = Double(size & 0x3FF)
        let magnitude: Double =
            switch exponent {
            case 0: fraction * 0x1p-24
            case 31: fraction == 0 ? .infinity : .nan
            default: scalbn(1024 + fraction, exponent - 25)
            }
        return bits & 0x8000 == 0 ? magnitude : -magnitude
    }
}
