// Linear layers with dense 16-bit weights for up to eight tokens, on tensor cores. Bound by reading the weight: for layers with
// too few outputs for a library's product to fill the card.
//
// A block computes 16 outputs, and its warps divide K in steps of 32 columns. The weight is the first operand of the products,
// straight from memory: a lane takes eight neighbouring columns of rows g and g + 8, which are the words of two products. Columns
// are the same permutation of K in both operands.
#include "mma.cuh"

#define WARPS (NIBBLE_DENSE_FEW_THREADS / 32)

// 16 bytes of rows g and g + 8 of the weight.
struct WeightStep {
    uint4 rows[2];
};

template <typename T, int Depth>
__device__ __forceinline__ void denseFewBody(const NibbleLinearArguments &a) {
    __shared__ float all[WARPS][8][20];
    releaseDependents();
    int tile = blockIdx.x;
    const NibbleLinearLayer &part = a.parts[layerOfTile(a, tile, 16)];
    const int lane = threadIdx.x & 31, warp = __shfl_sync(~0u, threadIdx.x >> 5, 0), g = lane >> 2, t = lane & 3;
    const int K = a.inFeatures, steps = (K + 31) / 32;
    const T *rows[2];
#pragma unroll
    for (int h = 0; h < 2; ++h)
        rows[h] = (const T *)part.weight + (long long)min(tile * 16 + g + 8 * h, part.outFeatures - 1) * K + 8 * t;
    auto load = [&](WeightStep &q, int step) {
        const bool exists = step * 32 + 8 * t < K;
#pragma unroll
        for (int h = 0; h < 2; ++h) q.rows[h] = exists ? loadStreaming(rows[h] + step * 32) : make_uint4(0, 0, 0, 0);
    };
    WeightStep q[Depth];
#pragma unroll
    for (int d = 0; d < Depth; ++d) load(q[d], warp + d * WARPS);
    waitForPredecessors();
    if (isUnused(a)) return;

    // Tokens past the last one repeat it; their products are not stored.
    const T *token = (const T *)a.input + (long long)min(g, a.tokens - 1) * K + 8 * t;
    auto loadToken = [&](int step) {
        return step * 32 + 8 * t < K ? *(const uint4 *)(token + step * 32) : make_uint4(0, 0, 0, 0);
    };
    uint4 x[Depth];
#pragma unroll
    for (int d = 0; d < Depth; ++d) x[d] = loadToken(warp + d * WARPS);
    float sums[4] = {0.f, 0.f, 0.f, 0.f};
    for (int first = warp; first < steps; first += Depth * WARPS) {
#pragma unroll
        for (int d = 0; d < Depth; ++d) {
            const u32 low[4] = {q[d].rows[0].x, q[d].rows[1].x, q[d].rows[0].y, q[d].rows[1].y};
            const u32 high[4] = {q[d].rows[0].z, q[d].rows[1].z, q[d].rows[0].w, q[d].rows[1].w};
            mmaK16(T(), sums, low, x[d].x, x[d].y);
            mmaK16(T(), sums, high, x[d].z, x[d].w);
            // Past the end zeros are loaded.
            load(q[d], first + (d + Depth) * WARPS);
            x[d] = loadToken(first + (d + Depth) * WARPS);
        }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) all[warp][2 * t + (i & 1)][g + 4 * (i & 2)] = sums[i];
    __syncthreads();
    const int m = threadIdx.x / 16, row = threadIdx.x % 16, output = tile * 16 + row;
    if (m >= a.tokens || output >= part.outFeatures) return;
    float sum = part.bias ? part.bias[output] : 0.f;
#pragma unroll
    for (int w = 0; w < WARPS; ++w) sum += all[w][m][row];
    finishOutput(a.epilogue, part, m, output, sum);
}

#define KERNEL(T)                                                             \
    extern "C" __global__ void __launch_bounds__(NIBBLE_DENSE_FEW_THREADS, 3) \
        dense_few_##T(const __grid_constant__ NibbleLinearArguments a) {      \
        denseFewBody<T, 3>(a);                                                \
    }
#define INSTANCE_f32(T)
#define INSTANCE_f16(T) KERNEL(T)
#if __CUDA_ARCH__ >= 800
#define INSTANCE_bf16(T) KERNEL(T)
#else
// There are no products of bfloat16 values.
#define INSTANCE_bf16(T) \
    extern "C" __global__ void dense_few_##T(const __grid_constant__ NibbleLinearArguments a) { beginKernel(); }
#endif
#define INSTANCE(T) INSTANCE_##T(T)
NIBBLE_FOR_TYPES(INSTANCE)
