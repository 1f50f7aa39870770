// Selects the next token of each row as the record of its slot asks for.
#include "select.cuh"

// The slot of a row; negative if it has none.
__device__ __forceinline__ int slotOf(const NibbleSelectArguments &a, int r) {
    const int slot = a.slots[r];
    return slot < a.slotCount ? slot : -1;
}

// Rounded like the CPU's: no product is fused with a sum.
__device__ __forceinline__ float penalized(float x, int count, const nibble_selection_record &record) {
    x = x < 0.f ? __fmul_rn(x, record.repetition) : __fdiv_rn(x, record.repetition);
    const int generated = count >> 1;
    if (generated == 0) return x;
    return __fsub_rn(__fsub_rn(x, record.presence), __fmul_rn(record.frequency, (float)generated));
}

// Penalties and mask, token by token. A masked token stays at -infinity whatever finite bias follows.
__device__ void adjustAll(const NibbleSelectArguments &a, const nibble_selection_record &record, int slot, float *logits,
                          int first, int last) {
    const int *counts = record.flags & nibble_slot_counts ? a.counts + (long long)slot * a.vocabulary : nullptr;
    const u32 *mask = record.flags & nibble_slot_masks ? a.masks + (long long)slot * ((a.vocabulary + 31) / 32) : nullptr;
#pragma unroll 4
    for (int v = first + threadIdx.x; v < last; v += blockDim.x) {
        const int count = counts ? counts[v] : 0;
        const bool isAllowed = !mask || (mask[v >> 5] >> (v & 31) & 1);
        if (!isAllowed)
            logits[v] = -NIBBLE_INFINITY;
        else if (count != 0)
            logits[v] = penalized(logits[v], count, record);
    }
}

// Adjusts the logits first ..< last of a row; by a block. Tokens of the bias differ, and so do end tokens.
__device__ void adjust(const NibbleSelectArguments &a, const nibble_selection_record &record, int r, int slot, float *logits,
                       int first, int last) {
    const int biasCount = record.bias_count;
    const int endCount = a.counters[r] < record.minimum_tokens ? record.end_count : 0;
    if (record.flags) adjustAll(a, record, slot, logits, first, last);
    const int *tokens = a.biasTokens + (long long)slot * a.biasLimit;
    const float *values = a.biasValues + (long long)slot * a.biasLimit;
    if (biasCount > 0) {
        __syncthreads();
        for (int i = threadIdx.x; i < biasCount; i += blockDim.x) {
            const int token = tokens[i];
            if (token >= first && token < last) logits[token] += values[i];
        }
    }
    if (endCount > 0) {
        __syncthreads();
        for (int i = threadIdx.x; i < endCount; i += blockDim.x) {
            const int token = tokens[biasCount + i];
            if (token >= first && token < last) logits[token] = -NIBBLE_INFINITY;
        }
    }
    __syncthreads();
}

// Adjusts a part of a row and finds its largest logit. grid (NIBBLE_SELECT_PARTS, R), block 256.
extern "C" __global__ void __launch_bounds__(256) select_largest(const __grid_constant__ NibbleSelectArguments a) {
    beginKernel();
    const int r = blockIdx.y, slot = slotOf(a, r);
    if (slot < 0) return;
    const int words = (a.vocabulary + 31) / 32, perPart = (words + NIBBLE_SELECT_PARTS - 1) / NIBBLE_SELECT_PARTS;
    const int first = 32 * min((int)blockIdx.x * perPart, words);
    const int last = min(first + 32 * perPart, a.vocabulary);
    float *logits = a.logits + (long long)r * a.vocabulary;
    adjust(a, a.records[slot], r, slot, logits, first, last);
    const NibbleLargest best = argmax(logits, first, last);
    if (threadIdx.x == 0) a.largest[r * NIBBLE_SELECT_PARTS + blockIdx.x] = best;
}

// From the largest logits of the parts; draws where the record has a temperature. grid R, block 1024
extern "C" __global__ void __launch_bounds__(1024) select_tokens(const __grid_constant__ NibbleSelectArguments a) {
    beginKernel();
    const int r = blockIdx.x, slot = slotOf(a, r);
    if (slot < 0) {
        if (threadIdx.x == 0) a.tokens[r] = NIBBLE_NO_SLOT;
        return;
    }
    const nibble_selection_record &record = a.records[slot];
    static_assert(NIBBLE_SELECT_PARTS == 32, "a lane for each part");
    const NibbleLargest best = largestOfWarp(a.largest[r * NIBBLE_SELECT_PARTS + (threadIdx.x & 31)]);
    int token = NIBBLE_NO_TOKEN;
    if (best.value > -NIBBLE_INFINITY) token = best.token >= 0 ? best.token : NIBBLE_NOT_A_NUMBER;
    if (record.temperature > 0.f && token >= 0) {
        const Sampling sampling{record.temperature, record.top_p,  record.min_p,           record.top_k,
                                record.seed,        record.stream, (u64)(u32)a.counters[r]};
        token = draw(a.logits + (long long)r * a.vocabulary, a.vocabulary, best.value, sampling);
    }
    if (threadIdx.x != 0) return;
    a.tokens[r] = token;
    a.latest[slot] = token;
    if (token >= 0 && record.flags & nibble_slot_counts) a.counts[(long long)slot * a.vocabulary + token] += 2;
}

// One thread a token; block 128.
extern "C" __global__ void fill_tokens(const __grid_constant__ NibbleFillTokensArguments a) {
    beginKernel();
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= a.count || a.tokens[i] >= 0) return;
    const int slot = -1 - a.tokens[i];
    a.tokens[i] = slot < a.slotCount ? max(a.latest[slot], 0) : 0;
}
