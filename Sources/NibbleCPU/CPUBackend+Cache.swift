internal import CNibbleCPU
package import NibbleCore

extension QueryKeyValueLayout.HeadOffsets {
    var kernelArguments: nibble_head_layout { nibble_head_layout(offset: offset, stride: stride, group: max(groupSize, 1)) }
}

extension KeyValueCache {
    func kernelArguments(_ batch: BatchIndices) -> nibble_cache {
        nibble_cache(
            keys: keys.mutablePointer, values: values.mutablePointer, block_table: batch.blockTable.integers,
            table_width: batch.blockTable.shape[1], blocks: min(keys.shape[0], values.shape[0]), heads: geometry.heads,
            key_size: geometry.keySize, value_size: geometry.valueSize,
            dtype: geometry.quantization == nil ? geometry.dtype.floatCode : 0, bits: Int32(geometry.quantization?.bits ?? 0),
            group_size: geometry.quantization?.groupSize ?? 0)
    }
}

extension CPUBackend {
    /// - Precondition: every position lies in the block table and in the rotary table.
    package func rotateAndStore(_ call: RotateAndStoreCall, _ batch: BatchIndices) throws {
        var outOfRange: Int32 = 0
        withUnsafeMutablePointer(to: &outOfRange) { flag in
            let arguments = rotateArguments(call, batch, flag)
            let width = (call.heads + call.keyValueHeads) * call.cache.geometry.keySize
            pool.run(
                count: batch.tokenCount, grain: ThreadPool.grain(elementsPerItem: 4 * width), arguments, nibble_rotate_task)
        }
        precondition(outOfRange == 0, "a position lies outside the block table, the cache or the rotary table")
    }

    private func rotateArguments(
        _ call: RotateAndStoreCall, _ batch: BatchIndices, _ flag: UnsafeMutablePointer<Int32>
    ) -> nibble_rotate_arguments {
        let none = nibble_norm(weight: nil, bias: nil, epsilon: 0, is_layer: 0)
        let scope: Int32 = call.norm.map { $0.scope.kernelCode } ?? 0
        return nibble_rotate_arguments(
            kernels: pool.kernels, projections: call.projections.mutableFloats, positions: batch.positions.integers,
            rows: batch.rows.integers,
            cosines: call.rotary?.cosines.floats, sines: call.rotary?.sines.floats, width: call.projections.shape.last,
            heads: call.heads, rotated: call.rotary?.rotated ?? 0, rotary_positions: call.rotary?.cosines.shape[0] ?? 0,
            query: call.layout.query.kernelArguments, key: call.layout.key.kernelArguments,
            value: call.layout.value.kernelArguments, cache: call.cache.kernelArguments(batch),
            query_norm: call.norm?.query.kernelArguments ?? none, key_norm: call.norm?.key.kernelArguments ?? none,
            query_norm_width: call.norm?.query.weightCount ?? 0, key_norm_width: call.norm?.key.weightCount ?? 0,
            norm_scope: scope, key_value_heads: call.keyValueHeads,
            value_norm: nibble_norm(weight: nil, bias: nil, epsilon: call.valueEpsilon ?? 0, is_layer: 0),
            norms_values: call.valueEpsilon == nil ? 0 : 1, is_interleaved: call.rotary?.isInterleaved == true ? 1 : 0,
            clip: call.clip ?? .infinity,
            temperature_beta: call.temperature?.beta ?? 0, temperature_length: Int32(clamping: call.temperature?.length ?? 1),
            out_of_range: flag)
    }

    /// - Precondition: every block of `pairs` is one of the cache's.
    package func copyBlocks(_ cache: KeyValueCache, pairs: Tensor) throws {
        let blocks = cache.keys.shape[0]
        let numbers = pairs.integers
        for index in 0..<pairs.count {
            precondition(numbers[index] >= 0 && Int(numbers[index]) < blocks, "block \(numbers[index]) of \(blocks)")
        }
        for tensor in [cache.keys, cache.values] {
            let blockBytes = tensor.byteCount / max(blocks, 1)
            let arguments = nibble_copy_blocks_arguments(
                memory: tensor.mutablePointer, pairs: numbers, pair_count: pairs.count / 2, block_bytes: blockBytes)
            pool.run(count: blockBytes, grain: 65536, arguments, nibble_copy_blocks_task)
        }
    }
}

extension QueryKeyNorm.Scope {
    fileprivate var kernelCode: Int32 {
        switch self {
        case .head: 1
        case .token: 2
        case .rotatedHead: 3
        }
    }
}
