// The router of a mixture with the norm before it and the choice after it, for some tokens.
#include "route.cuh"
#include "row_input.cuh"
#include "warpgroup.cuh"

// The blocks of a cluster share a token's experts; without clusters, one block has them all.
#if NIBBLE_HAS_WARPGROUPS
__device__ __forceinline__ int routerRank() { return clusterRank(); }
__device__ __forceinline__ int routerBlocks() { return clusterSize(); }
#else
__device__ __forceinline__ int routerRank() { return 0; }
__device__ __forceinline__ int routerBlocks() { return 1; }
#endif

// The first block of a cluster collects the logits of all. Those of a block lie at `own`, `count` of them.
__device__ __forceinline__ void collectLogits(float *all, const float *own, int count, int experts) {
#if NIBBLE_HAS_WARPGROUPS
    syncCluster();
    if (routerRank() == 0)
        for (int i = threadIdx.x; i < experts; i += blockDim.x)
            all[i] = loadFromCluster(sharedAddress(own + i % count), i / count);
    meetCluster();
#else
    __syncthreads();
    for (int i = threadIdx.x; i < experts; i += blockDim.x) all[i] = own[i];
#endif
    __syncthreads();
}

// The block's rows of the weight come to shared memory ahead of the kernels before; behind them lie the token as the prologue
// leaves it, the block's logits, and those of all experts.
template <typename T>
__device__ __forceinline__ void routerBody(const NibbleRouterArguments &a) {
    extern __shared__ uint4 weights[];
    const int runs = a.inFeatures / 8, experts = a.route.experts, size = routerBlocks(), rank = routerRank();
    const int most = (experts + size - 1) / size, first = rank * most, count = max(min(most, experts - first), 0);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, t = blockIdx.x / size;
    uint4 *token = weights + most * runs;
    float *own = (float *)(token + runs), *logits = own + most;
    releaseDependents();
    for (int i = threadIdx.x; i < count * runs; i += NIBBLE_ROUTER_THREADS)
        copyAsync16(sharedAddress(weights + i), (const uint4 *)a.weight + (long long)first * runs + i, true);
    commitCopies();
    RowInput<T> row((const u8 *)a.input + (long long)t * a.inFeatures * (a.prologue.kind == NIBBLE_PROLOGUE_NONE ? sizeof(T) : 4),
                    a.prologue, a.inFeatures);
    row.prefetchWeights();
    waitForPredecessors();
    row.measure();
    row.forEachRun(runs, [&](int i, const float (&x)[8]) {
        if (i >= runs) return;
        token[i] = packEight<T>(x);
        if (a.prepared && rank == 0) ((uint4 *)a.prepared)[(long long)t * runs + i] = token[i];
    });
    waitCopies<0>();
    __syncthreads();
    for (int expert = warp; expert < count; expert += NIBBLE_ROUTER_THREADS / 32) {
        float sum = 0.f;
#pragma unroll 4
        for (int i = lane; i < runs; i += 32) {
            float x[8], w[8];
            unpack(token[i], x, T());
            unpack(weights[expert * runs + i], w, T());
#pragma unroll
            for (int j = 0; j < 8; ++j) sum = fmaf(w[j], x[j], sum);
        }
        sum = warpSum(sum);
        if (lane == 0) own[expert] = sum + (a.bias ? a.bias[first + expert] : 0.f);
    }
    collectLogits(logits, own, most, experts);
    if (rank == 0 && warp == 0) chooseExperts(a.route, logits, t, lane);
}

#define INSTANCE_f32(T)
#define INSTANCE_16(T)                                                  \
    extern "C" __global__ void __launch_bounds__(NIBBLE_ROUTER_THREADS) \
        router_##T(const __grid_constant__ NibbleRouterArguments a) {   \
        routerBody<T>(a);                                               \
    }
#define INSTANCE_f16(T) INSTANCE_16(T)
#define INSTANCE_bf16(T) INSTANCE_16(T)
#define INSTANCE(T) INSTANCE_##T(T)
NIBBLE_FOR_TYPES(INSTANCE)
