// 4-bit linear layers over the tiled layout (tiles4.cuh) for several to some hundred tokens, on the warpgroup products of compute
// capability 9.0. Elsewhere these kernels are empty.
//
// A block computes 128 outputs for up to `Tokens` tokens over a range of K. Each of its two warpgroups has 64 outputs: codes
// become float16 values, in the registers from which the products take their first operand, through a table with one copy per
// lane. Activations are the second operand, in shared memory. Scales multiply float32 sums of 64 products. The blocks of a
// cluster divide K; they add their sums in the order of their ranks, so that a result does not depend on timing.
//
// Weights reach shared memory by asynchronous copies of the lanes that use them, so a warp waits for its own alone. Activations
// come by bulk copies that one thread starts.
#include "warpgroup.cuh"
#include "input_turns.cuh"
#include "staging4.cuh"
#include "wide_ranks.cuh"

#define WARPS (NIBBLE_WIDE_4BIT_THREADS / 32)
#define RING_DEPTH 3

// The table has an entry of 128 bytes every 256 bytes of shared memory, so that a byte of codes, put into bits 8 to 15 of an
// address, selects an entry. Between the entries lie the warps' rings of weights: a slot is ten pieces of 128 bytes, for the
// codes of 16 rows and 128 columns, their scales and, if nested, the absmax of each scale. Powers of two fill half a piece.
#define TABLE_BYTES 65536
#define SLOT_BYTES 2560
// Behind them, in pieces too: the map of nested scales, and barriers.
#define MAP_OFFSET (128 + WARPS * RING_DEPTH * SLOT_BYTES)
#define BARRIER_OFFSET (MAP_OFFSET + 8 * 256)

// Stages token m by all threads of a block; it may be kept.
template <typename T>
__device__ __forceinline__ void stageWideRow(const RowInput<T> &row, const WideStaged &staged, int m, int pairs,
                                             T *kept = nullptr) {
    float inverse;
    const float factor = factorOfRow(row, inverse);
    row.forEachRun(pairs * 16, [&](int i, const float (&x)[8]) {
        if (i >= pairs * 16) return;
        keepRun(kept, i, row.K, x);
        float y[8];
#pragma unroll
        for (int j = 0; j < 8; ++j) y[j] = x[j] * factor;
        staged.matrices(i >> 4, m >> 3)[(i & 15) * 8 + (m & 7)] = packEight<f16>(y);
    });
    if (threadIdx.x == 0) staged.factors[m] = inverse;
}

// A block stages one token.
template <typename T>
__device__ __forceinline__ void stageWideBody(const NibbleLinearArguments &a) {
    const int m = blockIdx.x, pairs = (a.inFeatures + 127) / 128;
    RowInput<T> row(tokenOf<T>(a, m), a.prologue, a.inFeatures);
    releaseDependents();
    row.prefetchWeights();
    if (isUnused(a)) return;
    waitForPredecessors();
    row.measure();
    stageWideRow(row, WideStaged(a, pairs), m, pairs, keptToken<T>(a, m));
#ifdef NIBBLE_ADAPTERS
    announceTokens(a.turns, 1);
#endif
}

#if NIBBLE_HAS_WARPGROUPS
__device__ __forceinline__ void copyAsync4(u32 destination, const void *source) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(destination), "l"(source) : "memory");
}

// The weights of one warp: 16 rows, in a ring of pairs of column tiles.
template <ScaleKind Scales>
struct WeightRing {
    static constexpr bool Nested = Scales == nestedScales;
    static constexpr int Blocks = blocksOfTile(Scales);
    static constexpr int scaleBytes = Scales == plainScales ? 128 : 32 * Blocks;  // of a pair
    const u8 *codes, *scales;  // of this lane: 16 bytes of codes and, in the first lanes, of scales; of the next pair to copy
    const float *nestedAbsmax;
    int block, lastBlock;      // nested: canonical blocks of this lane's scale in that pair, and of the weight's last scale
    int left;                  // pairs to copy
    u32 slots, copied, taken;  // shared addresses: of the ring, and of this lane's codes in the next slots to fill and to take
    int lane;

    __device__ __forceinline__ WeightRing(const NibbleLinearArguments &a, const NibbleLinearLayer &part, int rowTile, int first,
                                          int end, u32 slots)
        : left(end - first), slots(slots), lane(threadIdx.x & 31) {
        const int pairs = (a.inFeatures + 127) / 128, tile = min(rowTile, (part.outFeatures - 1) / 16);
        const long long pair = (long long)tile * pairs + first;
        codes = (const u8 *)part.weight + pair * 1024 + lane * 16;
        scales = (Scales == plainScales ? (const u8 *)part.scales : part.nestedCodes) + pair * scaleBytes + lane * 16;
        nestedAbsmax = part.nestedAbsmax;
        const int row = min(tile * 16 + (lane >> 2) + 4 * (lane & 2), part.outFeatures - 1), across = a.inFeatures / 64;
        block = row * across + (lane & 1) + 2 * first;
        lastBlock = part.outFeatures * across - 1;
        copied = taken = slots + laneOffset();
    }

    __device__ __forceinline__ u32 laneOffset() const { return (lane >> 3) * 256 + (lane & 7) * 16; }
    __device__ __forceinline__ void advance(u32 &slot) const {
        slot = slot + SLOT_BYTES >= slots + RING_DEPTH * SLOT_BYTES ? slot - (RING_DEPTH - 1) * SLOT_BYTES : slot + SLOT_BYTES;
    }

    // Starts the copies of the next pair.
    __device__ __forceinline__ void copy() {
        if (left > 0) {
            copyAsync16(copied, codes, true);
            copyAsync16(copied + 1024, codes + 512, true);
            if (lane < scaleBytes / 16) copyAsync16(copied + 2048, scales, true);
            if (Nested) copyAsync4(copied - laneOffset() + 2304 + lane * 4, nestedAbsmax + (min(block, lastBlock) >> 8));
        }
        commitCopies();
        codes += 1024;
        scales += scaleBytes;
        block += 2;
        --left;
        advance(copied);
    }

    // Waits for the next pair and takes it: scales of row g in the blocks of the pair, then of row g + 8.
    __device__ __forceinline__ void take(u32 table, float offset, uint4 (&words)[2], float (&scale)[2][2 * Blocks]) {
        waitCopies<RING_DEPTH - 1>();
        __syncwarp();
        words[0] = loadShared16(taken);
        words[1] = loadShared16(taken + 1024);
        const u32 piece = taken - laneOffset() + 2048;
        if constexpr (Scales == powersOfTwo) {
            uint2 exponents;
            asm volatile("ld.shared.v2.u32 {%0,%1}, [%2];"
                         : "=r"(exponents.x), "=r"(exponents.y)
                         : "r"(piece + (lane >> 2) * 8)
                         : "memory");
            powersOfWord(exponents.x, scale[0]);
            powersOfWord(exponents.y, scale[1]);
        } else if constexpr (Nested) {
            u32 code, absmax, value;
            asm volatile("ld.shared.u8 %0, [%1];" : "=r"(code) : "r"(piece + lane) : "memory");
            asm volatile("ld.shared.u32 %0, [%1];" : "=r"(absmax) : "r"(piece + 256 + lane * 4) : "memory");
            asm volatile("ld.shared.u32 %0, [%1];"
                         : "=r"(value)
                         : "r"(table + MAP_OFFSET + (code >> 5) * 256 + (code & 31) * 4)
                         : "memory");
            const float mine = __fadd_rn(__fmul_rn(__uint_as_float(value), __uint_as_float(absmax)), offset);
#pragma unroll
            for (int j = 0; j < 4; ++j) scale[j >> 1][j & 1] = __shfl_sync(~0u, mine, j, 4);
        } else {
            const uint4 v = loadShared16(piece + (lane >> 2) * 16);
            scale[0][0] = __uint_as_float(v.x);
            scale[0][1] = __uint_as_float(v.y);
            scale[1][0] = __uint_as_float(v.z);
            scale[1][1] = __uint_as_float(v.w);
        }
        advance(taken);
        __syncwarp();
    }

    __device__ __forceinline__ static uint4 loadShared16(u32 address) {
        uint4 v;
        asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
                     : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                     : "r"(address)
                     : "memory");
        return v;
    }
};

// The float16 values of the codes of block `block` of a column tile, as the first operands of its products. `table` is its shared
// address.
template <int Products>
__device__ __forceinline__ void lookUp(u32 (&w)[Products][4], const uint4 &codes, int block, u32 table, u32 laneOffset) {
    const u32 words[4] = {codes.x, codes.y, codes.z, codes.w};
#pragma unroll
    for (int s = 0; s < Products; ++s)
#pragma unroll
        for (int j = 0; j < 4; ++j) w[s][j] = spreadEntry(table, laneOffset, words[block * Products + s], j);
}

// Starts the products of a block; `activations` describes its first matrix.
template <int count, int Products>
__device__ __forceinline__ void startProducts(float (&c)[count], const u32 (&w)[Products][4], u64 activations) {
    fenceSums(c);
    beginProducts();
#pragma unroll
    for (int s = 0; s < Products; ++s) multiplyWarpgroup(c, w[s], activations + s * (256 >> 4), s > 0);
    commitProducts();
}

// Waits for the products in flight and adds them.
template <int count>
__device__ __forceinline__ void addProducts(float (&sums)[count], float (&c)[count], float first, float second) {
    waitProducts();
    fenceSums(c);
#pragma unroll
    for (int i = 0; i < count; i += 4) {
        sums[i] = fmaf(c[i], first, sums[i]);
        sums[i + 1] = fmaf(c[i + 1], first, sums[i + 1]);
        sums[i + 2] = fmaf(c[i + 2], second, sums[i + 2]);
        sums[i + 3] = fmaf(c[i + 3], second, sums[i + 3]);
    }
}

// What a block works on.
struct WideBlock {
    int tile, first, end;  // of 128 outputs, within the layer; pairs of column tiles
    u32 rank, size;        // of its cluster
    const NibbleLinearLayer &part;

    static __device__ __forceinline__ int layer(const NibbleLinearArguments &a, int &tile) {
        tile = blockIdx.x / clusterSize();
        return layerOfTile(a, tile, NIBBLE_WIDE_4BIT_ROWS);
    }
    __device__ __forceinline__ WideBlock(const NibbleLinearArguments &a)
        : rank(clusterRank()), size(clusterSize()), part(a.parts[layer(a, tile)]) {
        const int pairs = (a.inFeatures + 127) / 128;
        first = pairs * rank / size;
        end = pairs * (rank + 1) / size;
#ifdef NIBBLE_ADAPTERS
        // The first block adds the ranks of adapters, which takes as long as a pair does.
        if (part.lowRank.ranks > 0 && pairs >= (int)(2 * size)) {
            first = rank == 0 ? 0 : (pairs + 1) * rank / size - 1;
            end = (pairs + 1) * (rank + 1) / size - 1;
        }
#endif
    }
};

// Staged activations, through a ring in shared memory. Each stage has a barrier that ends a phase when it is full and one for
// when it is empty. One thread copies.
template <int Tokens, int Stages>
struct ActivationRing {
    static constexpr u32 stageBytes = Tokens * 256;
    const uint4 *source;        // of the next pair to copy
    long long step;             // to the one after
    u32 bytes;                  // past the last token the products are not stored
    u32 stages, barriers;       // shared addresses
    int left;                   // pairs to copy
    u32 filled = 0;             // the next stage to fill
    u32 stage = 0, parity = 0;  // in use

    __device__ __forceinline__ ActivationRing(const WideStaged &staged, const WideBlock &block, u32 stages, u32 barriers)
        : stages(stages), barriers(barriers), left(block.end - block.first) {
        const int tokenTile = blockIdx.y * (Tokens / 8);
        source = staged.matrices(block.first, tokenTile);
        step = (long long)staged.tokenTiles * 128;
        bytes = min(Tokens / 8, staged.tokenTiles - tokenTile) * 2048;
    }

    __device__ __forceinline__ u32 full(u32 s) const { return barriers + 8 * s; }
    __device__ __forceinline__ u32 empty(u32 s) const { return barriers + 8 * (Stages + s); }

    __device__ __forceinline__ void initialize() const {
        for (int s = 0; s < Stages; ++s) {
            initBarrier(full(s), 1);
            initBarrier(empty(s), WARPS);
        }
        fenceBarriers();
    }

    __device__ __forceinline__ void copy() {
        if (left > 0) {
            arriveExpecting(full(filled), bytes);
            copyBulk(stages + filled * stageBytes, source, bytes, full(filled));
        }
        source += step;
        --left;
        filled = filled + 1 == Stages ? 0 : filled + 1;
    }
    // Fills all stages.
    __device__ __forceinline__ void start(int warp) {
        if (warp == 0 && elected()) {
#ifdef NIBBLE_ADAPTERS
            // The input's turn ordered other accesses to memory than those of bulk copies.
            asm volatile("fence.proxy.async.global;" ::: "memory");
#endif
            for (int s = 0; s < Stages; ++s) copy();
        }
        __syncwarp();
    }
    // Fills the stage before the one in use with the next pair, once all warps have let go of it.
    __device__ __forceinline__ void refill(int warp) {
        if (warp == 0 && elected() && left > 0) {
            waitBarrier(empty(filled), stage == 0 ? parity ^ 1 : parity);
            copy();
        }
        __syncwarp();
    }

    __device__ __forceinline__ void wait() const { waitBarrier(full(stage), parity); }
    // Lets go of the stage in use, by a warp.
    __device__ __forceinline__ void release() {
        if ((threadIdx.x & 31) == 0) arrive(empty(stage));
        if (++stage == Stages) {
            stage = 0;
            parity ^= 1;
        }
    }
};

// Adds the sums of the cluster's blocks, of two tokens at a time in turn, and stores the outputs.
template <int Tokens>
__device__ __forceinline__ void storeCluster(const NibbleLinearArguments &a, const WideStaged &staged, const WideBlock &block,
                                             u32 sums) {
    const int row = threadIdx.x % NIBBLE_WIDE_4BIT_ROWS, output = block.tile * NIBBLE_WIDE_4BIT_ROWS + row;
    if (output >= block.part.outFeatures) return;
    const float bias = block.part.bias ? block.part.bias[output] : 0.f;
#pragma unroll 2
    for (int n = threadIdx.x / NIBBLE_WIDE_4BIT_ROWS + 2 * block.rank; n < Tokens; n += 2 * block.size) {
        const int m = blockIdx.y * Tokens + n;
        if (m >= a.tokens) break;
        const Delta delta(block.part.lowRank, m, output);
        const u32 at = sums + (n * (NIBBLE_WIDE_4BIT_ROWS + 4) + row) * 4;
        float sum = 0.f;
#pragma unroll
        for (u32 r = 0; r < 8; ++r)
            if (r < block.size) sum += loadFromCluster(at, r);
        finish(a.epilogue, m, block.part.firstColumn + output, delta.addedTo(sum * staged.factors[m] + bias));
    }
}

// The sums of this warp's 16 outputs over the block's pairs. The values of one quantization block are looked up while the
// products of the one before are in flight.
template <int Tokens, int Stages, ScaleKind Scales>
__device__ __forceinline__ void sumProducts(WeightRing<Scales> &weights, ActivationRing<Tokens, Stages> &input, int pairs,
                                            float nestedOffset, u32 table, float (&sums)[Tokens / 2]) {
    const u32 laneOffset = (threadIdx.x & 31) * 4;
    const int warp = __shfl_sync(~0u, threadIdx.x >> 5, 0);
    const u64 matrices = describeMatrices(input.stages, 128, 2048);
    constexpr int Blocks = blocksOfTile(Scales), last = 2 * Blocks - 1;
    u32 w[2][4 / Blocks][4];
    uint4 words[2];
    float scale[2][2 * Blocks];
#pragma unroll
    for (int i = 0; i < Tokens / 2; ++i) sums[i] = 0.f;
    weights.take(table, nestedOffset, words, scale);
    weights.copy();
    lookUp(w[0], words[0], 0, table, laneOffset);
#pragma unroll 1
    for (int i = 0; i < pairs; ++i) {
        const u64 activations = matrices + input.stage * (input.stageBytes >> 4);
        float c[Tokens / 2];
        input.wait();
#pragma unroll
        for (int b = 0; b < last; ++b) {
            startProducts(c, w[b & 1], activations + b * (1024 / Blocks >> 4));
            lookUp(w[b + 1 & 1], words[(b + 1) / Blocks], (b + 1) % Blocks, table, laneOffset);
            addProducts(sums, c, scale[0][b], scale[1][b]);
        }
        const float second[2] = {scale[0][last], scale[1][last]};
        // After the last pair these are leftovers, which nothing uses.
        weights.take(table, nestedOffset, words, scale);
        if (i > 0) input.refill(warp);
        weights.copy();
        startProducts(c, w[1], activations + last * (1024 / Blocks >> 4));
        lookUp(w[0], words[0], 0, table, laneOffset);
        addProducts(sums, c, second[0], second[1]);
        input.release();
    }
}

template <int Tokens, int Stages, ScaleKind Scales>
__device__ __forceinline__ void wideBody(const NibbleLinearArguments &a) {
    extern __shared__ __align__(128) u8 wideShared[];
    // The shuffle makes the compiler keep the address.
    const u32 table = __shfl_sync(~0u, sharedAddress(wideShared), 0);
    const int lane = threadIdx.x & 31, warp = __shfl_sync(~0u, threadIdx.x >> 5, 0);
    const InputTurn turn(a);
    const WideBlock block(a);
    WeightRing<Scales> weights(a, block.part, block.tile * (NIBBLE_WIDE_4BIT_ROWS / 16) + warp, block.first, block.end,
                               table + 128 + warp * RING_DEPTH * SLOT_BYTES);
#pragma unroll
    for (int d = 0; d < RING_DEPTH; ++d) weights.copy();
    const WideStaged staged(a, (a.inFeatures + 127) / 128);
    ActivationRing<Tokens, Stages> input(staged, block, table + TABLE_BYTES, table + BARRIER_OFFSET);
    if (threadIdx.x == 0) input.initialize();
    fillSpreadTable<256>(wideShared, a.codebook);
    if (Scales == nestedScales) *(float *)(wideShared + MAP_OFFSET + warp * 256 + lane * 4) = dynamicMapValue(threadIdx.x);
#ifdef NIBBLE_ADAPTERS
    const bool addsRanks = block.rank == 0 && block.part.lowRank.ranks > 0;
    if (addsRanks) WideRanks<Tokens>(a, block.part, block.tile).prefetch();
#endif
    turn.waitForInput();
    if (isUnused(a)) return waitCopies<0>();
    __syncthreads();
    input.start(warp);

    float sums[Tokens / 2];
    sumProducts<Tokens, Stages, Scales>(weights, input, block.end - block.first, block.part.nestedOffset, table, sums);
    waitCopies<0>();
    __syncthreads();
#ifdef NIBBLE_ADAPTERS
    WideRanks<Tokens> ranks(a, block.part, block.tile);
    if (addsRanks) ranks.loadB(0);
    turn.waitForSums();
    if (addsRanks) ranks.addTo(sums, staged.factors, input.stages + (Stages - 1) * input.stageBytes);
#endif
    float *all = (float *)wideShared;
    const int row = warp * 16 + (lane >> 2), token = 2 * (lane & 3);
#pragma unroll
    for (int i = 0; i < Tokens / 2; ++i)
        all[(token + 2 * (i & ~3) + (i & 1)) * (NIBBLE_WIDE_4BIT_ROWS + 4) + row + 4 * (i & 2)] = sums[i];
    syncCluster();
    storeCluster<Tokens>(a, staged, block, table);
    meetCluster();
}
#endif

template <int Tokens>
__device__ __forceinline__ void wideProduct(const NibbleLinearArguments &a) {
#if NIBBLE_HAS_WARPGROUPS
    constexpr int stages = NIBBLE_WIDE_4BIT_STAGES(Tokens);
#ifdef NIBBLE_POWERS
    wideBody<Tokens, stages, powersOfTwo>(a);
#else
    if (a.parts[0].nestedCodes)
        wideBody<Tokens, stages, nestedScales>(a);
    else
        wideBody<Tokens, stages, plainScales>(a);
#endif
#endif
}

#ifndef NIBBLE_EXPERTS
#define WIDE_PRODUCT(TOKENS, RESIDENT)                                               \
    extern "C" __global__ void __launch_bounds__(NIBBLE_WIDE_4BIT_THREADS, RESIDENT) \
        gemm_4bit_wide_##TOKENS(const __grid_constant__ NibbleLinearArguments a) {   \
        if constexpr (IS_WANTED(gemm_4bit_wide_##TOKENS)) wideProduct<TOKENS>(a);    \
    }
#if !defined(NIBBLE_ONLY_F16) && !defined(NIBBLE_ONLY_BF16)
WIDE_PRODUCT(16, 2)
WIDE_PRODUCT(32, 2)
WIDE_PRODUCT(64, 2)
WIDE_PRODUCT(96, 1)
WIDE_PRODUCT(128, 1)
#endif

#define STAGE_WIDE(T)                                                            \
    extern "C" __global__ void __launch_bounds__(NIBBLE_WIDE_4BIT_STAGE_THREADS) \
        stage_4bit_wide_##T(const __grid_constant__ NibbleLinearArguments a) {   \
        if constexpr (IS_WANTED(stage_4bit_wide_##T)) stageWideBody<T>(a);       \
    }
#define INSTANCE_f32(T)
#define INSTANCE_f16(T) STAGE_WIDE(T)
#define INSTANCE_bf16(T) STAGE_WIDE(T)
#define INSTANCE(T) INSTANCE_##T(T)
NIBBLE_FOR_TYPES(INSTANCE)
#endif
