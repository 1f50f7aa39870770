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

    func decoder(_ checkpoint: any Checkpoint) throws -> any RowDecoder {
        let codes = try checkpoint.tensor(self.codes)
        return Decoder(
            codes: codes, values: CodeTables.values(codes.dtype) ?? CodeTables.int8, width: shape.last,
            scales: try StoredScales(scales, checkpoint), grid: grid,
            zeroPoints: try zeroPoints.map { try checkpoint.tensor($0).hostElements(Int8.self).map(Float.init) })
    }

    private struct Decoder: RowDecoder {
        let codes: Tensor
        let values: [Float]
        let width: Int
        let scales: StoredScales
        let grid: ScaleGrid
        let zeroPoints: [Float]?

        func decode(_ rows: Range<Int>, into target: UnsafeMutablePointer<Float>) {
            let codes = codes.hostBytes.assumingMemoryBound(to: UInt8.self)
            values.withUnsafeBufferPointer { values in
                for (position, row) in rows.enumerated() {
                    let source = UnsafeBufferPointer(rebasing: codes[row * width..<(row + 1) * width])
                    decode(source, values, scaleIndex: grid.start(ofRow: row), into: target + position * width)
                }
            }
        }

        /// Looks up each element in a table of its block's 256 possible values.
        func decode(_ rows: Range<Int>, into target: UnsafeMutablePointer<UInt16>, round: (Float) -> UInt16) -> Bool {
            // The table of a block serves its part of these rows.
            let columns = min(grid.columnBlock, width)
            guard zeroPoints == nil, min(grid.rowBlock, rows.count) * columns >= 2 * values.count else { return false }
            let codes = codes.hostBytes.assumingMemoryBound(to: UInt8.self)
            guard let first = codes.baseAddress else { return false }
            withUnsafeTemporaryAllocation(of: UInt16.self, capacity: values.count) { table in
                var row = rows.lowerBound
                while row < rows.upperBound {
                    let end = min(
                        row + grid.rowBlock - row % grid.rows % grid.rowBlock, row - row % grid.rows + grid.rows, rows.upperBound)
                    var (column, index) = (0, grid.start(ofRow: row))
                    while column < width {
                        let stop = min(column + columns, width)
                        let scale = scales[index]
                        for code in 0..<values.count { table[code] = round(values[code] * scale) }
                        for line in row..<end {
                            let (source, output) = (first + line * width, target + (line - rows.lowerBound) * width)
                            Decoder.lookUp(source, column..<stop, table, output)
                        }
                        (column, index) = (stop, index + grid.step)
                    }
                    row = end
                }
            }
            return true
        }

        @inline(__always)
        private static func lookUp(
            _ source: UnsafePointer<UInt8>, _ columns: Range<Int>, _ table: UnsafeMutableBufferPointer<UInt16>,
            _ output: UnsafeMutablePointer<UInt16>
        ) {
            guard let table = table.baseAddress else { return }
            var column = columns.lowerBound
            while column < columns.upperBound {
                output[column] = table[Int(source[column])]
                column &+= 1
            }
        }

        private func decode(
            _ source: UnsafeBufferPointer<UInt8>, _ values: UnsafeBufferPointer<Float>, scaleIndex: Int,
            into target: UnsafeMutablePointer<Float>
        ) {
            guard let source = source.baseAddress, let values = values.baseAddress else { return }
            var (start, index) = (0, scaleIndex)
            while start < width {
                let end = min(start + grid.columnBlock, width)
                let (scale, zero) = (scales[index], zeroPoints?[index] ?? 0)
                if zero == 0 {
                    for column in start..<end { target[column] = values[Int(source[column])] * scale }
                } else {
                    for column in start..<end { target[column] = (values[Int(source[column])] - zero) * scale }
                }
                (start, index) = (end, index + grid.step)
            }
        }
    }
}
