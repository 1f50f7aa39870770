public import NibbleCore

extension CPUBackend {
    public func quantize(_ source: Tensor, to format: WeightFormat) throws -> LinearWeight { fatalError("not yet") }
    public func dequantize(_ weight: LinearWeight, to dtype: DType) throws -> Tensor { fatalError("not yet") }
    public func prepare(_ weight: LinearWeight) throws -> LinearWeight { fatalError("not yet") }
}
