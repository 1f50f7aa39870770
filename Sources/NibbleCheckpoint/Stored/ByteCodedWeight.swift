import NibbleCore

/// A code of 8 bits an element, FP8 or int8, times a scale: w = (q − z)·s. Scales belong to blocks, rows, or everything.
struct ByteCodedWeight: StoredWeight {
    let shape: Shape
    let codes: String
    let scales: String
    let grid: ScaleGrid
    /// int8 or integers of the scales' shape.
    var zeroPoints: String?

    var tensors: [String] { [codes, scales] + [zeroPoints].compactMap { $0 } }

    func decoder(_ checkpoint: any Checkpoint, _ kernels: StoredKernels, matrices: Range<Int>) throws -> any RowDecoder {
        let codes = try checkpoint.tensor(self.codes)
        return GridDecoder(
            kernels: kernels, code: StoredKernels.Code(codes.dtype) ?? .int8, codes: codes, rowBytes: shape.last,
            width: shape.last, scales: try StoredScales(scales, checkpoint, kernels).values,
            zeroPoints: try zeroPoints.map { try checkpoint.tensor($0).hostElements(Int8.self).map(Float.init) }, grid: grid,
            firstRow: matrices.lowerBound * grid.rows)
    }
}

/// Rows of codes whose scales form a grid: w = (q − z)·s.
struct GridDecoder: RowDecoder {
    let kernels: StoredKernels
    let code: StoredKernels.Code
    let codes: Tensor
    /// Bytes from one row of codes to the next.
    let rowBytes: Int
    let width: Int
    let scales: [Float]
    /// In the order of the scales.
    var zeroPoints: [Float]?
    let grid: ScaleGrid
    /// Where the rows begin among those of the codes.
    var firstRow = 0

    func decode(_ rows: Range<Int>, into target: UnsafeMutablePointer<Float>) {
        guard let bytes = codes.hostBytes.assumingMemoryBound(to: UInt8.self).baseAddress else { return }
        scales.withUnsafeBufferPointer { scales in
            guard let scales = scales.baseAddress else { return }
            func decode(_ zeros: UnsafePointer<Float>?) {
                for (position, relative) in rows.enumerated() {
                    let row = firstRow + relative
                    let start = grid.start(ofRow: row)
                    kernels.decode(
                        code, bytes + row * rowBytes, width: width,
                        .init(scales: scales + start, zeros: zeros.map { $0 + start }, block: grid.columnBlock, step: grid.step),
                        into: target + position * width)
                }
            }
            guard let zeroPoints else { return decode(nil) }
            zeroPoints.withUnsafeBufferPointer { decode($0.baseAddress) }
        }
    }

    /// The block of a row that begins with `column`, for codes of 4 bits whose blocks lie along the row.
    func decodeBlock(row: Int, column: Int, into target: UnsafeMutablePointer<Float>) {
        guard let bytes = codes.hostBytes.assumingMemoryBound(to: UInt8.self).baseAddress else { return }
        withUnsafePointer(to: scales[grid.start(ofRow: row) + column / grid.columnBlock * grid.step]) { scale in
            kernels.decode(
                code, bytes + row * rowBytes + column / 2, width: grid.columnBlock,
                .init(scales: scale, zeros: nil, block: grid.columnBlock, step: 0), into: target)
        }
    }
}
