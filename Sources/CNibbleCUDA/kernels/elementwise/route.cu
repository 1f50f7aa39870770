// Routes tokens to experts: the top-k experts of each token and their weights.
#include "common.cuh"

// One thread a token; block 128.
extern "C" __global__ void route(const __grid_constant__ NibbleRouteArguments a) {
    beginKernel();
    const int t = blockIdx.x * blockDim.x + threadIdx.x;
    if (t >= a.tokenCount) return;
    const float *logits = a.routerLogits + (long long)t * a.experts;
    float *weights = a.weights + t;
    const long long stride = a.tokenCount;

    float largest = -NIBBLE_INFINITY;
    for (int x = 0; x < a.experts; x++) {
        largest = fmaxf(largest, logits[x]);
        weights[x * stride] = 0.f;
    }
    float total = 0.f;
    for (int x = 0; x < a.experts; x++) total += expf(logits[x] - largest);

    float chosen = 0.f;
    for (int k = 0; k < a.topK; k++) {
        int best = -1;
        for (int x = 0; x < a.experts; x++)
            if (weights[x * stride] == 0.f && (best < 0 || logits[x] > logits[best])) best = x;
        if (best < 0) break;
        // Never exactly 0, which marks an expert that was not chosen.
        const float p = fmaxf(expf(logits[best] - largest) / total, 1.2e-38f);
        weights[best * stride] = p;
        chosen += p;
    }
    if (!a.normalizesWeights) return;
    for (int x = 0; x < a.experts; x++) weights[x * stride] /= chosen;
}
