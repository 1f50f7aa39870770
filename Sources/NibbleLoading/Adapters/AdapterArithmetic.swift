import NibbleCore

extension Tensor {
    /// The elements of a float tensor on the host as float32.
    var floats: [Float] {
        switch dtype {
        case .float16: hostElements(Float16.self).map { Float($0) }
        case .bfloat16: hostElements(BFloat16.self).map { Float($0) }
        default: Array(hostElements(Float.self))
        }
    }

    /// The tensor in float32.
    var asFloats: Tensor { dtype == .float32 ? self : .host(floats, .float32, shape) }

    /// Float32 elements on the host, changed in place by `change` in the order of rows.
    fileprivate func changeFloats(_ change: (_ index: Int, _ value: Float) -> Float) {
        let values = mutableHostElements(Float.self)
        for index in values.indices { values[index] = change(index, values[index]) }
    }
}

/// Sums of a weight and low-rank products, on the host, in the order in which peft computes them.
struct AdapterArithmetic {
    let host: HostTensors

    init(_ cpu: any Backend) { host = HostTensors(cpu: cpu) }

    /// B·A: float32 [N, K] of b [N, r] and a [r, K].
    func product(_ b: Tensor, _ a: Tensor) throws -> Tensor {
        let (rows, columns) = (b.shape[0], a.shape[1])
        let output = try host.cpu.allocate(.float32, [rows, columns])
        let weight = try host.transposed(host.cast(a, to: .float32))
        try host.cpu.linear(
            host.cast(b, to: .float32), LinearGroup([Linear(name: "lora", weight: .dense(weight))]), epilogue: .init(),
            into: output)
        return output
    }

    /// W + (B·A)·s, or DoRA's m/‖W + (B·A)·s‖ times it: float32 [N, K].
    /// - Parameters:
    ///   - weight: [N, K]
    ///   - axis: the axis that DoRA's norms are taken over: 1 of a linear layer, 0 of an embedding.
    func sum(_ weight: Tensor, _ delta: Tensor, scale: Double, magnitude: Tensor?, axis: Int = 1) throws -> Tensor {
        let result = delta
        let base = try host.cast(weight, to: .float32)
        let (values, factor) = (base.hostElements(Float.self), Float(scale))
        result.changeFloats { values[$0] + $1 * factor }
        if let magnitude {
            let factors = AdapterArithmetic.magnitudeFactors(result, magnitude, axis: axis)
            let columns = result.shape[1]
            result.changeFloats { factors[axis == 1 ? $0 / columns : $0 % columns] * $1 }
        }
        withExtendedLifetime(base) {}
        return result
    }

    /// c = m/‖·‖ by row, or by column for axis 0.
    static func magnitudeFactors(_ sum: Tensor, _ magnitude: Tensor, axis: Int) -> [Float] {
        let values = sum.hostElements(Float.self)
        let (rows, columns) = (sum.shape[0], sum.shape[1])
        var squares = [Double](repeating: 0, count: axis == 1 ? rows : columns)
        for row in 0..<rows {
            for column in 0..<columns {
                let value = Double(values[row * columns + column])
                squares[axis == 1 ? row : column] += value * value
            }
        }
        return zip(magnitude.floats, squares).map { $0 / Float($1.squareRoot()) }
    }

    /// The product of an update in the orientation of the weight: [N, K], of an embedding [V, E].
    func delta(_ update: MatchedAdapter.LowRankUpdate) throws -> Tensor {
        update.isEmbedding ? try product(host.transposed(update.a), host.transposed(update.b)) : try product(update.b, update.a)
    }

    /// A weight after the update, in the weight's dtype.
    /// - Parameter weight: [N, K]; of an embedding [V, E].
    func merged(_ weight: Tensor, _ update: MatchedAdapter.LowRankUpdate) throws -> Tensor {
        let sum = try sum(
            weight, delta(update), scale: update.scale, magnitude: update.magnitude, axis: update.isEmbedding ? 0 : 1)
        return try host.cast(sum, to: weight.dtype)
    }

    /// A bias after `lora_B.bias` × scale was added, in the bias's dtype.
    func merged(bias: Tensor, _ biasB: Tensor, scale: Double) throws -> Tensor {
        let sum = try copy(host.cast(bias, to: .float32))
        let (added, factor) = (biasB.floats, Float(scale))
        sum.changeFloats { $1 + added[$0] * factor }
        return try host.cast(sum, to: bias.dtype)
    }

    /// The matrix of one expert [N, K] after its updates, in its dtype.
    func merged(_ weight: Tensor, _ update: MatchedAdapter.ExpertUpdate) throws -> Tensor {
        try host.cast(sum(weight, product(update.b, update.a), scale: update.scale, magnitude: nil), to: weight.dtype)
    }

    /// A table [V, E] with some rows replaced.
    func replacing(_ rows: MatchedAdapter.TokenRows, in table: Tensor) throws -> Tensor {
        let result = try copy(table)
        let source = try host.cast(rows.rows, to: table.dtype)
        for (position, index) in rows.indices.enumerated() {
            result.rows(index..<index + 1).mutableHostBytes.copyMemory(from: source.rows(position..<position + 1).hostBytes)
        }
        return result
    }

    func copy(_ tensor: Tensor) throws -> Tensor {
        let result = try host.cpu.allocate(tensor.dtype, tensor.shape)
        result.mutableHostBytes.copyMemory(from: tensor.hostBytes)
        return result
    }
}
