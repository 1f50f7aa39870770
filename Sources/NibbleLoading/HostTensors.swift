import NibbleCore

/// Conversions of tensors on the host, between a mapped file and a device.
struct HostTensors {
    /// Runs the conversions, on all cores.
    let cpu: any Backend

    /// `tensor` in `dtype`; `tensor` itself if that is its dtype.
    ///
    /// Integers become float32 first, as torch casts them.
    func cast(_ tensor: Tensor, to dtype: DType) throws -> Tensor {
        guard tensor.dtype != dtype else { return tensor }
        let tensor = try tensor.widened { try cpu.allocate(.float32, $0) }
        if tensor.dtype == dtype { return tensor }
        let converted = try cpu.allocate(dtype, tensor.shape)
        try cpu.convert(tensor, to: converted)
        return converted
    }

    /// [K, N] → [N, K]
    func transposed(_ tensor: Tensor) throws -> Tensor {
        let result = try cpu.allocate(tensor.dtype, [tensor.shape[1], tensor.shape[0]])
        switch tensor.dtype.byteCount {
        case 4: transpose(tensor, into: result, UInt32.self)
        case 2: transpose(tensor, into: result, UInt16.self)
        case 8: transpose(tensor, into: result, UInt64.self)
        default: transpose(tensor, into: result, UInt8.self)
        }
        return result
    }

    /// [2F, K] → [2F, K]: rows 0, 2, 4 …, then rows 1, 3, 5 …
    func separatingAlternateRows(_ tensor: Tensor) throws -> Tensor {
        let result = try cpu.allocate(tensor.dtype, tensor.shape)
        let (rows, rowBytes) = (tensor.shape[0], tensor.byteCount / max(tensor.shape[0], 1))
        let (from, to) = (tensor.hostBytes, result.mutableHostBytes)
        for row in 0..<rows {
            let place = row % 2 * (rows / 2) + row / 2
            to[place * rowBytes..<(place + 1) * rowBytes].copyBytes(from: from[row * rowBytes..<(row + 1) * rowBytes])
        }
        return result
    }

    private func transpose<Element: BitwiseCopyable>(_ source: Tensor, into result: Tensor, _: Element.Type) {
        let (rows, columns) = (source.shape[0], source.shape[1])
        let from = source.hostElements(Element.self)
        let to = result.mutableHostElements(Element.self)
        // Tiles keep source and destination in the cache.
        let tile = 64
        for rowStart in stride(from: 0, to: rows, by: tile) {
            for columnStart in stride(from: 0, to: columns, by: tile) {
                for row in rowStart..<min(rowStart + tile, rows) {
                    for column in columnStart..<min(columnStart + tile, columns) {
                        to[column * rows + row] = from[row * columns + column]
                    }
                }
            }
        }
    }

    /// A copy in memory of `backend`, or the tensor itself if it lies there and is no view of the mapped `file`, where
    /// there is one.
    /// - Parameter release: called between the pieces of a large tensor, to drop pages of the file that were read.
    func resident(
        _ tensor: Tensor, on backend: any Backend, unlessBackedBy file: Tensor?, release: () -> Void = {}
    ) throws -> Tensor {
        if tensor.device == backend.device, tensor.storage !== file?.storage { return tensor }
        let copy = try backend.allocate(tensor.dtype, tensor.shape)
        var start = 0
        while start < tensor.byteCount {
            let count = min(HostTensors.pieceBytes, tensor.byteCount - start)
            func piece(_ whole: Tensor) -> Tensor {
                Tensor(storage: whole.storage, byteOffset: whole.byteOffset + start, dtype: .uint8, shape: [count])
            }
            try backend.copy(piece(tensor), to: piece(copy))
            start += count
            if start < tensor.byteCount { release() }
        }
        return copy
    }

    /// Large tensors are copied in pieces of this size, so that few pages of the file are resident at a time.
    private static let pieceBytes = 64 << 20
}
