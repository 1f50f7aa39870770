internal import CNibbleCPU
package import NibbleCore

extension CPUBackend {
    package func reserve(_ workspace: WorkspaceRequest) throws {
        let bytes = parts(workspace)
        try pool.exclusively {
            _ = try operationScratch.bytes(bytes.operations)
            _ = try linearScratch.bytes(bytes.linear)
            if bytes.experts > 0 { _ = try expertsScratch.bytes(bytes.experts) }
        }
    }

    package func workspaceBytes(for request: WorkspaceRequest) -> Int {
        let bytes = parts(request)
        return bytes.operations + bytes.linear + bytes.experts
    }

    private func parts(_ request: WorkspaceRequest) -> (operations: Int, linear: Int, experts: Int) {
        let sampling = nibble_select_floats(request.vocabulary) * MemoryLayout<Float>.size * pool.threadCount
        return (
            max(sampling, attentionBytes(request), 4 * pool.threadCount), linearBytes(request),
            request.experts.map { ExpertsScratch.byteCount(tokens: request.tokens, $0) } ?? 0
        )
    }

    /// Scratch memory of the largest linear call with any of the formats.
    private func linearBytes(_ request: WorkspaceRequest) -> Int {
        let inFeatures = max(request.inFeatures, request.experts?.width ?? 0, request.experts?.hidden ?? 0)
        let formats =
            request.formats.isEmpty
            ? [.dense(.float32), .int8, .fourBit(FourBitFormat(codebook: .nf4))] : request.formats
        // A router or a head may be dense among quantized layers.
        // Each expert's rows are padded.
        let expertRows = request.experts.map {
            let rows = ExpertsScratch.rows(tokens: request.tokens, topK: $0.topK)
            return rows + 16 * min($0.count, rows)
        }
        return formats.union([.dense(.float32)]).reduce(0) { most, format in
            [1, request.rows, request.tokens, expertRows ?? 1].reduce(most) {
                max($0, linearBytes(format, request, tokens: max($1, 1), inFeatures: inFeatures))
            }
        }
    }

    private func linearBytes(_ format: WeightFormat, _ request: WorkspaceRequest, tokens: Int, inFeatures: Int) -> Int {
        let kinds: [nibble_weight_kind] =
            switch format {
            case .dense: [NIBBLE_WEIGHT_DENSE]
            case .int8: [NIBBLE_WEIGHT_INT8]
            case .fourBit: [NIBBLE_WEIGHT_4BIT, NIBBLE_WEIGHT_4BIT_TILED]
            }
        return kinds.reduce(0) { most, kind in
            var layer = nibble_linear_layer()
            layer.N = request.outFeatures
            layer.kind = kind
            layer.dtype = Int32(nibble_float16)
            if case .fourBit(let fourBit) = format {
                layer.block_size = fourBit.blockSize
                // C asks only whether it is NULL.
                if fourBit.isNested || fourBit.codebook == .mxfp4 { layer.scale_codes = UnsafePointer(bitPattern: 1) }
            }
            return withUnsafePointer(to: layer) { layer in
                var call = nibble_linear_arguments()
                call.kernels = pool.kernels
                call.T = tokens
                call.K = inFeatures
                call.layers = layer
                call.layer_count = 1
                call.output_stride = request.outFeatures
                call.setForm(InputForm(format, request.arithmetic, inFeatures: inFeatures, kernels: pool.kernels))
                return max(most, nibble_linear_workspace(&call, Int32(pool.threadCount)))
            }
        }
    }
}
