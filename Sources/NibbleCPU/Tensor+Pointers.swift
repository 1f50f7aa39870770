internal import CNibbleCPU
internal import NibbleCore

/// Addresses of host tensors for C kernels. An empty tensor may have any address; it is never read.
extension Tensor {
    var pointer: UnsafeRawPointer { UnsafeRawPointer(mutablePointer) }

    var mutablePointer: UnsafeMutableRawPointer {
        guard storage.isHostMemory, let pointer = UnsafeMutableRawPointer(bitPattern: address) else {
            preconditionFailure("\(self) is not in host memory")
        }
        return pointer
    }

    /// - Precondition: the tensor is float32.
    var floats: UnsafePointer<Float> { UnsafePointer(mutableFloats) }

    var mutableFloats: UnsafeMutablePointer<Float> {
        precondition(dtype == .float32, "expected float32, found \(self)")
        return mutablePointer.assumingMemoryBound(to: Float.self)
    }

    /// - Precondition: the tensor is int32.
    var integers: UnsafePointer<Int32> { UnsafePointer(mutableIntegers) }

    var mutableIntegers: UnsafeMutablePointer<Int32> {
        precondition(dtype == .int32, "expected int32, found \(self)")
        return mutablePointer.assumingMemoryBound(to: Int32.self)
    }
}

extension DType {
    /// The C code of a float dtype; `nil` for integers.
    var kernelCode: Int32? {
        switch self {
        case .float32: Int32(nibble_float32)
        case .float16: Int32(nibble_float16)
        case .bfloat16: Int32(nibble_bfloat16)
        case .float64: Int32(nibble_float64)
        case .float8E4M3: Int32(nibble_float8_e4m3)
        case .float8E5M2: Int32(nibble_float8_e5m2)
        default: nil
        }
    }

    /// - Precondition: a float dtype.
    var floatCode: Int32 {
        guard let code = kernelCode else { preconditionFailure("\(self) is not a float dtype") }
        return code
    }
}

extension Activation {
    /// The C code of the function, and its parameter.
    var kernelCode: (code: Int32, parameter: Float) {
        switch self {
        case .identity: (Int32(nibble_identity), 0)
        case .relu: (Int32(nibble_relu), 0)
        case .reluSquared: (Int32(nibble_relu_squared), 0)
        case .gelu: (Int32(nibble_gelu), 0)
        case .geluTanh: (Int32(nibble_gelu_tanh), 0)
        case .quickGelu: (Int32(nibble_quick_gelu), 0)
        case .silu: (Int32(nibble_silu), 0)
        case .sigmoid: (Int32(nibble_sigmoid), 0)
        case .tanh: (Int32(nibble_tanh), 0)
        case .softCap(let limit): (Int32(nibble_soft_cap), limit)
        }
    }
}

extension ThreadPool {
    /// The least number of items per thread that makes a dispatch worth its microseconds.
    static func grain(elementsPerItem: Int) -> Int { max(1, 16384 / max(elementsPerItem, 1)) }
}
