// The low-rank sums of adapters, ahead of a product: `shrink` gives weight * scale * (A . x), `expand` multiplies that by B.
// Products add the result when they store their outputs. Kernels for one token multiply by B themselves (rank_pairs.cuh).
#include "input_turns.cuh"
#include "mma.cuh"
#include "row_input.cuh"

// MARK: A

// The layer that holds rank `rank` of all layers; `rank` becomes its number there.
__device__ __forceinline__ const NibbleShrinkLayer &layerOfRank(const NibbleShrinkArguments &a, int &rank) {
    int p = 0;
    for (; p < a.layerCount - 1 && rank >= a.layers[p].ranks; ++p) rank -= a.layers[p].ranks;
    return a.layers[p];
}

// Eight elements as they lie in memory, read ahead of a predecessor: A is a weight.
__device__ __forceinline__ Run fetchRun(const void *p, long long i, int type) {
    Run run = {make_uint4(0, 0, 0, 0), make_uint4(0, 0, 0, 0)};
    run.low = loadStreaming((const char *)p + i * (type == NIBBLE_F32 ? 4 : 2));
    if (type == NIBBLE_F32) run.high = loadStreaming((const float *)p + i + 4);
    return run;
}

__device__ __forceinline__ void unpackRun(const Run &run, int type, float (&x)[8]) {
    if (type == NIBBLE_F16) return unpack(run.low, x, f16());
    if (type == NIBBLE_BF16) return unpack(run.low, x, bf16());
    float4 low = *(const float4 *)&run.low, high = *(const float4 *)&run.high;
    x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w, x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
}

// One token: a block takes one rank. Its row of A is on the way before the input is known. With a prologue the blocks store the
// prepared input in turn, so that the product need not prepare it again.
template <typename T>
__device__ __forceinline__ void shrinkSingleBody(const NibbleShrinkArguments &a) {
    constexpr int Depth = 6;
    releaseDependents();
    int rank = blockIdx.x;
    const NibbleShrinkLayer &layer = layerOfRank(a, rank);
    const int runs = a.inFeatures / 8;
    const float factor = adapterWeight(a.weights, a.weightStride, a.slots, 0, layer.adapters[rank]) * layer.scales[rank];
    bool isUsed = factor != 0.f, prepares = a.prepared;
    RowInput<T> row(a.input, a.prologue, a.inFeatures);
    Run ahead[Depth];
    if (isUsed || prepares) row.prefetchWeights();
    if (isUsed) {
#pragma unroll
        for (int d = 0; d < Depth; ++d) {
            const int i = threadIdx.x + d * NIBBLE_SHRINK_THREADS;
            if (i < runs) ahead[d] = fetchRun(layer.a, (long long)rank * a.inFeatures + 8 * i, layer.type);
        }
    }
    waitForPredecessors();
    if (a.activeRows && a.activeRows[0] == 0.f) isUsed = prepares = false;
    float sum = 0.f;
    if (isUsed || prepares) row.measure();
    if (prepares) {
        const int own = (runs + gridDim.x - 1) / gridDim.x, first = blockIdx.x * own;
        for (int i = first + threadIdx.x; i < min(first + own, runs); i += NIBBLE_SHRINK_THREADS) {
            float x[8];
            row.finish(row.fetch(i), i, x);
            storeEight(a.prepared, 8LL * i, IsHalf<T>::value ? NIBBLE_F16 : NIBBLE_BF16, x);
        }
    }
    if (isUsed) {
        for (int base = 0; base < runs; base += Depth * NIBBLE_SHRINK_THREADS) {
#pragma unroll
            for (int d = 0; d < Depth; ++d) {
                const int i = base + threadIdx.x + d * NIBBLE_SHRINK_THREADS;
                if (i >= runs) continue;
                if (base > 0) ahead[d] = fetchRun(layer.a, (long long)rank * a.inFeatures + 8 * i, layer.type);
                float x[8], w[8];
                row.finish(row.fetch(i), i, x);
                unpackRun(ahead[d], layer.type, w);
#pragma unroll
                for (int j = 0; j < 8; ++j) sum = fmaf(w[j], x[j], sum);
            }
        }
        sum = blockSum(sum);
    }
    // A token that does not use the adapter must not see its overflows.
    if (threadIdx.x == 0) layer.sums[rank] = isUsed ? factor * sum : 0.f;
}

// One token, beside its product: a block takes a few ranks, and each of them some warps. The product prepares the input itself.
// With the root mean square, the norm's factor is known together with the sums, which it multiplies.
template <typename T>
__device__ __forceinline__ void shrinkBesideBody(const NibbleShrinkArguments &a) {
    constexpr int Ranks = NIBBLE_SHRINK_BESIDE_RANKS, Warps = NIBBLE_SHRINK_BESIDE_THREADS / 32, Own = Warps / Ranks;
    __shared__ float2 partial[Warps];  // sum, and sum of squares
    beginShrink(a.turns, 1);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, thread = threadIdx.x % (Own * 32), runs = a.inFeatures / 8;
    int rank = blockIdx.x * Ranks + warp / Own;
    const NibbleShrinkLayer &layer = layerOfRank(a, rank);
    const float factor = adapterWeight(a.weights, a.weightStride, a.slots, 0, layer.adapters[rank]) * layer.scales[rank];
    const bool isUsed = factor != 0.f, isRootMeanSquare = a.prologue.kind == NIBBLE_PROLOGUE_RMS;
    RowInput<T> row(a.input, a.prologue, a.inFeatures);
    row.prefetchWeights();
    if (isUsed) {
        const int bytes = a.inFeatures * (layer.type == NIBBLE_F32 ? 4 : 2);
        for (int i = thread * 128; i < bytes; i += Own * 32 * 128)
            asm volatile("prefetch.global.L2 [%0];" ::"l"((const char *)layer.a + (long long)rank * bytes + i));
    }
    waitForPredecessors();
    if (blockIdx.x == 0) announceTokens(a.turns, 1);
    if (!isRootMeanSquare) row.measure();
    float sum = 0.f, squares = 0.f;
    if (isUsed) {
#pragma unroll 2
        for (int i = thread; i < runs; i += Own * 32) {
            const Run raw = row.fetch(i), ranks = fetchRun(layer.a, (long long)rank * a.inFeatures + 8 * i, layer.type);
            float x[8], w[8];
            if (isRootMeanSquare) {
                RowInput<T>::unpackFloats(raw, x);
#pragma unroll
                for (int j = 0; j < 8; ++j) squares = fmaf(x[j], x[j], squares);
                if (a.prologue.weight) {
                    loadEight(a.prologue.weight, 8 * i, NIBBLE_F32, w);
#pragma unroll
                    for (int j = 0; j < 8; ++j) x[j] *= w[j];
                }
            } else {
                row.finish(raw, i, x);
            }
            unpackRun(ranks, layer.type, w);
#pragma unroll
            for (int j = 0; j < 8; ++j) sum = fmaf(w[j], x[j], sum);
        }
    }
    sum = warpSum(sum);
    squares = warpSum(squares);
    if (lane == 0) partial[warp] = make_float2(sum, squares);
    __syncthreads();
    if (thread > 0) return;
    sum = squares = 0.f;
#pragma unroll
    for (int w = 0; w < Own; ++w) {
        sum += partial[warp + w].x;
        squares += partial[warp + w].y;
    }
    if (isRootMeanSquare) sum *= 1.f / sqrtf(squares / (float)a.inFeatures + a.prologue.epsilon);
    // A token that does not use the adapter must not see its overflows.
    layer.sums[rank] = isUsed ? factor * sum : 0.f;
}

// The tokens of a window that use an adapter, in order, and what they take of it; by all threads of a block.
struct AdapterTokens {
    int tokens[NIBBLE_SHRINK_WINDOW];  // of the window
    float weights[NIBBLE_SHRINK_WINDOW];
    int warpCounts[NIBBLE_SHRINK_WINDOW / 32];
    int count;

    // The weight of token `first + threadIdx.x` for threads of the window; 0 for others.
    __device__ __forceinline__ float find(const NibbleShrinkArguments &a, int first, int adapter) {
        const int m = first + threadIdx.x, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
        const bool exists = threadIdx.x < NIBBLE_SHRINK_WINDOW && m < a.tokens;
        const bool isActive = exists && !(a.activeRows && a.activeRows[m] == 0.f);
        const float weight = isActive ? adapterWeight(a.weights, a.weightStride, a.slots, m, adapter) : 0.f;
        const u32 used = __ballot_sync(~0u, weight != 0.f);
        if (lane == 0 && warp < NIBBLE_SHRINK_WINDOW / 32) warpCounts[warp] = __popc(used);
        __syncthreads();
        int before = __popc(used & ((1u << lane) - 1)), total = 0;
#pragma unroll
        for (int w = 0; w < NIBBLE_SHRINK_WINDOW / 32; ++w) {
            if (w < warp) before += warpCounts[w];
            total += warpCounts[w];
        }
        if (weight != 0.f) {
            tokens[before] = threadIdx.x;
            weights[before] = weight;
        }
        if (threadIdx.x == 0) count = total;
        __syncthreads();
        return weight;
    }
};

// A block takes neighbouring ranks of one adapter for the next few tokens of a window that use it; its threads divide K. It also
// stores zeros for those of its own tokens that do not use the adapter.
template <typename T, int Ranks>
__device__ __forceinline__ void shrinkBody(const NibbleShrinkArguments &a) {
    constexpr int Tokens = NIBBLE_SHRINK_TOKENS, Warps = NIBBLE_SHRINK_THREADS / 32, Blocks = NIBBLE_SHRINK_WINDOW / Tokens;
    __shared__ float partial[Warps][Tokens * Ranks];
    __shared__ AdapterTokens users;
    releaseDependents();
    int first = blockIdx.x * Ranks;
    const NibbleShrinkLayer &layer = layerOfRank(a, first);
    const int K = a.inFeatures, window = blockIdx.y / Blocks * NIBBLE_SHRINK_WINDOW, own = blockIdx.y % Blocks * Tokens;
    const int xType = sizeof(T) == 4 ? NIBBLE_F32 : IsHalf<T>::value ? NIBBLE_F16 : NIBBLE_BF16;
    // No kernel writes the adapters of rows, nor A; routing weights come from one.
    if (a.activeRows) waitForPredecessors();
    const float weight = users.find(a, window, layer.adapters[first]);
    const bool isUsed = own < users.count;
    if (isUsed) {
        const long long rowBytes = (long long)K * (layer.type == NIBBLE_F32 ? 4 : 2);
        const char *rows = (const char *)layer.a + first * rowBytes;
        for (long long i = threadIdx.x * 128; i < Ranks * rowBytes; i += NIBBLE_SHRINK_THREADS * 128)
            asm volatile("prefetch.global.L2 [%0];" ::"l"(rows + i));
    }
    waitForPredecessors();
    const int mine = threadIdx.x - own;
    // A token that does not use the adapter must not see its overflows.
    if (mine >= 0 && mine < Tokens && weight == 0.f && window + (int)threadIdx.x < a.tokens)
        for (int r = 0; r < Ranks; ++r) layer.sums[(long long)(window + threadIdx.x) * a.sumsStride + first + r] = 0.f;
    if (!isUsed) return;

    const T *rows[Tokens];
#pragma unroll
    for (int m = 0; m < Tokens; ++m)
        rows[m] = (const T *)a.input + (long long)(window + users.tokens[min(own + m, users.count - 1)]) * K;
    float sums[Tokens][Ranks] = {};
    const bool isVector = K % 8 == 0 && isAligned(a.input, 0, xType) && isAligned(layer.a, 0, layer.type);
    const int vectors = isVector ? K / 8 : 0;
    for (int i = threadIdx.x; i < vectors; i += NIBBLE_SHRINK_THREADS) {
        float x[Tokens][8];
#pragma unroll
        for (int m = 0; m < Tokens; ++m) loadEight(rows[m], 8 * i, xType, x[m]);
#pragma unroll
        for (int r = 0; r < Ranks; ++r) {
            float w[8];
            loadEight(layer.a, (long long)(first + r) * K + 8 * i, layer.type, w);
#pragma unroll
            for (int m = 0; m < Tokens; ++m)
#pragma unroll
                for (int j = 0; j < 8; ++j) sums[m][r] = fmaf(w[j], x[m][j], sums[m][r]);
        }
    }
    for (int k = 8 * vectors + threadIdx.x; k < K; k += NIBBLE_SHRINK_THREADS) {
#pragma unroll
        for (int r = 0; r < Ranks; ++r) {
            const float w = loadAs(layer.a, (long long)(first + r) * K + k, layer.type);
#pragma unroll
            for (int m = 0; m < Tokens; ++m) sums[m][r] = fmaf(w, toFloat(rows[m][k]), sums[m][r]);
        }
    }
#pragma unroll
    for (int m = 0; m < Tokens; ++m)
#pragma unroll
        for (int r = 0; r < Ranks; ++r) {
            const float sum = warpSum(sums[m][r]);
            if ((threadIdx.x & 31) == 0) partial[threadIdx.x >> 5][m * Ranks + r] = sum;
        }
    __syncthreads();
    const int m = threadIdx.x / Ranks, r = threadIdx.x % Ranks;
    if (m >= Tokens || own + m >= users.count) return;
    float sum = 0.f;
    for (int w = 0; w < Warps; ++w) sum += partial[w][threadIdx.x];
    const long long token = window + users.tokens[own + m];
    layer.sums[token * a.sumsStride + first + r] = users.weights[own + m] * layer.scales[first + r] * sum;
}

// MARK: B

__device__ __forceinline__ void loadRanks(const u8 *p, float (&b)[8], f32) {
    unpack(((const uint4 *)p)[0], (float (&)[4])b[0], f32());
    unpack(((const uint4 *)p)[1], (float (&)[4])b[4], f32());
}
template <typename B>
__device__ __forceinline__ void loadRanks(const u8 *p, float (&b)[8], B) {
    unpack(*(const uint4 *)p, b, B());
}

// A pass of ranks in shared memory: rows of B, padded so that a quarter warp reads from all banks, and sums.
struct ExpandTile {
    static constexpr int rowBytes = NIBBLE_EXPAND_RANKS * 4 + 16;
    uint4 b[NIBBLE_EXPAND_OUTPUTS][rowBytes / 16];
    float4 sums[NIBBLE_EXPAND_TOKENS][NIBBLE_EXPAND_RANKS / 4];
    u32 used[NIBBLE_EXPAND_TOKENS];  // bit i: units of eight ranks with a sum other than 0
};

// The tokens of a thread: group, group + 4 ...
constexpr int expandGroups = NIBBLE_EXPAND_THREADS / NIBBLE_EXPAND_OUTPUTS;
constexpr int expandOwn = NIBBLE_EXPAND_TOKENS / expandGroups;

// Starts the copies of ranks first ..< first + count of a tile's rows.
__device__ __forceinline__ void copyRanks(ExpandTile &tile, const NibbleExpandLayer &layer, int n0, int first, int count) {
    const int size = layer.type == NIBBLE_F32 ? 4 : 2, pieces = count * size / 16;
    for (int i = threadIdx.x; i < NIBBLE_EXPAND_OUTPUTS * pieces; i += NIBBLE_EXPAND_THREADS) {
        const int row = i / pieces, piece = i % pieces;
        const long long at = (long long)min(n0 + row, layer.outFeatures - 1) * layer.ranks + first;
        copyAsync16(sharedAddress(&tile.b[row][piece]), (const u8 *)layer.b + at * size + piece * 16, true);
    }
    commitCopies();
}

// Loads the sums of the tile's tokens; marks the units that are not zero.
__device__ __forceinline__ void loadSums(ExpandTile &tile, const NibbleExpandArguments &a, const NibbleExpandLayer &layer, int m0,
                                         int first, int count) {
    if (threadIdx.x < NIBBLE_EXPAND_TOKENS) tile.used[threadIdx.x] = 0;
    __syncthreads();
    const int units = count / NIBBLE_RANK_UNIT;
    for (int i = threadIdx.x; i < NIBBLE_EXPAND_TOKENS * units; i += NIBBLE_EXPAND_THREADS) {
        const int m = i / units, unit = i % units;
        if (m0 + m >= a.tokens) continue;
        const float4 *source =
            (const float4 *)(layer.sums + (long long)(m0 + m) * a.sumsStride + first + unit * NIBBLE_RANK_UNIT);
        const float4 low = source[0], high = source[1];
        tile.sums[m][2 * unit] = low;
        tile.sums[m][2 * unit + 1] = high;
        const bool isUsed = low.x != 0.f || low.y != 0.f || low.z != 0.f || low.w != 0.f || high.x != 0.f || high.y != 0.f ||
                            high.z != 0.f || high.w != 0.f;
        if (isUsed) atomicOr(&tile.used[m], 1u << unit);
    }
}

// Adds the products of a pass for output `row` of the tile and the thread's tokens.
template <typename B>
__device__ __forceinline__ void addRanks(const ExpandTile &tile, int row, int group, float (&sums)[expandOwn]) {
    constexpr int unitBytes = NIBBLE_RANK_UNIT * sizeof(B);
#pragma unroll
    for (int j = 0; j < expandOwn; ++j) {
        const int m = group + j * expandGroups;
        for (u32 left = tile.used[m]; left; left &= left - 1) {
            const int unit = __ffs(left) - 1;
            float b[8];
            loadRanks((const u8 *)tile.b[row] + unit * unitBytes, b, B());
            const float4 low = tile.sums[m][2 * unit], high = tile.sums[m][2 * unit + 1];
            const float u[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
            for (int i = 0; i < 8; ++i) sums[j] = fmaf(b[i], u[i], sums[j]);
        }
    }
}

// What the adapters of token m add to output n of a layer that has biases or gains, without the gains' part of the layer's bias;
// and the factor of its product.
__device__ __forceinline__ float sumWithGains(const NibbleExpandArguments &a, const NibbleExpandLayer &layer, long long m, int n,
                                              float &factor) {
    float sum = 0.f;
    factor = 1.f;
    for (int r = 0; r < layer.ranks;) {
        const int adapter = layer.adapters[r];
        const float weight = adapterWeight(a.weights, a.weightStride, a.slots, m, adapter);
        const long long at = (long long)adapter * layer.featureStride + n;
        float own = layer.biases ? weight * layer.biases[at] : 0.f;
        for (; r < layer.ranks && layer.adapters[r] == adapter; r += NIBBLE_RANK_UNIT) {
            if (weight == 0.f) continue;
            float b[8], u[8];
            loadEight(layer.b, (long long)n * layer.ranks + r, layer.type, b);
            loadEight(layer.sums, m * a.sumsStride + r, NIBBLE_F32, u);
#pragma unroll
            for (int i = 0; i < 8; ++i) own = fmaf(b[i], u[i], own);
        }
        if (weight == 0.f) continue;
        const float gain = layer.gains ? layer.gains[at] : 1.f;
        factor += gain - 1.f;
        sum = fmaf(gain, own, sum);
    }
    return sum;
}

__device__ __forceinline__ void storeDelta(const NibbleExpandArguments &a, const NibbleExpandLayer &layer, long long m, int n,
                                           float factor, float sum) {
    const long long at = m * a.deltaStride + n;
    if (a.isInPlace) {
        layer.deltas[at] = fmaf(layer.deltas[at], factor, sum);
        return;
    }
    // The factor is not for the layer's bias, which products have by then.
    if (layer.factors) {
        layer.factors[at] = factor;
        if (layer.bias) sum = fmaf(layer.bias[n], 1.f - factor, sum);
    }
    layer.deltas[at] = sum;
}

#if !defined(NIBBLE_ONLY_F16) && !defined(NIBBLE_ONLY_BF16)
extern "C" __global__ void __launch_bounds__(NIBBLE_EXPAND_THREADS) expand(const __grid_constant__ NibbleExpandArguments a) {
    __shared__ ExpandTile tile;
    releaseDependents();
    int p = 0, tileIndex = blockIdx.x;
    for (; p < a.layerCount - 1; ++p) {
        const int tiles = (a.layers[p].outFeatures + NIBBLE_EXPAND_OUTPUTS - 1) / NIBBLE_EXPAND_OUTPUTS;
        if (tileIndex < tiles) break;
        tileIndex -= tiles;
    }
    const NibbleExpandLayer &layer = a.layers[p];
    const int n0 = tileIndex * NIBBLE_EXPAND_OUTPUTS, m0 = blockIdx.y * NIBBLE_EXPAND_TOKENS;
    const int row = threadIdx.x % NIBBLE_EXPAND_OUTPUTS, group = threadIdx.x / NIBBLE_EXPAND_OUTPUTS, n = n0 + row;
    if (layer.biases || layer.gains) {
        waitForPredecessors();
        if (n >= layer.outFeatures) return;
#pragma unroll 1
        for (int m = m0 + group; m < min(m0 + NIBBLE_EXPAND_TOKENS, a.tokens); m += expandGroups) {
            float factor;
            const float sum = sumWithGains(a, layer, m, n, factor);
            storeDelta(a, layer, m, n, factor, sum);
        }
        return;
    }
    float sums[expandOwn] = {};
    // The first rows of B are on the way before the sums are known.
    copyRanks(tile, layer, n0, 0, min(layer.ranks, NIBBLE_EXPAND_RANKS));
    waitForPredecessors();
#pragma unroll 1
    for (int first = 0; first < layer.ranks; first += NIBBLE_EXPAND_RANKS) {
        const int count = min(layer.ranks - first, NIBBLE_EXPAND_RANKS);
        if (first > 0) {
            __syncthreads();
            copyRanks(tile, layer, n0, first, count);
        }
        loadSums(tile, a, layer, m0, first, count);
        waitCopies<0>();
        __syncthreads();
        if (layer.type == NIBBLE_F32)
            addRanks<f32>(tile, row, group, sums);
        else if (layer.type == NIBBLE_F16)
            addRanks<f16>(tile, row, group, sums);
        else
            addRanks<bf16>(tile, row, group, sums);
    }
    if (n >= layer.outFeatures) return;
#pragma unroll
    for (int j = 0; j < expandOwn; ++j) {
        const int m = m0 + group + j * expandGroups;
        if (m < a.tokens) storeDelta(a, layer, m, n, 1.f, sums[j]);
    }
}
#endif

#define SHRINK(NAME, T, RANKS)                                          \
    extern "C" __global__ void __launch_bounds__(NIBBLE_SHRINK_THREADS) \
        NAME##_##T(const __grid_constant__ NibbleShrinkArguments a) {   \
        shrinkBody<T, RANKS>(a);                                        \
    }
#define SHRINK_SINGLE(T)                                                     \
    extern "C" __global__ void __launch_bounds__(NIBBLE_SHRINK_THREADS)      \
        shrink_single_##T(const __grid_constant__ NibbleShrinkArguments a) { \
        shrinkSingleBody<T>(a);                                              \
    }
#define SHRINK_BESIDE(T)                                                       \
    extern "C" __global__ void __launch_bounds__(NIBBLE_SHRINK_BESIDE_THREADS) \
        shrink_beside_##T(const __grid_constant__ NibbleShrinkArguments a) {   \
        shrinkBesideBody<T>(a);                                                \
    }
#define SHRINKS(T) SHRINK(shrink, T, NIBBLE_SHRINK_RANKS) SHRINK(shrink_few, T, NIBBLE_SHRINK_FEW_RANKS)
#define INSTANCE_f32(T) SHRINKS(T)
#define INSTANCE_f16(T) SHRINKS(T) SHRINK_SINGLE(T) SHRINK_BESIDE(T)
#define INSTANCE_bf16(T) SHRINKS(T) SHRINK_SINGLE(T) SHRINK_BESIDE(T)
#define INSTANCE(T) INSTANCE_##T(T)
NIBBLE_FOR_TYPES(INSTANCE)
