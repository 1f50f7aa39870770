// Selects the next token of each row with the same parameters for all, and advances rows to the next position.
#include "select.cuh"

// MARK: Sets of tokens

// Applies the repetition penalty and removes forbidden tokens, among the tokens of the words first ..< last.
__device__ void mask(const NibbleSelectArguments &a, int r, float *logits, int first, int last) {
    u32 *seen = a.seen ? a.seen + (long long)r * ((a.vocabulary + 31) / 32) : nullptr;
    if (seen && a.latest && threadIdx.x == 0) {
        const u32 token = (u32)a.latest[r];
        const int word = (int)(token / 32);
        if (token < (u32)a.vocabulary && word >= first && word < last) seen[word] |= 1u << (token % 32);
    }
    __syncthreads();
    for (int w = first + threadIdx.x; w < last; w += blockDim.x) {
        for (u32 set = seen ? seen[w] : 0; set; set &= set - 1) {
            float *x = logits + 32 * w + __ffs(set) - 1;
            *x = *x < 0.f ? *x * a.penalty : *x / a.penalty;
        }
        for (u32 set = a.forbidden ? a.forbidden[w] : 0; set; set &= set - 1) logits[32 * w + __ffs(set) - 1] = -NIBBLE_INFINITY;
    }
    __syncthreads();
}

// Masks a part of a row and finds its largest logit. grid (NIBBLE_SELECT_PARTS, R), block 256.
extern "C" __global__ void __launch_bounds__(256) select_largest(const __grid_constant__ NibbleSelectArguments a) {
    beginKernel();
    const int r = blockIdx.y, words = (a.vocabulary + 31) / 32;
    const int perPart = (words + NIBBLE_SELECT_PARTS - 1) / NIBBLE_SELECT_PARTS;
    const int first = min((int)blockIdx.x * perPart, words), last = min(first + perPart, words);
    float *logits = a.logits + (long long)r * a.vocabulary;
    if (a.seen || a.forbidden) mask(a, r, logits, first, last);
    const NibbleLargest best = argmax(logits, 32 * first, min(32 * last, a.vocabulary));
    if (threadIdx.x == 0) a.largest[r * NIBBLE_SELECT_PARTS + blockIdx.x] = best;
}

// From the largest logits of the parts; draws where a temperature is given. grid R, block 1024
extern "C" __global__ void select_tokens(const __grid_constant__ NibbleSelectArguments a) {
    beginKernel();
    const int r = blockIdx.x;
    const float *logits = a.logits + (long long)r * a.vocabulary;
    static_assert(NIBBLE_SELECT_PARTS == 32, "a lane for each part");
    const NibbleLargest best = largestOfWarp(a.largest[r * NIBBLE_SELECT_PARTS + (threadIdx.x & 31)]);
    const float largest = best.value;
    int token = largest > -NIBBLE_INFINITY ? best.token : -1;
    if (a.temperature > 0.f && token >= 0) {
        const Sampling sampling{a.temperature, a.topP, a.minP, a.topK, a.seed, a.firstStream + (u64)r, (u64)(u32)a.counters[r]};
        token = draw(logits, a.vocabulary, largest, sampling);
    }
    if (threadIdx.x == 0) a.tokens[r] = token;
}

// One thread a row; block 128.
extern "C" __global__ void advance(const __grid_constant__ NibbleAdvanceArguments a) {
    beginKernel();
    const int r = blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= a.batch.rowCount) return;
    a.batch.tokens[r] = a.tokens[r];
    a.batch.positions[r] += 1;
    a.batch.lengths[r] += 1;
    a.counters[r] += 1;
}
