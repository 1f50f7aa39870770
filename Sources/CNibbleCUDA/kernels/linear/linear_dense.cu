// Linear layers with dense weights of the activations' type: GEMV for up to eight tokens, GEMM above.
#include "tile_product.cuh"
#include "row_input.cuh"
#include "rank_pairs.cuh"

// A warp computes two rows for MM tokens; lanes take 16 bytes of each row at a time. Lane 2 m + r returns row r for token m.
template <typename T, int MM>
__device__ __forceinline__ float gemvRows(const NibbleLinearArguments &a, const NibbleLinearLayer &part, int n0) {
    constexpr int E = Chunk<T>::size, unroll = MM == 1 ? 4 : 2;
    const int lane = threadIdx.x & 31, N = part.outFeatures, M = a.tokens;
    const long long K = a.inFeatures;
    const T *input = (const T *)a.input, *weight = (const T *)part.weight;
    const T *rows[2] = {weight + n0 * K, weight + (long long)min(n0 + 1, N - 1) * K};
    float sums[MM][2] = {};
    if (K % E == 0) {
        for (long long k0 = lane * E; k0 < K; k0 += 32 * E * unroll) {
            uint4 q[unroll][2];
#pragma unroll
            for (int u = 0; u < unroll; ++u)
#pragma unroll
                for (int r = 0; r < 2; ++r) {
                    const long long k = k0 + u * 32 * E;
                    q[u][r] = k < K ? loadStreaming(rows[r] + k) : make_uint4(0, 0, 0, 0);
                }
#pragma unroll
            for (int u = 0; u < unroll; ++u) {
                const long long k = k0 + u * 32 * E;
                if (k >= K) break;
                float w[2][E];
                unpack(q[u][0], w[0], T());
                unpack(q[u][1], w[1], T());
#pragma unroll
                for (int m = 0; m < MM; ++m) {
                    float x[E];
                    unpack(*(const uint4 *)(input + (long long)min(m, M - 1) * K + k), x, T());
#pragma unroll
                    for (int r = 0; r < 2; ++r)
#pragma unroll
                        for (int i = 0; i < E; ++i) sums[m][r] = fmaf(w[r][i], x[i], sums[m][r]);
                }
            }
        }
    } else {
        for (long long k = lane; k < K; k += 32)
#pragma unroll
            for (int m = 0; m < MM; ++m) {
                const float x = toFloat(input[(long long)min(m, M - 1) * K + k]);
                sums[m][0] = fmaf(toFloat(rows[0][k]), x, sums[m][0]);
                sums[m][1] = fmaf(toFloat(rows[1][k]), x, sums[m][1]);
            }
    }
    return sumOfLane(sums);
}

template <typename T>
__device__ __forceinline__ void gemvBody(const NibbleLinearArguments &a) {
    releaseDependents();
    if (isUnused(a)) return;
    waitForPredecessors();
    int tile = blockIdx.x;
    const NibbleLinearLayer &part = a.parts[layerOfTile(a, tile, NIBBLE_GEMV_ROWS)];
    const int n0 = tile * NIBBLE_GEMV_ROWS + 2 * (threadIdx.x >> 5);
    if (n0 >= part.outFeatures) return;
    float sum;
    if (a.tokens == 1)
        sum = gemvRows<T, 1>(a, part, n0);
    else if (a.tokens == 2)
        sum = gemvRows<T, 2>(a, part, n0);
    else if (a.tokens <= 4)
        sum = gemvRows<T, 4>(a, part, n0);
    else
        sum = gemvRows<T, 8>(a, part, n0);
    const int m = (threadIdx.x & 31) >> 1, n = n0 + (threadIdx.x & 1);
    if (m < a.tokens && n < part.outFeatures) finishOutput(a.epilogue, part, m, n, sum + (part.bias ? part.bias[n] : 0.f));
}

// GEMV of one token in 16-bit floats, K divisible by 8. Warps take pairs of rows in turn, so any grid size works. A chunk is 256
// columns of a pair. Depth chunks are always in flight; those of the next pair are requested before this pair is reduced.
template <typename T>
struct RowPairs {
    struct Pair {
        int part, n0;
        const uint4 *rows[2];
    };
    struct Chunk {
        uint4 q[2];
    };

    const NibbleLinearArguments &a;
    const uint4 *input;  // shared
    int lane, runs;

    __device__ __forceinline__ Pair pair(int index) const {
        Pair p;
        p.part = layerOfTile(a, index, 2);
        const NibbleLinearLayer &part = a.parts[p.part];
        p.n0 = 2 * index;
#pragma unroll
        for (int r = 0; r < 2; ++r)
            p.rows[r] = (const uint4 *)part.weight + (long long)min(p.n0 + r, part.outFeatures - 1) * runs + lane;
        return p;
    }

    __device__ __forceinline__ void load(Chunk &c, const Pair &p, int chunk) const {
        const bool exists = chunk * 32 + lane < runs;
#pragma unroll
        for (int r = 0; r < 2; ++r) c.q[r] = exists ? loadStreaming(p.rows[r] + chunk * 32) : make_uint4(0, 0, 0, 0);
    }

    __device__ __forceinline__ void consume(const Chunk &c, int chunk, float (&sums)[2]) const {
        float x[8], w[8];
        if (chunk * 32 + lane >= runs) return;
        unpack(input[chunk * 32 + lane], x, T());
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            unpack(c.q[r], w, T());
#pragma unroll
            for (int i = 0; i < 8; ++i) sums[r] = fmaf(w[i], x[i], sums[r]);
        }
    }

    // Lanes 0 and 1 store the sums of a pair; they have already loaded bias and residual.
    __device__ __forceinline__ void store(const Pair &p, const float (&sums)[2], float bias, float residual) const {
        const float sum0 = warpSum(sums[0]), sum1 = warpSum(sums[1]);
        const NibbleLinearLayer &part = a.parts[p.part];
        const int n = p.n0 + lane;
        if (lane < 2 && n < part.outFeatures) finishOutput(a.epilogue, part, 0, n, (lane ? sum1 : sum0) + bias, residual);
    }
};

template <typename T, int Depth>
__device__ __forceinline__ void gemvSingleBody(const NibbleLinearArguments &a) {
    extern __shared__ uint4 stagedRow[];
    using Work = RowPairs<T>;
    const Work work = {a, stagedRow, (int)threadIdx.x & 31, a.inFeatures / 8};
    releaseDependents();
    RowInput<T> row(a.input, a.prologue, a.inFeatures);
    row.prefetchWeights();

    int pairs = 0;
    for (int p = 0; p < a.layerCount; ++p) pairs += (a.parts[p].outFeatures + 1) / 2;
    const int chunks = (work.runs + 31) / 32, step = gridDim.x * (NIBBLE_GEMV_SINGLE_THREADS / 32);
    int index = blockIdx.x * (NIBBLE_GEMV_SINGLE_THREADS / 32) + __shfl_sync(~0u, threadIdx.x >> 5, 0);
    typename Work::Pair pair = work.pair(min(index, pairs - 1));
    typename Work::Chunk q[Depth];
#pragma unroll
    for (int d = 0; d < Depth; ++d)
        if (index < pairs) work.load(q[d], pair, d);
    if (work.lane < 2) prefetchRanks(a.parts[pair.part].lowRank, min(pair.n0 + work.lane, a.parts[pair.part].outFeatures - 1));

    waitForPredecessors();
    if (isUnused(a)) return;
    row.measure();
    row.forEachRun(work.runs, [&](int i, const float (&x)[8]) {
        if (i < work.runs)
            stagedRow[i] =
                make_uint4(packPair<T>(x[0], x[1]), packPair<T>(x[2], x[3]), packPair<T>(x[4], x[5]), packPair<T>(x[6], x[7]));
    });
    __syncthreads();

    for (; index < pairs; index += step) {
        const typename Work::Pair here = pair;
        const NibbleLinearLayer &part = a.parts[here.part];
        float sums[2] = {0.f, 0.f}, bias = 0.f, residual = 0.f;
        if (work.lane < 2 && here.n0 + work.lane < part.outFeatures) {
            if (part.bias) bias = part.bias[here.n0 + work.lane];
            residual = residualAt(a.epilogue, 0, part.firstColumn + here.n0 + work.lane);
        }
        RankPairs<1> ranks[2];
#pragma unroll
        for (int r = 0; r < 2; ++r) ranks[r].fetch(part.lowRank, min(here.n0 + r, part.outFeatures - 1), work.lane, 32);
        for (int from = 0; from < chunks; from += Depth) {
            const bool isLast = from + Depth >= chunks;
            if (isLast && index + step < pairs) pair = work.pair(index + step);
#pragma unroll
            for (int d = 0; d < Depth; ++d) {
                work.consume(q[d], from + d, sums);
                if (!isLast)
                    work.load(q[d], pair, from + Depth + d);
                else if (index + step < pairs)
                    work.load(q[d], pair, d);
            }
        }
#pragma unroll
        for (int r = 0; r < 2; ++r) sums[r] += ranks[r].product(part.lowRank, work.lane, 32);
        work.store(here, sums, bias, residual);
    }
}

// GEMM in float32 arithmetic: a 64 x 64 tile per block, 8 tokens x 4 outputs per thread.
template <typename T>
__device__ __forceinline__ void simtTile(const NibbleLinearArguments &a, const NibbleLinearLayer &part, int m0, int n0) {
    __shared__ float x[16][68], w[16][68];
    const int K = a.inFeatures, M = a.tokens, N = part.outFeatures;
    const int tm = (threadIdx.x >> 4) * 8, tn = (threadIdx.x & 15) * 4;
    float sums[8][4] = {};
    for (int k0 = 0; k0 < K; k0 += 16) {
        for (int i = threadIdx.x; i < 1024; i += 128) {
            const int row = i >> 4, k = k0 + (i & 15);
            x[i & 15][row] = m0 + row < M && k < K ? toFloat(((const T *)a.input)[(long long)(m0 + row) * K + k]) : 0.f;
            w[i & 15][row] = n0 + row < N && k < K ? toFloat(((const T *)part.weight)[(long long)(n0 + row) * K + k]) : 0.f;
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < 16; ++k) {
            const float4 x0 = *(const float4 *)&x[k][tm], x1 = *(const float4 *)&x[k][tm + 4], y = *(const float4 *)&w[k][tn];
            const float xs[8] = {x0.x, x0.y, x0.z, x0.w, x1.x, x1.y, x1.z, x1.w}, ws[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
            for (int i = 0; i < 8; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) sums[i][j] = fmaf(xs[i], ws[j], sums[i][j]);
        }
        __syncthreads();
    }
    __shared__ float all[64][65];
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) all[tm + i][tn + j] = sums[i][j];
    __syncthreads();
    const int n = n0 + (threadIdx.x & 63);
    if (n >= N) return;
#pragma unroll 1
    for (int m = threadIdx.x >> 6; m < 64 && m0 + m < M; m += 2)
        finishOutput(a.epilogue, part, m0 + m, n, all[m][threadIdx.x & 63] + (part.bias ? part.bias[n] : 0.f));
}

template <typename T>
__device__ __forceinline__ void tensorTile(const NibbleLinearArguments &a, const NibbleLinearLayer &part, int m0, int n0) {
    __shared__ __align__(128) u8 shared[TILE_STAGES * 16384];
    const long long bytes = (long long)a.inFeatures * sizeof(T);
    const TileOperand input = {(const u8 *)a.input, bytes, bytes, a.tokens, bytes % 16 == 0};
    const TileOperand weight = {(const u8 *)part.weight, bytes, bytes, part.outFeatures, bytes % 16 == 0};
    float c[2][4][4];
    tileProduct<T>(shared, input, weight, m0, n0, c);
    forEachProduct(shared, c, m0, n0, a.tokens, part.outFeatures, [&](int m, int n, float product) {
        finishOutput(a.epilogue, part, m, n, product + (part.bias ? part.bias[n] : 0.f));
    });
}

template <typename T>
struct TensorCores {
    static constexpr bool have = false;
};
template <>
struct TensorCores<f16> {
    static constexpr bool have = true;
};
#if __CUDA_ARCH__ >= 800
template <>
struct TensorCores<bf16> {
    static constexpr bool have = true;
};
#endif

template <typename T>
__device__ __forceinline__ void gemmBody(const NibbleLinearArguments &a) {
    releaseDependents();
    if (isUnused(a)) return;
    waitForPredecessors();
    int tile = blockIdx.x;
    const NibbleLinearLayer &part = a.parts[layerOfTile(a, tile, NIBBLE_GEMM_TILE_N)];
    if constexpr (TensorCores<T>::have)
        tensorTile<T>(a, part, blockIdx.y * NIBBLE_GEMM_TILE_M, tile * NIBBLE_GEMM_TILE_N);
    else
        simtTile<T>(a, part, blockIdx.y * NIBBLE_GEMM_TILE_M, tile * NIBBLE_GEMM_TILE_N);
}

#ifndef NIBBLE_EXPERTS
#define INSTANCE_16(T)                                                                                    \
    extern "C" __global__ void __launch_bounds__(NIBBLE_GEMV_SINGLE_THREADS, NIBBLE_GEMV_SINGLE_RESIDENT) \
        gemv_single_##T(const __grid_constant__ NibbleLinearArguments a) {                                \
        if constexpr (IS_WANTED(gemv_single_##T)) gemvSingleBody<T, 8>(a);                                \
    }
#define INSTANCE_f32(T)
#define INSTANCE_f16(T) INSTANCE_16(T)
#define INSTANCE_bf16(T) INSTANCE_16(T)
#define INSTANCE(T)                                                                   \
    INSTANCE_##T(T) extern "C" __global__ void __launch_bounds__(NIBBLE_GEMV_THREADS) \
        gemv_##T(const __grid_constant__ NibbleLinearArguments a) {                   \
        if constexpr (IS_WANTED(gemv_##T)) gemvBody<T>(a);                            \
    }                                                                                 \
    extern "C" __global__ void __launch_bounds__(NIBBLE_GEMM_THREADS)                 \
        gemm_##T(const __grid_constant__ NibbleLinearArguments a) {                   \
        if constexpr (IS_WANTED(gemm_##T)) gemmBody<T>(a);                            \
    }
NIBBLE_FOR_TYPES(INSTANCE)
#endif
