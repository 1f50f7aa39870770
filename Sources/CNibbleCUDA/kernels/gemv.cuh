// Products of a few tokens with a weight that is read once, 16 bytes a lane: dense and int8 weights.
//
// A warp computes two rows at a time and takes pairs of rows in turn, so that any number of blocks works. It keeps `Depth`
// loads of each row on their way: where one is used up, the one that comes Depth later takes its registers, be it of the next
// pair. The order of additions depends on K alone.
#pragma once
#include "common.cuh"

// What differs between weights. E elements fill 16 bytes; Sum is float or int.
//   add(sums, w0, w1, m, k): adds the products of both rows' elements k ..< k + E with token m's to sums[0] and sums[1].
//   addOne(sums, row0, row1, m, k): the same for a single element, for rows that are not aligned.
//   store(sum, part, m, n): one output; all lanes call it together, `isMine` says whose values count.

struct RowPair {
    int part;
    int row;  // the first of the two, within the part
};

__device__ __forceinline__ RowPair rowPair(const NibbleLinearArguments &a, int task) {
    RowPair r;
    r.part = partOfTile(a, task, 2);
    r.row = 2 * task;
    return r;
}

template <typename Op, int MM, int Depth> __device__ __forceinline__ void gemvPairs(const NibbleLinearArguments &a, Op op) {
    typedef typename Op::Sum Sum;
    constexpr int E = Op::E, stride = 32 * E;
    const int lane = threadIdx.x & 31, warp = __shfl_sync(~0u, threadIdx.x >> 5, 0), step = gridDim.x * (blockDim.x >> 5);
    const long long rowBytes = (long long)a.inFeatures * (16 / E);
    const int K = a.inFeatures, batches = (K + stride * Depth - 1) / (stride * Depth);
    int tasks = 0;
    for (int p = 0; p < a.partCount; ++p) tasks += (a.parts[p].outFeatures + 1) / 2;
    int task = blockIdx.x * (blockDim.x >> 5) + warp;
    if (task >= tasks) return;
    RowPair loading = rowPair(a, task);
    const u8 *rows[2];
    uint4 q[Depth][2];
    auto choose = [&] {
        const NibbleLinearPart &part = a.parts[loading.part];
        rows[0] = (const u8 *)part.weight + loading.row * rowBytes + lane * 16;
        rows[1] = loading.row + 1 < part.outFeatures ? rows[0] + rowBytes : rows[0];
    };
    auto load = [&](int d, int batch) {
        const int k = (batch * Depth + d) * stride;
        if (k + lane * E >= K) return;
        q[d][0] = loadStreaming(rows[0] + (long long)k * (16 / E));
        q[d][1] = loadStreaming(rows[1] + (long long)k * (16 / E));
    };
    choose();
    if (op.isAligned)
#pragma unroll
        for (int d = 0; d < Depth; ++d) load(d, 0);
    waitForPredecessors();
    for (; task < tasks; task += step) {
        const RowPair present = loading;
        const bool hasNext = task + step < tasks;
        Sum sums[MM][2] = {};
        if (op.isAligned) {
            for (int batch = 0; batch < batches; ++batch) {
                const bool isLast = batch + 1 == batches;
                if (isLast && hasNext) {
                    loading = rowPair(a, task + step);
                    choose();
                }
#pragma unroll
                for (int d = 0; d < Depth; ++d) {
                    const int k = (batch * Depth + d) * stride + lane * E;
                    if (k < K) op.template add<MM>(sums, q[d][0], q[d][1], k);
                    if (!isLast || hasNext) load(d, isLast ? 0 : batch + 1);
                }
            }
        } else {
            for (int k = lane; k < K; k += 32) op.template addOne<MM>(sums, rows[0] - lane * 16, rows[1] - lane * 16, k);
            if (hasNext) {
                loading = rowPair(a, task + step);
                choose();
            }
        }
        // Lane 2 m + r takes the sum of token m, row r.
        Sum mine = 0;
#pragma unroll
        for (int m = 0; m < MM; ++m)
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                const Sum sum = op.sumOfWarp(sums[m][r]);
                if (lane == 2 * m + r) mine = sum;
            }
        const NibbleLinearPart &part = a.parts[present.part];
        const int m = lane >> 1, n = present.row + (lane & 1);
        op.store(mine, part, m, n, m < a.tokens && n < part.outFeatures);
    }
}

template <typename Op> __device__ __forceinline__ void gemvAny(const NibbleLinearArguments &a, Op op) {
    releaseDependents();
    if (a.tokens == 1) gemvPairs<Op, 1, 4>(a, op);
    else if (a.tokens == 2) gemvPairs<Op, 2, 4>(a, op);
    else if (a.tokens <= 4) gemvPairs<Op, 4, 2>(a, op);
    else gemvPairs<Op, 8, 2>(a, op);
}
