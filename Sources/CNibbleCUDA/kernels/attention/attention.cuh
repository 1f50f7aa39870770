// Shared by all attention kernels: addresses of queries, keys and values, and the score function.
#pragma once
#include "common.cuh"

#define LOG2_E 1.4426950408889634f

// Element offset of head h of token t in the queries.
__device__ __forceinline__ long long queryOffset(const NibbleAttentionArguments &a, long long t, int h) {
    return t * a.queryStride + a.queryOffset + (long long)(h / a.queryGroup) * a.queryHeadStride +
           (long long)(h % a.queryGroup) * a.keySize;
}

// T5's buckets of distances (arXiv 1910.10683): exact up to half of a direction's buckets, then logarithmic.
__device__ __forceinline__ int relativeBucket(int distance, int buckets, int isBidirectional, int maximumDistance) {
    int bucket = 0, n = buckets, steps;
    if (isBidirectional) {
        n /= 2;
        bucket = distance > 0 ? n : 0;
        steps = abs(distance);
    } else {
        steps = max(-distance, 0);
    }
    const int exact = n / 2;
    if (steps < exact || exact == 0) return bucket + min(steps, n - 1);
    const float position = logf((float)steps / (float)exact) / logf((float)maximumDistance / (float)exact) * (float)(n - exact);
    return bucket + min(n - 1, exact + (int)fminf(position, 1e6f));
}

// Scores of one head: cap(q·k × scale) + bias, −∞ where the key is hidden from the query.
struct ScoreRule {
    const NibbleAttentionArguments &a;
    int head;
    float slope;

    __device__ __forceinline__ ScoreRule(const NibbleAttentionArguments &arguments, int h) : a(arguments), head(h) {
        slope = a.bias == NIBBLE_BIAS_ALIBI ? a.biasTable[h] : 0.f;
    }

    __device__ __forceinline__ bool sees(int position, int key, int length) const {
        return key < length && !(a.isCausal && key > position) && !(a.window > 0 && position - key >= a.window);
    }

    __device__ __forceinline__ float operator()(float product, int position, int key, int length) const {
        float s = product * a.scale;
        if (a.softCap > 0.f) s = a.softCap * tanhf(s / a.softCap);
        if (a.bias == NIBBLE_BIAS_ALIBI)
            s += slope * (float)(key - position);
        else if (a.bias == NIBBLE_BIAS_RELATIVE)
            s += a.biasTable[relativeBucket(key - position, a.buckets, a.isBidirectional, a.maximumDistance) * a.heads + head];
        return sees(position, key, length) ? s : -NIBBLE_INFINITY;
    }

    // The keys that a query could see: first ..< last.
    __device__ __forceinline__ int first(int position) const { return a.window > 0 ? max(0, position - a.window + 1) : 0; }
    __device__ __forceinline__ int last(int position, int length) const {
        return a.isCausal ? min(length, position + 1) : length;
    }
};

// The score of head h's sink, −∞ where there is none.
__device__ __forceinline__ float sinkOf(const NibbleAttentionArguments &a, int h) {
    return a.sinks ? a.sinks[h] : -NIBBLE_INFINITY;
}

// The index of a panel, one key/value head g of one cache block: the block that holds position `key` of row `row`.
__device__ __forceinline__ long long panelIndex(const NibbleAttentionArguments &a, int row, int key, int g) {
    const int block = a.batch.blockTable[(long long)row * a.batch.blockTableStride + key / NIBBLE_CACHE_BLOCK];
    return (long long)block * a.keyValueHeads + g;
}

// Element offset of that panel in a dense cache.
__device__ __forceinline__ long long cacheOffset(const NibbleAttentionArguments &a, int row, int key, int g, int size) {
    return panelIndex(a, row, key, g) * NIBBLE_CACHE_BLOCK * size;
}

__device__ __forceinline__ float dividedOrZero(float sum, float denominator) {
    return denominator > 0.f ? sum / denominator : 0.f;
}

// Reads a result that another block wrote, bypassing L1.
__device__ __forceinline__ float loadFresh(const float *p) {
    float x;
    asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(x) : "l"(p) : "memory");
    return x;
}

__device__ __forceinline__ float powerOfTwo(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float tanhOf(float x) {
    const float y = 1.f - 2.f / (1.f + __expf(2.f * fabsf(x)));
    return x < 0.f ? -y : y;
}
