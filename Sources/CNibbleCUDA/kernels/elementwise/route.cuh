// The k experts of a token and their weights.
#pragma once
#include "common.cuh"

// The order of choice values: the larger first, the lower expert first among equals.
__device__ __forceinline__ bool precedes(float a, int x, float b, int y) { return a > b || (a == b && x < y); }

// NaN must stay visible, so an expert with it is chosen first.
__device__ __forceinline__ float nanIsLargest(float x) { return isnan(x) ? NIBBLE_INFINITY : x; }

// The scores of one token, whose lanes work on every 32nd expert.
struct RouterRow {
    const NibbleRouteArguments &a;
    const float *logits;
    float largest = -NIBBLE_INFINITY, total = 0.f;

    __device__ __forceinline__ RouterRow(const NibbleRouteArguments &a, const float *logits, int lane) : a(a), logits(logits) {
        if (a.isSigmoid) return;
        for (int x = lane; x < a.experts; x += 32) largest = fmaxf(largest, logits[x]);
        largest = warpMax(largest);
        for (int x = lane; x < a.experts; x += 32) total += expf(logits[x] - largest);
        total = warpSum(total);
    }

    __device__ __forceinline__ float score(int x) const {
        return a.isSigmoid ? 1.f / (1.f + expf(-logits[x])) : expf(logits[x] - largest) / total;
    }

    __device__ __forceinline__ float choice(int x) const {
        if (!a.choiceBias && a.groups == 0) return nanIsLargest(logits[x]);
        return nanIsLargest(score(x) + (a.choiceBias ? a.choiceBias[x] : 0.f));
    }

    // A bit for each group whose experts are eligible. A lane takes a group.
    __device__ __forceinline__ u32 openGroups(int lane) const {
        const int size = a.experts / a.groups;
        float best = -NIBBLE_INFINITY, second = -NIBBLE_INFINITY;
        for (int i = 0; lane < a.groups && i < size; ++i) {
            const float value = choice(lane * size + i);
            second = fmaxf(second, fminf(best, value));
            best = fmaxf(best, value);
        }
        const float score = a.sumsBestTwo ? nanIsLargest(best + second) : best;
        int rank = 0;
        for (int g = 0; g < a.groups; ++g) rank += precedes(__shfl_sync(~0u, score, g), g, score, lane);
        return __ballot_sync(~0u, lane < a.groups && rank < a.chosenGroups);
    }
};

// Chooses the experts of token t, by the lanes of one warp. `logits` are the token's.
__device__ __forceinline__ void chooseExperts(const NibbleRouteArguments &a, const float *logits, int t, int lane) {
    constexpr int held = 8;  // choice values that a lane keeps
    const RouterRow row(a, logits, lane);
    const u32 open = a.groups ? row.openGroups(lane) : 0;
    const int size = a.groups ? a.experts / a.groups : a.experts;
    auto value = [&](int x) { return a.groups && !(open >> x / size & 1) ? -NIBBLE_INFINITY : row.choice(x); };
    float values[held];
#pragma unroll
    for (int i = 0; i < held; ++i) values[i] = lane + 32 * i < a.experts ? value(lane + 32 * i) : -NIBBLE_INFINITY;

    int *ids = a.ids + (long long)t * a.topK;
    float *weights = a.weights + (long long)t * a.topK, sum = 0.f, last = NIBBLE_INFINITY;
    int lastExpert = -1;
    for (int k = 0; k < a.topK; ++k) {
        // The first expert behind the last chosen one.
        float best = -NIBBLE_INFINITY;
        int expert = a.experts;
        auto offer = [&](float v, int x) {
            if (x >= a.experts || !precedes(last, lastExpert, v, x) || !precedes(v, x, best, expert)) return;
            best = v;
            expert = x;
        };
#pragma unroll
        for (int i = 0; i < held; ++i) offer(values[i], lane + 32 * i);
        for (int x = lane + 32 * held; x < a.experts; x += 32) offer(value(x), x);
#pragma unroll
        for (int d = 16; d > 0; d >>= 1) {
            const float other = __shfl_xor_sync(~0u, best, d);
            const int otherExpert = __shfl_xor_sync(~0u, expert, d);
            if (precedes(other, otherExpert, best, expert)) {
                best = other;
                expert = otherExpert;
            }
        }
        const float score = row.score(expert);
        if (lane == 0) {
            ids[k] = expert;
            weights[k] = score;
        }
        sum += score;
        last = best;
        lastExpert = expert;
    }
    __syncwarp();
    const float divisor = a.normalizes ? fmaxf(sum + a.added, a.least) : 1.f;
    for (int k = lane; k < a.topK; k += 32) {
        const float weight = weights[k] / divisor * a.scale;
        weights[k] = a.expertScale ? weight * a.expertScale[ids[k]] : weight;
    }
}
