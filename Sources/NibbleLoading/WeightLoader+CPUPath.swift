import NibbleCore
import NibbleQuantization

extension HostTensors {
    /// A weight [N, K], quantized on `backend`.
    /// - Parameter followsReference: 4-bit weights on the CPU as the reference quantizes them there.
    func quantized(
        _ tensor: Tensor, to format: WeightFormat, on backend: any Backend, followsReference: Bool
    ) throws -> LinearWeight {
        if followsReference, backend.device == .cpu, let weight = try quantizedOnCPUPath(tensor, to: format) { return weight }
        return try backend.quantize(tensor, to: format)
    }

    /// `nil` where the reference gives the same bytes on the CPU as on a GPU.
    private func quantizedOnCPUPath(_ tensor: Tensor, to format: WeightFormat) throws -> LinearWeight? {
        guard case .fourBit(let fourBit) = format, fourBit.codebook == .fp4 || fourBit.isNested else { return nil }
        let floats = try cast(tensor, to: .float32)
        let values = withExtendedLifetime(floats) { Array(floats.hostElements(Float.self)) }
        if let index = values.firstIndex(where: { !$0.isFinite }) { throw BackendError.nonFiniteWeight(index: index) }
        let quantized = CPUPathQuantizer.quantize(values, fourBit.codebook, blockSize: fourBit.blockSize)
        let codes = quantized.packed(fourBit.codebook)
        let scales: BlockScales
        if fourBit.isNested {
            let nested = CPUPathQuantizer.quantizeScales(quantized.absmax)
            scales = .nested(
                NestedScales(
                    codes: .host(nested.codes, .uint8, [nested.codes.count]),
                    absmax: .host(nested.absmax, .float32, [nested.absmax.count]), offset: nested.offset))
        } else {
            scales = .plain(.host(quantized.absmax, .float32, [quantized.absmax.count]))
        }
        return .fourBit(
            FourBitWeight(
                format: fourBit, outFeatures: tensor.shape[0], inFeatures: tensor.shape[1],
                codes: .host(codes, .uint8, [codes.count]), scales: scales, sourceDType: tensor.dtype))
    }
}
