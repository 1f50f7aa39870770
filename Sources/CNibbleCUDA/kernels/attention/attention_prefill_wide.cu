// Attention of many queries per row on warpgroups (FlashAttention-3, arXiv 2407.08608): compute capability 9.0, a dense cache,
// heads of 64 or 128 elements, no relative bias.
//
// A block takes 192 queries of one head, a warpgroup 64 of them. Tiles of 64 keys and values pass through a ring in shared
// memory, in rows of 128 bytes whose 16-byte chunks are swizzled as the products expect. All threads copy. A warpgroup may be a
// tile ahead of the others, so that products of one run while another turns scores into weights.
#include "attention_prefill.cuh"
#include "warpgroup.cuh"

#if NIBBLE_HAS_WARPGROUPS

constexpr int wideKeys = 64, wideThreads = 2 * NIBBLE_PREFILL_WIDE_QUERIES, wideStages = NIBBLE_PREFILL_WIDE_STAGES;
constexpr int panelBytes = 64 * 128;  // 64 rows of 64 elements

// Describes rows of 128 swizzled bytes: along K lies a row's content, or, transposed, the rows.
__device__ __forceinline__ u64 describeRows(u32 address) {
    return (u64)((address & 0x3ffff) >> 4) | (u64)(panelBytes >> 4) << 16 | (u64)(1024 >> 4) << 32 | 1ull << 62;
}

#define NIBBLE_SCORES(T, TYPE)                                                                                           \
    __device__ __forceinline__ void multiplyRows(T, float (&c)[32], u64 a, u64 b, int adds) {                            \
        asm volatile("{ .reg .pred p; setp.ne.b32 p, %34, 0;\nwgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE \
                     " {" NIBBLE_LIST_32 "}, %32, %33, p, 1, 1, 0, 0; }"                                                 \
                     : NIBBLE_SUMS_32(0)                                                                                 \
                     : "l"(a), "l"(b), "r"(adds)                                                                         \
                     : "memory");                                                                                        \
    }
NIBBLE_SCORES(f16, "f16")
NIBBLE_SCORES(bf16, "bf16")

#define NIBBLE_OUTPUTS(T, TYPE, N, COUNT, A, DESCRIPTION)                                                     \
    __device__ __forceinline__ void addOutputs(T, float (&c)[COUNT], const u32(&a)[4], u64 b) {               \
        asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" NIBBLE_LIST_##COUNT \
                     "}, {" A "}, " DESCRIPTION ", 1, 1, 1, 1;"                                               \
                     : NIBBLE_SUMS_##COUNT(0)                                                                 \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)                                     \
                     : "memory");                                                                             \
    }
NIBBLE_OUTPUTS(f16, "f16", 64, 32, "%32,%33,%34,%35", "%36")
NIBBLE_OUTPUTS(f16, "f16", 128, 64, "%64,%65,%66,%67", "%68")
NIBBLE_OUTPUTS(bf16, "bf16", 64, 32, "%32,%33,%34,%35", "%36")
NIBBLE_OUTPUTS(bf16, "bf16", 128, 64, "%64,%65,%66,%67", "%68")

__device__ __forceinline__ u32 packedPair(f16, float x, float y) {
    u32 pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(y), "f"(x));
    return pair;
}
__device__ __forceinline__ u32 packedPair(bf16, float x, float y) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(y), "f"(x));
    return pair;
}

// The place of 16 bytes of a row in a tile of 64 rows.
__device__ __forceinline__ u32 swizzled(int row, int chunk) {
    return (chunk >> 3) * panelBytes + row * 128 + (((chunk ^ row) & 7) << 4);
}

// A thread's share of the copies of keys and values: up to three rows of a tile, the same 16 bytes of each.
template <int D>
struct WideCopies {
    static constexpr int chunks = D / 8, step = wideThreads / chunks, tileBytes = D / 64 * panelBytes;
    const u8 *keys, *values;
    const int *table;  // blocks of the row
    int row, blockCount, heads, head, length;
    u32 place;
    int blocks[2];  // of the next tile

    __device__ __forceinline__ WideCopies(const NibbleAttentionArguments &a, int batchRow, int g, int rowLength) {
        const int chunk = threadIdx.x % chunks;
        row = threadIdx.x / chunks;
        place = swizzled(row, chunk);
        keys = (const u8 *)a.keys + chunk * 16;
        values = (const u8 *)a.values + chunk * 16;
        table = a.batch.blockTable + (long long)batchRow * a.batch.blockTableStride;
        length = rowLength;
        blockCount = (length + NIBBLE_CACHE_BLOCK - 1) / NIBBLE_CACHE_BLOCK;
        heads = a.keyValueHeads;
        head = g;
    }

    __device__ __forceinline__ void find(int tile) {
#pragma unroll
        for (int i = 0; i < 2; ++i) blocks[i] = 2 * tile + i < blockCount ? table[2 * tile + i] : 0;
    }

    // Zeros past the row's end.
    __device__ __forceinline__ void copy(int tile, u32 buffer) {
        const int count = length - tile * wideKeys;
#pragma unroll
        for (int i = 0; i * step < wideKeys; ++i) {
            const int j = row + i * step;
            if ((i + 1) * step > wideKeys && j >= wideKeys) break;
            const long long panel = (long long)(j < NIBBLE_CACHE_BLOCK ? blocks[0] : blocks[1]) * heads + head;
            const long long offset = (panel * NIBBLE_CACHE_BLOCK + j % NIBBLE_CACHE_BLOCK) * (D * 2);
            copyAsync16(buffer + place + i * step * 128, keys + offset, j < count);
            copyAsync16(buffer + tileBytes + place + i * step * 128, values + offset, j < count);
        }
    }
};

template <typename T, int D>
__device__ __forceinline__ void copyWideQueries(const NibbleAttentionArguments &a, u8 *tiles, long long t, int h, int count) {
    constexpr int chunks = D / 8, tileBytes = D / 64 * panelBytes;
    const T *first = (const T *)a.queries + queryOffset(a, t, h);
    const bool isAligned = ((unsigned long long)first | (unsigned long long)(a.queryStride * sizeof(T))) % 16 == 0;
    for (int i = threadIdx.x; i < NIBBLE_PREFILL_WIDE_QUERIES * chunks; i += wideThreads) {
        const int j = i / chunks, chunk = i % chunks;
        u8 *place = tiles + j / 64 * tileBytes + swizzled(j % 64, chunk);
        const T *source = first + (j < count ? j * a.queryStride + chunk * 8 : 0);
        if (isAligned) {
            copyAsync16(sharedAddress(place), source, j < count);
        } else {
#pragma unroll
            for (int e = 0; e < 8; ++e) ((T *)place)[e] = j < count ? source[e] : T{};
        }
    }
}

// The lowest and the highest of positions that lanes hold.
struct Extent {
    int lowest, highest;

    __device__ __forceinline__ Extent(const int *positions, int count) {
        lowest = highest = positions[threadIdx.x & 31];
        for (int i = 32 + (threadIdx.x & 31); i < count; i += 32) {
            lowest = min(lowest, positions[i]);
            highest = max(highest, positions[i]);
        }
#pragma unroll
        for (int d = 16; d > 0; d >>= 1) {
            lowest = min(lowest, __shfl_xor_sync(~0u, lowest, d));
            highest = max(highest, __shfl_xor_sync(~0u, highest, d));
        }
    }
};

// A warpgroup's 64 queries.
template <typename T, int D>
struct WideQueries {
    const NibbleAttentionArguments &a;
    const ScoreRule &rule;
    const Extent extent;
    const int length;
    int positions[2];  // of a lane's rows
    bool isPlain;
    float unit;  // scores times this are exponents of two
    u32 weights[4][4];
    float output[D / 2] = {}, maximum[2] = {-NIBBLE_INFINITY, -NIBBLE_INFINITY}, denominator[2] = {0.f, 0.f};

    __device__ __forceinline__ WideQueries(const NibbleAttentionArguments &arguments, const ScoreRule &scoreRule, const int *all,
                                           int rowLength)
        : a(arguments), rule(scoreRule), extent(all, 64), length(rowLength) {
        const int lane = threadIdx.x & 31, row = (threadIdx.x >> 5 & 3) * 16 + (lane >> 2);
        positions[0] = all[row];
        positions[1] = all[row + 8];
        isPlain = a.bias == NIBBLE_BIAS_NONE && !(a.softCap > 0.f);
        unit = isPlain ? a.scale * LOG2_E : LOG2_E;
    }

    // `queries` and `keys` describe tiles.
    __device__ __forceinline__ void score(float (&scores)[32], u64 queries, u64 keys) {
#pragma unroll
        for (int k = 0; k < D / 16; ++k) {
            const u64 offset = ((k >> 2) * panelBytes + (k & 3) * 32) >> 4;
            multiplyRows(T(), scores, queries + offset, keys + offset, k > 0);
        }
        commitProducts();
    }

    // Applies bias, cap and mask to the scores of keys first ..< first + 64.
    __device__ __forceinline__ void adjust(float (&scores)[32], int first) {
        const int column = first + 2 * (threadIdx.x & 3);
        if (!isPlain)
#pragma unroll
            for (int i = 0; i < 32; ++i) {
                const int distance = column + 8 * (i >> 2) + (i & 1) - positions[i >> 1 & 1];
                float s = scores[i] * a.scale;
                if (a.softCap > 0.f) s = a.softCap * tanhOf(s / a.softCap);
                scores[i] = fmaf(rule.slope, (float)distance, s);
            }
        const bool isOpen = first + wideKeys <= length && (!a.isCausal || first + wideKeys - 1 <= extent.lowest) &&
                            (a.window <= 0 || extent.highest - first < a.window);
        if (isOpen) return;
        int last[2], begin[2];  // the columns that a row sees
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            last[r] = rule.last(positions[r], length) - column;
            begin[r] = a.window > 0 ? positions[r] - a.window + 1 - column : -wideKeys;
        }
#pragma unroll
        for (int i = 0; i < 32; ++i) {
            const int key = 8 * (i >> 2) + (i & 1), r = i >> 1 & 1;
            if (key >= last[r] || key < begin[r]) scores[i] = -NIBBLE_INFINITY;
        }
    }

    // Turns scores into weights. Their sums so far are to be multiplied by the corrections.
    __device__ __forceinline__ void weigh(float (&scores)[32], float (&correction)[2]) {
        float larger[2] = {maximum[0], maximum[1]}, base[2];
#pragma unroll
        for (int i = 0; i < 32; ++i) larger[i >> 1 & 1] = fmaxf(larger[i >> 1 & 1], scores[i]);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            base[i] = raiseMaximum(larger[i], unit, maximum[i], denominator[i], correction[i]);
        }
#pragma unroll
        for (int i = 0; i < 32; ++i) {
            scores[i] = powerOfTwo(fmaf(scores[i], unit, -base[i >> 1 & 1]));
            denominator[i >> 1 & 1] += scores[i];
        }
    }

    __device__ __forceinline__ void pack(const float (&scores)[32]) {
#pragma unroll
        for (int i = 0; i < 32; i += 2) weights[i >> 3][i >> 1 & 3] = packedPair(T(), scores[i], scores[i + 1]);
    }

    __device__ __forceinline__ void scale(const float (&correction)[2]) {
        if (!__any_sync(~0u, correction[0] != 1.f || correction[1] != 1.f)) return;
#pragma unroll
        for (int i = 0; i < D / 2; ++i) output[i] *= correction[i >> 1 & 1];
    }

    __device__ __forceinline__ void add(u64 values) {
#pragma unroll
        for (int k = 0; k < 4; ++k) addOutputs(T(), output, weights[k], values + (k * 16 * 128 >> 4));
        commitProducts();
    }

    // Writes the lane's rows of those that exist, `count` of the warpgroup's.
    __device__ __forceinline__ void store(long long t, int h, int count) {
        const int lane = threadIdx.x & 31;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            denominator[i] += __shfl_xor_sync(~0u, denominator[i], 1);
            denominator[i] += __shfl_xor_sync(~0u, denominator[i], 2);
            const int q = (threadIdx.x >> 5 & 3) * 16 + (lane >> 2) + 8 * i;
            if (q >= count) continue;
            const float factor = joinSink(a, h, maximum[i], unit, denominator[i]);
            T *row = (T *)a.output + ((t + q) * a.heads + h) * D;
#pragma unroll
            for (int j = 0; j < D / 8; ++j)
                *(u32 *)(row + 8 * j + 2 * (lane & 3)) =
                    packPair<T>(dividedOrZero(output[4 * j + 2 * i] * factor, denominator[i]),
                                dividedOrZero(output[4 * j + 2 * i + 1] * factor, denominator[i]));
        }
    }
};

// The tiles in shared memory. Stages have a barrier each, at which warps arrive once their copies are there.
template <int D>
struct WideRing {
    static constexpr int tileBytes = D / 64 * panelBytes, stageBytes = 2 * tileBytes;
    WideCopies<D> copies;
    const u32 buffers, barriers;
    const u64 tiles;
    const int last;
    int stage = 0, phase = 0;  // of the tile that is weighed now, and of the next tile's barrier

    __device__ __forceinline__ WideRing(const WideCopies<D> &rowCopies, u32 firstBuffer, u32 firstBarrier, int lastTile)
        : copies(rowCopies), buffers(firstBuffer), barriers(firstBarrier), tiles(describeRows(firstBuffer)), last(lastTile) {}

    static __device__ __forceinline__ int following(int stage, int steps) {
        stage += steps;
        return stage >= wideStages ? stage - wideStages : stage;
    }

    // Tiles are loaded in order.
    __device__ __forceinline__ void load(int tile, int stage) {
        if (tile < last) copies.copy(tile, buffers + stage * stageBytes);
        copies.find(tile + 1);
        commitCopies();
    }

    // Begins with three tiles, and waits for the first.
    __device__ __forceinline__ void begin(int tile) {
        copies.find(tile);
        for (int i = 0; i < 3; ++i) load(tile + i, i);
        waitCopies<1>();
        fenceForProducts();
        __syncwarp();
        if (elected()) {
            arrive(barriers);
            arrive(barriers + 8);
        }
        waitBarrier(barriers, 0);
    }

    // Waits for the tile after the next of this warp and for the next of all. So the others may be an iteration behind, and have
    // read what is overwritten in this one. Returns the stage of this iteration's tile.
    __device__ __forceinline__ int advance() {
        const int now = stage, next = following(stage, 1);
        waitCopies<0>();
        fenceForProducts();
        __syncwarp();
        if (elected()) arrive(barriers + 8 * following(stage, 2));
        waitBarrier(barriers + 8 * next, phase);
        if (next == wideStages - 1) phase ^= 1;
        stage = next;
        return now;
    }

    __device__ __forceinline__ u64 keys(int stage) const { return tiles + stage * (stageBytes >> 4); }
    __device__ __forceinline__ u64 values(int stage) const { return tiles + (2 * stage + 1) * (tileBytes >> 4); }
};

template <typename T, int D>
__device__ __forceinline__ void attendTiles(WideQueries<T, D> &mine, WideRing<D> &ring, u64 queries, int firstTile, int myLast) {
    float scores[32] = {}, correction[2];
    ring.begin(firstTile);
    beginProducts();
    mine.score(scores, queries, ring.tiles);
    waitProducts();
    fenceSums(scores);
    mine.adjust(scores, firstTile * wideKeys);
    mine.weigh(scores, correction);
    mine.pack(scores);
    for (int tile = firstTile; tile < ring.last; ++tile) {
        const int stage = ring.advance(), free = ring.following(stage, 3);
        if (tile + 1 < myLast) {
            beginProducts();
            mine.score(scores, queries, ring.keys(ring.stage));
            mine.add(ring.values(stage));
            ring.load(tile + 3, free);
            waitProducts<1>();
            fenceSums(scores);
            mine.adjust(scores, (tile + 1) * wideKeys);
            mine.weigh(scores, correction);
            waitProducts();
            fenceSums(mine.output);
            mine.scale(correction);
            mine.pack(scores);
        } else if (tile < myLast) {
            beginProducts();
            mine.add(ring.values(stage));
            ring.load(tile + 3, free);
            waitProducts();
            fenceSums(mine.output);
        } else {
            ring.load(tile + 3, free);
        }
    }
    waitCopies<0>();
}

template <typename T, int D>
__device__ __forceinline__ void prefillWide(const NibbleAttentionArguments &a, u8 *shared) {
    constexpr int tileBytes = D / 64 * panelBytes;
    __shared__ int positions[NIBBLE_PREFILL_WIDE_QUERIES];
    __shared__ u64 barriers[wideStages];
    shared += (1024 - (sharedAddress(shared) & 1023)) & 1023;
    const int h = blockIdx.x, row = blockIdx.z;
    const int group = __shfl_sync(~0u, (int)threadIdx.x >> 7, 0);  // known to be the same in a warp
    const int begin = a.batch.queryOffsets[row], count = a.batch.queryOffsets[row + 1] - begin;
    const int q0 = (gridDim.y - 1 - blockIdx.y) * NIBBLE_PREFILL_WIDE_QUERIES;  // long rows of causal scores first
    if (q0 >= count) return;
    const int length = a.batch.lengths[row], g = h / (a.heads / a.keyValueHeads);
    if (threadIdx.x < NIBBLE_PREFILL_WIDE_QUERIES)
        positions[threadIdx.x] = a.batch.positions[begin + min(q0 + (int)threadIdx.x, count - 1)];
    if (threadIdx.x == 0) {
        for (int i = 0; i < wideStages; ++i) initBarrier(sharedAddress(barriers) + 8 * i, wideThreads / 32);
        fenceBarriers();
    }
    copyWideQueries<T, D>(a, shared, begin + q0, h, count - q0);
    __syncthreads();

    const ScoreRule rule(a, h);
    const Extent all(positions, NIBBLE_PREFILL_WIDE_QUERIES);
    const int firstTile = rule.first(all.lowest) / wideKeys,
              lastTile = (rule.last(all.highest, length) + wideKeys - 1) / wideKeys;
    WideQueries<T, D> mine(a, rule, positions + 64 * group, length);
    const int myLast = (rule.last(mine.extent.highest, length) + wideKeys - 1) / wideKeys;
    const u32 queries = sharedAddress(shared);
    WideRing<D> ring(WideCopies<D>(a, row, g, length), queries + 3 * tileBytes, sharedAddress(barriers), lastTile);
    attendTiles(mine, ring, describeRows(queries + group * tileBytes), firstTile, myLast);
    mine.store(begin + q0 + 64 * group, h, count - q0 - 64 * group);
}

#define WIDE_BODY(T, D) prefillWide<T, D>(a, shared);
#else
#define WIDE_BODY(T, D)
#endif

#define WIDE(T, D)                                                                          \
    extern "C" __global__ void __launch_bounds__(2 * NIBBLE_PREFILL_WIDE_QUERIES, 1)        \
        attend_prefill_wide_##D##_##T(const __grid_constant__ NibbleAttentionArguments a) { \
        extern __shared__ __align__(16) u8 shared[];                                        \
        releaseDependents();                                                                \
        waitForPredecessors();                                                              \
        if constexpr (IS_WANTED(attend_prefill_wide_##D##_##T)) {                           \
            WIDE_BODY(T, D)                                                                 \
        }                                                                                   \
    }
#undef INSTANCE_f16
#undef INSTANCE_bf16
#define INSTANCE_f16 WIDE(f16, 64) WIDE(f16, 128)
#define INSTANCE_bf16 WIDE(bf16, 64) WIDE(bf16, 128)
NIBBLE_FOR_TYPES(CHOOSE)
