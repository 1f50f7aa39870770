// 4-bit linear layers over the tiled layout (tiles4.cuh): GEMV for one token, GEMM for up to 64. Bound by reading the weight.
//
// A team of eight warps computes RT * 16 outputs for NT * 8 tokens. The warps divide K: pairs of 64 columns in turn, so that
// the order of additions depends on K alone and a token's result does not depend on other tokens. Codes become float16 table
// values, two at a time, through a table with one copy per lane (no bank conflicts). Scales multiply float32 sums of 64 products.
//
// The float32 variant splits activations and table values into two float16 parts each.
#include "input_turns.cuh"
#include "staging4.cuh"
#include "rank_pairs.cuh"

#define WARPS 8

// A block stages one token.
template <typename T>
__device__ __forceinline__ void stageFourBitBody(const NibbleLinearArguments &a) {
    const int columnTiles = (a.inFeatures + 127) / 128 * 2, m = blockIdx.x;
    const Staged staged = stagedLayout<T>(a.staged, a.tokens, columnTiles);
    u32 *fragments = (u32 *)staged.fragments + (long long)(m >> 3) * columnTiles * 256 + (m & 7) * 32;
    releaseDependents();
    float inverse;
    if constexpr (sizeof(T) == 4) {
        if (isUnused(a)) return;
        waitForPredecessors();
        inverse = stageToken((const float *)a.input + (long long)m * a.inFeatures, a.inFeatures, columnTiles, fragments,
                             fragments + staged.lowOffset * 4);
    } else {
        RowInput<T> row(tokenOf<T>(a, m), a.prologue, a.inFeatures);
        row.prefetchWeights();
        if (isUnused(a)) return;
        waitForPredecessors();
        row.measure();
        inverse = stageRow(row, columnTiles, fragments, keptToken<T>(a, m));
    }
    if (threadIdx.x == 0) staged.factors[m] = inverse;
}

// The row tile of a team and the addresses of this lane's weights. Tiles past the end repeat the last one and are not stored.
template <int RT>
struct RowTile {
    int part;
    int index;  // of RT * 16 rows, within the part
    const uint4 *codes[RT];
    const float4 *scales[RT];   // plain: the four scales of this lane's two rows in two column tiles
    const u8 *nestedCodes[RT];  // nested: one of these four each for the lanes t; powers of two: the eight of this lane's rows
    const float *nestedAbsmax;
    int firstBlock[RT];  // nested: canonical block of that scale in the first column tile
    float bias;          // of the output this lane stores, where a lane stores one
};

// Codes and scales of a pair of column tiles for RT tiles of rows, as loaded. Nested: scales.x and .y hold code and absmax;
// powers of two: the exponents of row g and of row g + 8.
template <int RT>
struct WeightPair {
    uint4 codes[RT][2];
    float4 scales[RT];
};

// Whether entries of the table are 256 bytes apart, so that one instruction makes the address of a look-up. It needs 64 KB, and
// the forms for adapters and mixed types are faster without.
#if defined(NIBBLE_ADAPTERS) || defined(NIBBLE_MIXED)
#define SPREADS_TABLE false
#else
#define SPREADS_TABLE NIBBLE_SPREADS_TABLE(__CUDA_ARCH__ / 10)
#endif
template <bool Exact>
__device__ constexpr bool isSpread() {
    return !Exact && SPREADS_TABLE;
}

template <typename T, int RT, int NT, bool Single, bool Exact, ScaleKind Scales>
struct TiledProduct {
    static constexpr int columns = Single ? 1 : 8;
    static constexpr int Blocks = blocksOfTile(Scales);
    // Of each row tile: column tile, row g or g + 8, block.
    typedef float ScaleValues[RT][2][2][Blocks];
    typedef float Reduction[WARPS][columns][RT * 16 + 4];

    const NibbleLinearArguments &a;
    const u32 *stagedInput;  // Single: fragments in shared memory, of a column tile every inputStride words
    int inputStride;
    Staged staged;
    const float *factors;  // Single: of each column tile
    const float *map;
    int pairs, lane, warp;
    u32 laneTable;   // shared address of this lane's copy of the table; spread: of the table
    u32 laneOffset;  // spread: of this lane's copy
    float sums[RT][NT][4];

    __device__ __forceinline__ TiledProduct(const NibbleLinearArguments &arguments, const u32 *table) : a(arguments) {
        pairs = (a.inFeatures + 127) / 128;
        lane = threadIdx.x & 31;
        warp = __shfl_sync(~0u, threadIdx.x >> 5, 0) % WARPS;  // known to be the same in all lanes
        if constexpr (isSpread<Exact>()) {
            laneTable = sharedAddress(table);
            laneOffset = lane * 4;
        } else {
            // The shuffle makes the compiler keep the sum in a register instead of recomputing it for each look-up.
            laneTable = __shfl_sync(~0u, sharedAddress(table) + lane * (Exact ? 8 : 4), lane);
        }
    }

    __device__ __forceinline__ RowTile<RT> rowTile(int tile) const {
        RowTile<RT> t;
        t.index = tile;
        t.part = layerOfTile(a, t.index, RT * 16);
        const NibbleLinearLayer &part = a.parts[t.part];
        const int last = (part.outFeatures - 1) / 16;
        t.nestedAbsmax = part.nestedAbsmax;
#pragma unroll
        for (int r = 0; r < RT; ++r) {
            const long long pair = (long long)min(t.index * RT + r, last) * pairs;
            t.codes[r] = (const uint4 *)part.weight + pair * 64 + lane;
            t.scales[r] = (const float4 *)part.scales + pair * 8 + (lane >> 2);
            t.nestedCodes[r] = part.nestedCodes + pair * 32 * Blocks + (Scales == powersOfTwo ? (lane >> 2) * 8 : lane);
            const int row = min((t.index * RT + r) * 16 + (lane >> 2) + 4 * (lane & 2), part.outFeatures - 1);
            t.firstBlock[r] = row * (a.inFeatures / 64) + (lane & 1);
        }
        if constexpr (Single) t.bias = part.bias ? part.bias[min(t.index * 16 + (lane & 15), part.outFeatures - 1)] : 0.f;
        return t;
    }

    __device__ __forceinline__ void load(WeightPair<RT> &q, const RowTile<RT> &t, int pair) const {
#pragma unroll
        for (int r = 0; r < RT; ++r) {
            q.codes[r][0] = loadStreaming(t.codes[r] + pair * 64);
            q.codes[r][1] = loadStreaming(t.codes[r] + pair * 64 + 32);
            if constexpr (Scales == powersOfTwo) {
                const uint2 exponents = *(const uint2 *)(t.nestedCodes[r] + pair * 64);
                q.scales[r].x = __uint_as_float(exponents.x);
                q.scales[r].y = __uint_as_float(exponents.y);
            } else if constexpr (Scales == nestedScales) {
                q.scales[r].x = __uint_as_float((u32)t.nestedCodes[r][pair * 32]);
                // For an odd number of column tiles the last block index can be out of range; its code is padding.
                const int block = min(t.firstBlock[r] + 2 * pair, a.parts[t.part].outFeatures * (a.inFeatures / 64) - 1);
                q.scales[r].y = t.nestedAbsmax[block >> 8];
            } else {
                q.scales[r] = t.scales[r][pair * 8];
            }
        }
    }

    // The table's entry for byte j of a word.
    __device__ __forceinline__ u32 entry(u32 word, int j) const {
        if constexpr (isSpread<Exact>()) return spreadEntry(laneTable, laneOffset, word, j);
        u32 v;
        asm("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(laneTable + (__byte_perm(word, 0, 0x4440 | j) << 7)));
        return v;
    }

    __device__ __forceinline__ uint2 exactEntry(u32 word, int j) const {
        uint2 v;
        asm("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(laneTable + (__byte_perm(word, 0, 0x4440 | j) << 8)));
        return v;
    }

    __device__ __forceinline__ void consume(const WeightPair<RT> &q, float nestedOffset, int pair) {
        ScaleValues scale;
#pragma unroll
        for (int r = 0; r < RT; ++r) {
            if constexpr (Scales == powersOfTwo) {
                float powers[2][4];
                powersOfWord(__float_as_uint(q.scales[r].x), powers[0]);
                powersOfWord(__float_as_uint(q.scales[r].y), powers[1]);
#pragma unroll
                for (int i = 0; i < 8; ++i) scale[r][i >> 1 & 1][i >> 2][i & 1] = powers[i >> 2][i & 3];
            } else if constexpr (Scales == nestedScales) {
                const float mine = __fadd_rn(__fmul_rn(map[__float_as_uint(q.scales[r].x)], q.scales[r].y), nestedOffset);
#pragma unroll
                for (int i = 0; i < 4; ++i) scale[r][i & 1][i >> 1][0] = __shfl_sync(~0u, mine, i, 4);
            } else {
                scale[r][0][0][0] = q.scales[r].x;
                scale[r][1][0][0] = q.scales[r].y;
                scale[r][0][1][0] = q.scales[r].z;
                scale[r][1][1][0] = q.scales[r].w;
            }
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            if constexpr (Exact)
                multiplyExact(q, half, 2 * pair + half, scale);
            else
                multiply(q, half, 2 * pair + half, scale);
        }
    }

    __device__ __forceinline__ void multiply(const WeightPair<RT> &q, int half, int kb, const ScaleValues &scale) {
        u32 w[RT][4][4];
#pragma unroll
        for (int r = 0; r < RT; ++r) {
            const u32 words[4] = {q.codes[r][half].x, q.codes[r][half].y, q.codes[r][half].z, q.codes[r][half].w};
#pragma unroll
            for (int s = 0; s < 4; ++s)
#pragma unroll
                for (int j = 0; j < 4; ++j) w[r][s][j] = entry(words[s], j);
        }
#pragma unroll
        for (int n = 0; n < NT; ++n) {
            u32 b[8];
            loadInput(b, kb, n, 0);
#pragma unroll
            for (int r = 0; r < RT; ++r)
#pragma unroll
                for (int block = 0; block < Blocks; ++block) {
                    float c[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
                    for (int i = 0; i < 4 / Blocks; ++i) {
                        const int s = block * (4 / Blocks) + i;
                        mmaK16(f16(), c, w[r][s], b[2 * s], b[2 * s + 1]);
                    }
                    const float s0 = scale[r][half][0][block], s1 = scale[r][half][1][block];
                    if constexpr (Single)
                        accumulate(sums[r][n], c, s0 * factors[kb], s1 * factors[kb]);
                    else
                        accumulate(sums[r][n], c, s0, s1);
                }
        }
    }

    __device__ __forceinline__ void multiplyExact(const WeightPair<RT> &q, int half, int kb, const ScaleValues &scale) {
#pragma unroll
        for (int n = 0; n < NT; ++n) {
            u32 high[8], low[8];
            loadInput(high, kb, n, 0);
            loadInput(low, kb, n, staged.lowOffset);
#pragma unroll
            for (int r = 0; r < RT; ++r) {
                const u32 words[4] = {q.codes[r][half].x, q.codes[r][half].y, q.codes[r][half].z, q.codes[r][half].w};
                float c[4] = {0.f, 0.f, 0.f, 0.f}, rest[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
                for (int s = 0; s < 4; ++s) {
                    if (Blocks == 2 && s == 2) {
                        accumulateExact(sums[r][n], c, rest, scale[r][half][0][0], scale[r][half][1][0]);
#pragma unroll
                        for (int i = 0; i < 4; ++i) c[i] = rest[i] = 0.f;
                    }
                    u32 wHigh[4], wLow[4];
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        const uint2 v = exactEntry(words[s], j);
                        wHigh[j] = v.x;
                        wLow[j] = v.y;
                    }
                    mmaK16(f16(), c, wHigh, high[2 * s], high[2 * s + 1]);
                    mmaK16(f16(), rest, wLow, high[2 * s], high[2 * s + 1]);
                    mmaK16(f16(), rest, wHigh, low[2 * s], low[2 * s + 1]);
                }
                accumulateExact(sums[r][n], c, rest, scale[r][half][0][Blocks - 1], scale[r][half][1][Blocks - 1]);
            }
        }
    }

    // A single token is column 0 of the fragment, in lanes 0 to 3. The other lanes hold zeros.
    __device__ __forceinline__ void loadInput(u32 (&b)[8], int kb, int n, long long offset) const {
        uint4 v = make_uint4(0, 0, 0, 0), w = make_uint4(0, 0, 0, 0);
        if constexpr (Single) {
            const uint4 *p = (const uint4 *)(stagedInput + kb * inputStride + (lane & 3) * 8);
            if (lane < 4) {
                v = p[0];
                w = p[1];
            }
        } else {
            const int tokenTile = min((int)blockIdx.y * NT + n, (a.tokens - 1) / 8);  // past the last one, any will do
            const uint4 *p = staged.fragments + offset + (((long long)tokenTile * 2 * pairs + kb) * 32 + lane) * 2;
            v = p[0];
            w = p[1];
        }
        b[0] = v.x;
        b[1] = v.y;
        b[2] = v.z;
        b[3] = v.w;
        b[4] = w.x;
        b[5] = w.y;
        b[6] = w.z;
        b[7] = w.w;
    }

    __device__ __forceinline__ static void accumulate(float (&sum)[4], const float (&c)[4], float s0, float s1) {
        sum[0] = fmaf(c[0], s0, sum[0]);
        sum[2] = fmaf(c[2], s1, sum[2]);
        if constexpr (!Single) {
            sum[1] = fmaf(c[1], s0, sum[1]);
            sum[3] = fmaf(c[3], s1, sum[3]);
        }
    }

    __device__ __forceinline__ static void accumulateExact(float (&sum)[4], float (&c)[4], const float (&rest)[4], float s0,
                                                           float s1) {
#pragma unroll
        for (int i = 0; i < 4; ++i) c[i] = fmaf(rest[i], 1.f / 4096.f, c[i]);
        accumulate(sum, c, s0, s1);
    }

    // The first of this lane's pairs of ranks; lanes l and l + 16 take output l.
    __device__ __forceinline__ int firstPair() const { return 2 * warp + (lane >> 4); }

    // Adds this warp's ranks of adapters, for one token.
    __device__ __forceinline__ void addRanks(const RankPairs<2> &ranks, const NibbleLowRank &lowRank) {
#ifdef NIBBLE_ADAPTERS
        float sum = ranks.product(lowRank, firstPair(), 2 * WARPS);
        sum += __shfl_xor_sync(~0u, sum, 16);
        sums[0][0][0] += __shfl_sync(~0u, sum, lane >> 2);
        sums[0][0][2] += __shfl_sync(~0u, sum, (lane >> 2) + 8);
#endif
    }

    // Adds the warps' sums in order and stores the outputs of a row tile; `sync` is the team's barrier.
    template <typename F>
    __device__ __forceinline__ void store(Reduction *shared, int &buffer, int partIndex, int rowTile, F sync) {
        const int g = lane >> 2, c = lane & 3;
        const NibbleLinearLayer &part = a.parts[partIndex];
#pragma unroll
        for (int n = 0; n < NT; ++n) {
            Reduction &all = shared[buffer];
            buffer ^= 1;
#pragma unroll
            for (int r = 0; r < RT; ++r) {
                all[warp][2 * c][r * 16 + g] = sums[r][n][0];
                all[warp][2 * c + 1][r * 16 + g] = sums[r][n][1];
                all[warp][2 * c][r * 16 + g + 8] = sums[r][n][2];
                all[warp][2 * c + 1][r * 16 + g + 8] = sums[r][n][3];
            }
            sync();
            for (int i = warp * 32 + lane; i < columns * RT * 16; i += WARPS * 32) {
                const int column = i / (RT * 16), row = i % (RT * 16);
                const int m = (blockIdx.y * NT + n) * 8 + column, output = rowTile * RT * 16 + row;
                if (m >= a.tokens || output >= part.outFeatures) continue;
                float sum = all[0][column][row];
#pragma unroll
                for (int w = 1; w < WARPS; ++w) sum += all[w][column][row];
                sum *= staged.factors[m];
                finishOutput(a.epilogue, part, m, output, sum + (part.bias ? part.bias[output] : 0.f));
            }
        }
    }

    // Like `store`, for one token: the first half warp stores the outputs; it has already loaded bias and residual.
    template <typename F>
    __device__ __forceinline__ void storeSingle(Reduction *shared, int &buffer, int partIndex, int rowTile, float bias,
                                                float residual, F sync) {
        const NibbleLinearLayer &part = a.parts[partIndex];
        const int output = rowTile * 16 + lane;
        Reduction &all = shared[buffer];
        buffer ^= 1;
        if ((lane & 3) == 0) {
            all[warp][0][lane >> 2] = sums[0][0][0];
            all[warp][0][(lane >> 2) + 8] = sums[0][0][2];
        }
        sync();
        if (warp != 0 || lane >= 16 || output >= part.outFeatures) return;
        float sum = all[0][0][lane];
#pragma unroll
        for (int w = 1; w < WARPS; ++w) sum += all[w][0][lane];
        finishOutput(a.epilogue, part, 0, output, sum + bias, residual);
    }

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int r = 0; r < RT; ++r)
#pragma unroll
            for (int n = 0; n < NT; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) sums[r][n][i] = 0.f;
    }
};

// Teams take row tiles in turn, so any grid.x works. The codes of Depth pairs of column tiles are always in flight: once a pair
// is consumed, its registers receive the pair Depth further on, which may belong to the next row tile.
template <typename T, int RT, int NT, bool Single, bool Exact, ScaleKind Scales, int Depth, int Teams>
__device__ __forceinline__ void tiledProductBody(const NibbleLinearArguments &a, float *map, float *reductions) {
    using Work = TiledProduct<T, RT, NT, Single, Exact, Scales>;
    extern __shared__ uint4 dynamicShared[];
    u32 *table = (u32 *)dynamicShared;
    const int team = threadIdx.x / (WARPS * 32);
    typename Work::Reduction *reduction = (typename Work::Reduction *)reductions + 2 * team;
    auto sync = [&] {
        if constexpr (Teams == 1)
            __syncthreads();
        else
            asm volatile("bar.sync %0, %1;" ::"r"(1 + team), "n"(WARPS * 32) : "memory");
    };
    Work work(a, table);
    work.map = map;
    const InputTurn turn(a, Single);
    RowInput<T> row(a.input, a.prologue, a.inFeatures);
    if constexpr (Single) row.prefetchWeights();

    int tiles = 0;
    for (int p = 0; p < a.layerCount; ++p) tiles += (a.parts[p].outFeatures + RT * 16 - 1) / (RT * 16);
    const int batches = (work.pairs + WARPS * Depth - 1) / (WARPS * Depth), step = gridDim.x * Teams;
    int tile = blockIdx.x * Teams + team;
    RowTile<RT> loading = work.rowTile(min(tile, tiles - 1));
    WeightPair<RT> q[Depth];
#pragma unroll
    for (int d = 0; d < Depth; ++d)
        if (tile < tiles && d * WARPS + work.warp < work.pairs) work.load(q[d], loading, d * WARPS + work.warp);

    if constexpr (Single) {
        const NibbleLinearLayer &part = a.parts[loading.part];
        if (work.warp == 0 && work.lane < 16)
            prefetchRanks(part.lowRank, min(loading.index * 16 + work.lane, part.outFeatures - 1));
    }

    if constexpr (Exact)
        fillExactTable(table, a.codebook);
    else if constexpr (isSpread<Exact>()) {
        if (threadIdx.x < 256) fillSpreadTable<256>((u8 *)table, a.codebook);
    } else
        fillTable(table, a.codebook);
    if (Scales == nestedScales && threadIdx.x < 256) map[threadIdx.x] = dynamicMapValue(threadIdx.x);
    turn.waitForInputOfBlock();
    if (isUnused(a)) return;
    if constexpr (Single) {
        // A spread table leaves as much room between its entries as it takes.
        const int tableWords = isSpread<Exact>() ? 256 * 64 : 256 * 32;
        const bool isBetween = NIBBLE_TILED_4BIT_BETWEEN(isSpread<Exact>(), a.inFeatures);
        u32 *input = table + (isBetween ? 32 : tableWords);
        float *factors = (float *)(table + tableWords + (isBetween ? 0 : 64 * work.pairs));
        work.inputStride = isBetween ? 64 : 32;
        row.measure();
        stageSingle(row, 2 * work.pairs, input, work.inputStride, factors);
        work.stagedInput = input;
        work.factors = factors;
    } else {
        work.staged = stagedLayout<T>(a.staged, a.tokens, 2 * work.pairs);
    }
    __syncthreads();

    int buffer = 0;
    for (; tile < tiles; tile += step) {
        work.clear();
        const int part = loading.part, rowTile = loading.index;
        const bool hasNext = tile + step < tiles;
        const float offset = a.parts[part].nestedOffset;
        float bias = 0.f, residual = 0.f;
        RankPairs<2> ranks;
        if constexpr (Single) {
            const int output = rowTile * 16 + (work.lane & 15);
            bias = loading.bias;
            if (work.warp == 0 && output < a.parts[part].outFeatures)
                residual = residualAt(a.epilogue, 0, a.parts[part].firstColumn + output);
            ranks.fetch(a.parts[part].lowRank, min(output, a.parts[part].outFeatures - 1), work.firstPair(), 2 * WARPS);
        }
        for (int batch = 0; batch < batches; ++batch) {
            const bool isLast = batch + 1 == batches;
            if (isLast && hasNext) loading = work.rowTile(tile + step);
            const int first = batch * Depth * WARPS + work.warp, next = isLast ? work.warp : first + Depth * WARPS;
#pragma unroll
            for (int d = 0; d < Depth; ++d) {
                if (first + d * WARPS < work.pairs) work.consume(q[d], offset, first + d * WARPS);
                if (next + d * WARPS < work.pairs && (!isLast || hasNext)) work.load(q[d], loading, next + d * WARPS);
            }
        }
        if constexpr (Single) {
            if (tile < step) turn.waitForSums();
            work.addRanks(ranks, a.parts[part].lowRank);
            work.storeSingle(reduction, buffer, part, rowTile, bias, residual, sync);
        } else {
            work.store(reduction, buffer, part, rowTile, sync);
        }
    }
}

// Programs are compiled with and without NIBBLE_POWERS, for scales that are powers of two and for others.
template <typename T, int RT, int NT, bool Single, bool Exact, int Depth, int Teams>
__device__ __forceinline__ void tiledProduct(const NibbleLinearArguments &a, float *map, float *reductions) {
#ifdef NIBBLE_POWERS
    tiledProductBody<T, RT, NT, Single, Exact, powersOfTwo, Depth, Teams>(a, map, reductions);
#else
    if (a.parts[0].nestedCodes)
        tiledProductBody<T, RT, NT, Single, Exact, nestedScales, Depth, Teams>(a, map, reductions);
    else
        tiledProductBody<T, RT, NT, Single, Exact, plainScales, Depth, Teams>(a, map, reductions);
#endif
}

#ifndef NIBBLE_EXPERTS
#define TILED_PRODUCT(NAME, T, RT, NT, SINGLE, EXACT, DEPTH, TEAMS, RESIDENT)                                    \
    extern "C" __global__ void __launch_bounds__(WARPS * 32 * TEAMS, RESIDENT)                                   \
        NAME(const __grid_constant__ NibbleLinearArguments a) {                                                  \
        __shared__ float map[256], reductions[TEAMS * 2 * WARPS * (SINGLE ? 1 : 8) * (RT * 16 + 4)];             \
        if constexpr (IS_WANTED(NAME)) tiledProduct<T, RT, NT, SINGLE, EXACT, DEPTH, TEAMS>(a, map, reductions); \
    }

#define STAGE_4BIT(T)                                                                                                          \
    extern "C" __global__ void __launch_bounds__(WARPS * 32) stage_4bit_##T(const __grid_constant__ NibbleLinearArguments a) { \
        if constexpr (IS_WANTED(stage_4bit_##T)) stageFourBitBody<T>(a);                                                       \
    }

#define INSTANCE_f32(T) STAGE_4BIT(T) TILED_PRODUCT(gemm_4bit_tiled_8_##T, T, 1, 1, false, true, 1, 1, 2)
#define INSTANCE_16(T)                                                                                        \
    STAGE_4BIT(T)                                                                                             \
    TILED_PRODUCT(gemv_4bit_tiled_##T, T, 1, 1, true, false, SPREADS_TABLE ? 3 : 2, 1, SPREADS_TABLE ? 2 : 3) \
    TILED_PRODUCT(gemv_4bit_tiled_few_##T, T, 1, 1, true, false, 3, 2, 1)                                     \
    TILED_PRODUCT(gemm_4bit_tiled_8_##T, T, 1, 1, false, false, 2, 1, SPREADS_TABLE ? 2 : 3)                  \
    TILED_PRODUCT(gemm_4bit_tiled_16_##T, T, 2, 2, false, false, 1, 1, 2)                                     \
    TILED_PRODUCT(gemm_4bit_tiled_32_##T, T, 2, 4, false, false, 1, 1, 1)                                     \
    TILED_PRODUCT(gemm_4bit_tiled_64_##T, T, 2, 8, false, false, 1, 1, 1)
#define INSTANCE_f16(T) INSTANCE_16(T)
#define INSTANCE_bf16(T) INSTANCE_16(T)
#define INSTANCE(T) INSTANCE_##T(T)
NIBBLE_FOR_TYPES(INSTANCE)
#endif
