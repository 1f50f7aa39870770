// The router of a mixture with the norm before it and the choice after it, for a few tokens.
#include "route.cuh"
#include "mma.cuh"
#include "row_input.cuh"

// A block serves one token. The router's weights come to shared memory ahead of the kernels before; behind them lie the token as
// the prologue leaves it, and its logits. Neither the weights nor K exceed NIBBLE_ROUTER_SHARED.
template <typename T>
__device__ __forceinline__ void routerBody(const NibbleRouterArguments &a) {
    extern __shared__ uint4 weights[];
    const int runs = a.inFeatures / 8, experts = a.route.experts, t = blockIdx.x;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    uint4 *token = weights + experts * runs;
    float *logits = (float *)(token + runs);
    releaseDependents();
    for (int i = threadIdx.x; i < experts * runs; i += NIBBLE_ROUTER_THREADS)
        copyAsync16(sharedAddress(weights + i), (const uint4 *)a.weight + i, true);
    commitCopies();
    RowInput<T> row((const u8 *)a.input + (long long)t * a.inFeatures * (a.prologue.kind == NIBBLE_PROLOGUE_NONE ? sizeof(T) : 4),
                    a.prologue, a.inFeatures);
    row.prefetchWeights();
    waitForPredecessors();
    row.measure();
    row.forEachRun(runs, [&](int i, const float (&x)[8]) {
        if (i >= runs) return;
        token[i] = packEight<T>(x);
        if (a.prepared) ((uint4 *)a.prepared)[(long long)t * runs + i] = token[i];
    });
    waitCopies<0>();
    __syncthreads();
    for (int expert = warp; expert < experts; expert += NIBBLE_ROUTER_THREADS / 32) {
        float sum = 0.f;
        for (int i = lane; i < runs; i += 32) {
            float x[8], w[8];
            unpack(token[i], x, T());
            unpack(weights[expert * runs + i], w, T());
#pragma unroll
            for (int j = 0; j < 8; ++j) sum = fmaf(w[j], x[j], sum);
        }
        sum = warpSum(sum);
        if (lane == 0) logits[expert] = sum + (a.bias ? a.bias[expert] : 0.f);
    }
    __syncthreads();
    if (warp == 0) chooseExperts(a.route, logits, t, lane);
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
