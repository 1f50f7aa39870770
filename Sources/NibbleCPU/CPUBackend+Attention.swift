internal import CNibbleCPU
package import NibbleCore

extension CPUBackend {
    /// - Precondition: every row's keys lie in blocks of the cache.
    package func attend(_ call: AttentionCall, _ batch: BatchIndices, into output: Tensor) throws {
        precondition(
            call.cache.geometry.heads > 0 && call.heads % call.cache.geometry.heads == 0,
            "\(call.heads) heads over \(call.cache.geometry.heads) key/value heads")
        precondition(
            output.count == batch.tokenCount * call.heads * call.cache.geometry.valueSize, "attention into \(output)")
        guard batch.tokenCount > 0 else { return }
        var outOfRange: Int32 = 0
        try withUnsafeMutablePointer(to: &outOfRange) { flag in
            var arguments = attentionArguments(call, batch, output, flag)
            try pool.exclusively { try run(&arguments) }
        }
        precondition(outOfRange == 0, "a row's keys lie outside the block table or the cache")
    }

    private func run(_ arguments: inout nibble_attention_arguments) throws {
        let threads = Int32(pool.threadCount)
        let bytes = nibble_attention_plan(&arguments, threads)
        nibble_attention_prepare(&arguments, try operationScratch.bytes(bytes), threads)
        pool.run(
            count: nibble_attention_items(&arguments), isDynamic: true, arguments, nibble_attention_task)
        if arguments.splits > 1 {
            pool.run(
                count: nibble_attention_merge_items(&arguments), isDynamic: true, arguments, nibble_attention_merge_task)
        }
    }

    /// Scratch memory of the largest attention call: a prompt of all tokens, or a decoding step of all rows.
    func attentionBytes(_ workspace: WorkspaceRequest) -> Int {
        func bytes(tokens: Int, longest: Int) -> Int {
            var arguments = nibble_attention_arguments()
            arguments.heads = workspace.heads
            arguments.cache.heads = max(workspace.heads, 1)
            arguments.cache.key_size = workspace.headSize
            arguments.cache.value_size = workspace.headSize
            // A quantized cache takes the most.
            arguments.cache.bits = 8
            arguments.tokens = tokens
            arguments.rows = workspace.rows
            arguments.maximum_query_length = longest
            arguments.maximum_length = workspace.context
            return nibble_attention_plan(&arguments, Int32(pool.threadCount))
        }
        guard workspace.heads > 0 else { return 0 }
        return max(
            bytes(tokens: workspace.tokens, longest: workspace.tokens), bytes(tokens: workspace.rows, longest: 1))
    }

    private func attentionArguments(
        _ call: AttentionCall, _ batch: BatchIndices, _ output: Tensor, _ flag: UnsafeMutablePointer<Int32>
    ) -> nibble_attention_arguments {
        var arguments = nibble_attention_arguments()
        arguments.kernels = pool.kernels
        arguments.queries = call.queries.floats
        arguments.out = output.mutableFloats
        arguments.width = call.queries.shape.last
        arguments.heads = call.heads
        arguments.query = call.layout.kernelArguments
        arguments.cache = call.cache.kernelArguments(batch)
        arguments.positions = batch.positions.integers
        arguments.query_offsets = batch.queryOffsets.integers
        arguments.lengths = batch.lengths.integers
        arguments.tokens = batch.tokenCount
        arguments.rows = batch.rowCount
        arguments.maximum_query_length = batch.maximumQueryLength
        arguments.maximum_length = batch.maximumLength
        arguments.scale = call.scale
        arguments.soft_cap = call.softCap ?? 0
        arguments.window = call.window.map(Int64.init) ?? .max
        arguments.is_causal = call.isCausal ? 1 : 0
        arguments.batch_invariant = isBatchInvariant ? 1 : 0
        if let sinks = call.sinks {
            precondition(sinks.count == call.heads, "\(sinks.count) sinks for \(call.heads) heads")
            arguments.sinks = sinks.floats
        }
        switch call.bias {
        case .none: break
        case .alibi(let slopes): arguments.slopes = slopes.floats
        case .relative(let table, let isBidirectional, let maximumDistance):
            arguments.bucket_table = table.floats
            arguments.buckets = table.shape[0]
            arguments.is_bidirectional = isBidirectional ? 1 : 0
            arguments.maximum_distance = Int64(maximumDistance)
        }
        arguments.out_of_range = flag
        return arguments
    }
}
