import NibbleCore

extension Tensor {
    /// The elements as float32 if they are integers or truth values; the tensor itself if they are floats.
    func widened(_ allocate: (Shape) throws -> Tensor) throws -> Tensor {
        switch dtype {
        case .float64, .float32, .float16, .bfloat16, .float8E4M3, .float8E5M2: self
        case .int64: try mapped(Int64.self, allocate) { Float($0) }
        case .int32: try mapped(Int32.self, allocate) { Float($0) }
        case .int16: try mapped(Int16.self, allocate) { Float($0) }
        case .int8: try mapped(Int8.self, allocate) { Float($0) }
        case .uint64: try mapped(UInt64.self, allocate) { Float($0) }
        case .uint32: try mapped(UInt32.self, allocate) { Float($0) }
        case .uint16: try mapped(UInt16.self, allocate) { Float($0) }
        case .uint8: try mapped(UInt8.self, allocate) { Float($0) }
        case .bool: try mapped(UInt8.self, allocate) { $0 == 0 ? 0 : 1 }
        }
    }

    private func mapped<Element: BitwiseCopyable>(
        _: Element.Type, _ allocate: (Shape) throws -> Tensor, _ convert: (Element) -> Float
    ) throws -> Tensor {
        let result = try allocate(shape)
        let (source, target) = (hostElements(Element.self), result.mutableHostElements(Float.self))
        for index in source.indices { target[index] = convert(source[index]) }
        return result
    }
}
