package import NibbleCore

extension StandInBackend {
    package func convolve(_ call: ConvolutionCall, _ batch: BatchIndices, into output: Tensor) throws {
        try enqueue { place in
            var call = call
            call.input.tensor = place(call.input.tensor)
            call.weight = place(call.weight)
            call.bias = call.bias.map(place)
            call.state = call.state.mapped(place)
            let (batch, output) = (batch.mapped(place), place(output))
            return { [base, call] in try base.convolve(call, batch, into: output) }
        }
    }

    package func gatedDelta(_ call: GatedDeltaCall, _ batch: BatchIndices, into output: Tensor) throws {
        try enqueue { place in
            var call = call
            call.mixed = place(call.mixed)
            call.a.tensor = place(call.a.tensor)
            call.b.tensor = place(call.b.tensor)
            call.rate = place(call.rate)
            call.timeBias = place(call.timeBias)
            call.state = call.state.mapped(place)
            let (batch, output) = (batch.mapped(place), place(output))
            return { [base, call] in try base.gatedDelta(call, batch, into: output) }
        }
    }

    package func stateSpace(_ call: StateSpaceCall, _ batch: BatchIndices, into output: Tensor) throws {
        try enqueue { place in
            var call = call
            call.mixed = place(call.mixed)
            call.dt.tensor = place(call.dt.tensor)
            call.rate = place(call.rate)
            call.timeBias = place(call.timeBias)
            call.skip = place(call.skip)
            call.state = call.state.mapped(place)
            let (batch, output) = (batch.mapped(place), place(output))
            return { [base, call] in try base.stateSpace(call, batch, into: output) }
        }
    }

    package func normalizeGated(_ call: GatedNormCall, into output: Tensor) throws {
        try enqueue { place in
            var call = call
            call.input = place(call.input)
            call.gate = place(call.gate)
            call.norm = call.norm?.mapped(place)
            let output = place(output)
            return { [base, call] in try base.normalizeGated(call, into: output) }
        }
    }
}

extension RecurrentState {
    fileprivate func mapped(_ place: (Tensor) -> Tensor) -> RecurrentState {
        RecurrentState(inputs: place(inputs), matrix: matrix.map(place))
    }
}
