// Routes tokens to experts.
#include "route.cuh"

// One warp a token; grid (T / NIBBLE_ROUTE_WARPS rounded up), block 32 * NIBBLE_ROUTE_WARPS.
extern "C" __global__ void route(const __grid_constant__ NibbleRouteArguments a) {
    beginKernel();
    const int t = blockIdx.x * NIBBLE_ROUTE_WARPS + threadIdx.x / 32;
    if (t < a.tokens) chooseExperts(a, a.logits + (long long)t * a.experts, t, threadIdx.x % 32);
}

// Weights by expert and token, zeroed by the host; grid (T * k / 256 rounded up), block 256.
extern "C" __global__ void spread_weights(const __grid_constant__ NibbleSpreadArguments a) {
    beginKernel();
    const int i = blockIdx.x * 256 + threadIdx.x;
    if (i >= a.tokens * a.topK) return;
    const int expert = a.ids[i];
    if (expert < 0 || expert >= a.experts) return;
    const float weight = a.weights[i];
    a.spread[(long long)expert * a.tokens + i / a.topK] = weight == 0.f ? 1.2e-38f : weight;
}
