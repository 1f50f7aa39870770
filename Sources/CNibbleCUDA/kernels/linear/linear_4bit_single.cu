// The 4-bit product of one token over the tiled layout, for compute capability 9.0. Elsewhere the kernel is empty.
//
// A multiprocessor has one block, with neighbouring tiles of 16 rows, whose codes and scales lie one behind the other. Its last
// warp copies them to a ring, and begins ahead of the kernels before; 16 warps take pairs of column tiles in turn. Nothing is
// joined across blocks. Two blocks must not fit: they would share one multiprocessor where kernels before hold another.
#include "staging4.cuh"
#include "warpgroup.cuh"

#define CONSUMERS 16
#define STAGE_PAIRS NIBBLE_SINGLE_4BIT_STAGE_PAIRS
#define STAGES NIBBLE_SINGLE_4BIT_STAGES
#define GROUPS (CONSUMERS / STAGE_PAIRS)  // of warps that share a stage; each has stages of its own
#define STAGE_BYTES (STAGE_PAIRS * 1152)
#define TILES NIBBLE_SINGLE_4BIT_TILES  // whose sums are kept until they are added

#if NIBBLE_HAS_WARPGROUPS
// Shared memory: the table, with the token between its entries, the ring, then this.
struct SingleFourBit {
    float sums[TILES][CONSUMERS][16];
    float factors[256];  // of each column tile
    u64 full[STAGES], empty[STAGES];
};
static_assert(65536 + STAGES * STAGE_BYTES + sizeof(SingleFourBit) <= NIBBLE_SINGLE_4BIT_SHARED, "does not fit");

// Up to TILES tiles of a layer.
struct TileRun {
    int layer, first, count;  // tiles of the layer
    int items;                // pairs of column tiles
};

// The runs of a block, in order.
struct TileRuns {
    const NibbleLinearArguments &a;
    int pairs, tile, end, layer = 0, layerTiles;

    __device__ __forceinline__ int tilesOf(int layer) const { return (a.parts[layer].outFeatures + 15) / 16; }

    __device__ __forceinline__ explicit TileRuns(const NibbleLinearArguments &a) : a(a) {
        int tiles = 0;
        for (int p = 0; p < a.layerCount; ++p) tiles += tilesOf(p);
        pairs = (a.inFeatures + 127) / 128;
        tile = (int)((long long)blockIdx.x * tiles / gridDim.x);
        end = (int)((long long)(blockIdx.x + 1) * tiles / gridDim.x);
        layerTiles = tilesOf(0);
        skipLayers();
    }

    // `tile` and `end` count from the first tile of the layer.
    __device__ __forceinline__ void skipLayers() {
        while (tile >= layerTiles && layer + 1 < a.layerCount) {
            tile -= layerTiles;
            end -= layerTiles;
            layerTiles = tilesOf(++layer);
        }
    }

    __device__ __forceinline__ bool next(TileRun &run) {
        if (tile >= end) return false;
        const int count = min(TILES, min(end, layerTiles) - tile);
        run = {layer, tile, count, count * pairs};
        tile += count;
        skipLayers();
        return true;
    }
};

// By one lane: fills stages in turn.
struct StageFiller {
    TileRuns runs;
    u32 memory, full, empty;  // shared addresses
    u64 policy;
    const u8 *codes = nullptr, *scales = nullptr;
    int left = 0, stagesLeft = 0, stage = 0;
    u32 parity = 1;

    // Whether there is a further stage.
    __device__ __forceinline__ bool prepare() {
        if (stagesLeft > 0) return true;
        TileRun run;
        if (!runs.next(run)) return false;
        const NibbleLinearLayer &part = runs.a.parts[run.layer];
        const long long pair = (long long)run.first * runs.pairs;
        codes = (const u8 *)part.weight + pair * 1024;
        scales = (const u8 *)part.scales + pair * 128;
        left = run.items;
        stagesLeft = (run.items + CONSUMERS - 1) / CONSUMERS * GROUPS;
        return true;
    }

    __device__ __forceinline__ void fill() {
        const int count = max(0, min(left, STAGE_PAIRS));
        const u32 at = memory + stage * STAGE_BYTES, barrier = full + 8 * stage;
        arriveExpecting(barrier, count * 1152);
        if (count) {
            copyBulk(at, codes, count * 1024, barrier, policy);
            copyBulk(at + STAGE_PAIRS * 1024, scales, count * 128, barrier, policy);
        }
        codes += STAGE_PAIRS * 1024;
        scales += STAGE_PAIRS * 128;
        left -= STAGE_PAIRS;
        --stagesLeft;
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }

    __device__ __forceinline__ void start() {
        for (int s = 0; s < STAGES; ++s) {
            initBarrier(full + 8 * s, 1);
            initBarrier(empty + 8 * s, STAGE_PAIRS);
        }
        fenceBarriers();
        for (int s = 0; s < STAGES && prepare(); ++s) fill();
    }

    __device__ __forceinline__ void refill() {
        while (prepare()) {
            waitBarrier(empty + 8 * stage, parity);
            fill();
        }
    }
};

// What a warp multiplies.
struct SingleConsumer {
    u32 table, laneOffset;  // shared address; of the lane's copy
    const float *factors;

    // Adds the products of a column tile to those of rows g and g + 8.
    __device__ __forceinline__ void add(float &low, float &high, const uint4 &codes, int tile, float scale0, float scale1) const {
        const int lane = threadIdx.x & 31;
        u32 b[8];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            // A single token is column 0 of the fragment, in lanes 0 to 3. The others hold zeros.
            uint4 v = make_uint4(0, 0, 0, 0);
            if (lane < 4) v = loadSharedQuad(table + tile * 256 + 128 + lane * 32 + 16 * i);
            b[4 * i] = v.x;
            b[4 * i + 1] = v.y;
            b[4 * i + 2] = v.z;
            b[4 * i + 3] = v.w;
        }
        const float factor = factors[tile];
        const u32 words[4] = {codes.x, codes.y, codes.z, codes.w};
        float c[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
        for (int s = 0; s < 4; ++s) {
            u32 w[4];
#pragma unroll
            for (int j = 0; j < 4; ++j) w[j] = spreadEntry(table, laneOffset, words[s], j);
            mmaK16(f16(), c, w, b[2 * s], b[2 * s + 1]);
        }
        low = fmaf(c[0], scale0 * factor, low);
        high = fmaf(c[2], scale1 * factor, high);
    }
};

// By the consumers: the sums of a run, added in the order of the warps. `output` counts from the run's first.
__device__ __forceinline__ float totalOf(const SingleFourBit &shared, int output) {
    float sum = shared.sums[output >> 4][0][output & 15];
#pragma unroll
    for (int w = 1; w < CONSUMERS; ++w) sum += shared.sums[output >> 4][w][output & 15];
    return sum;
}

__device__ __forceinline__ void consumersMeet() { asm volatile("bar.sync 1, %0;" ::"n"(CONSUMERS * 32) : "memory"); }

__device__ __forceinline__ void consume(const NibbleLinearArguments &a, SingleFourBit &shared, u32 table, u32 memory) {
    const int lane = threadIdx.x & 31, warp = __shfl_sync(~0u, threadIdx.x >> 5, 0), place = warp % STAGE_PAIRS;
    const SingleConsumer work = {table, (u32)lane * 4, shared.factors};
    const u32 full = sharedAddress(shared.full), empty = sharedAddress(shared.empty);
    const u32 codesAt = memory + place * 1024 + lane * 16,
              scalesAt = memory + STAGE_PAIRS * 1024 + place * 128 + (lane >> 2) * 16;
    TileRuns runs(a);
    int stage = warp / STAGE_PAIRS;
    u32 parity = 0;
    TileRun run;
    while (runs.next(run)) {
        const NibbleLinearLayer &part = a.parts[run.layer];
        const int output = run.first * 16 + threadIdx.x;  // that this thread stores
        const bool stores = threadIdx.x < run.count * 16 && output < part.outFeatures;
        float bias = 0.f, residual = 0.f;
        if (stores) {
            bias = part.bias ? part.bias[output] : 0.f;
            residual = residualAt(a.epilogue, 0, part.firstColumn + output);
        }
        float low = 0.f, high = 0.f;
        int pair = warp, tile = 0;
#pragma unroll 1
        for (int item = warp; item - warp < run.items; item += CONSUMERS) {
            const bool exists = item < run.items;
            uint4 codes[2], scales;
            waitBarrier(full + 8 * stage, parity);
            if (exists) {
                codes[0] = loadSharedQuad(codesAt + stage * STAGE_BYTES);
                codes[1] = loadSharedQuad(codesAt + stage * STAGE_BYTES + 512);
                scales = loadSharedQuad(scalesAt + stage * STAGE_BYTES);
            }
            __syncwarp();
            if (lane == 0) arrive(empty + 8 * stage);
            stage += GROUPS;
            if (stage >= STAGES) {
                stage -= STAGES;
                parity ^= 1;
            }
            if (!exists) break;
            work.add(low, high, codes[0], 2 * pair, __uint_as_float(scales.x), __uint_as_float(scales.z));
            work.add(low, high, codes[1], 2 * pair + 1, __uint_as_float(scales.y), __uint_as_float(scales.w));
            pair += CONSUMERS;
            if (pair >= runs.pairs) {
                if ((lane & 3) == 0) {
                    shared.sums[tile][warp][lane >> 2] = low;
                    shared.sums[tile][warp][(lane >> 2) + 8] = high;
                }
                low = high = 0.f;
                pair -= runs.pairs;
                ++tile;
            }
        }
        consumersMeet();
        if (stores) finishOutput(a.epilogue, part, 0, output, totalOf(shared, threadIdx.x) + bias, residual);
        if (runs.tile < runs.end) consumersMeet();
    }
}

template <typename T>
__device__ __forceinline__ void singleFourBitBody(const NibbleLinearArguments &a) {
    extern __shared__ __align__(1024) u8 singleFourBitShared[];
    u8 *const ring = singleFourBitShared + 65536;
    SingleFourBit &shared = *(SingleFourBit *)(ring + STAGES * STAGE_BYTES);
    const u32 table = sharedAddress(singleFourBitShared), memory = sharedAddress(ring);
    releaseDependents();
    const int warp = __shfl_sync(~0u, threadIdx.x >> 5, 0);
    const bool fills = warp == CONSUMERS && elected();
    StageFiller filler = {TileRuns(a), memory, sharedAddress(shared.full), sharedAddress(shared.empty), readOnce()};
    if (fills) filler.start();
    RowInput<T> row(a.input, a.prologue, a.inFeatures);
    row.prefetchWeights();
    if (threadIdx.x < 256) fillSpreadTable<256>(singleFourBitShared, a.codebook);
    waitForPredecessors();
    row.measure();
    stageSingle(row, 2 * filler.runs.pairs, (u32 *)singleFourBitShared + 32, 64, shared.factors);
    __syncthreads();
    if (warp == CONSUMERS) {
        if (fills) filler.refill();
    } else {
        consume(a, shared, table, memory);
    }
}
#define SINGLE_4BIT_BODY(T) singleFourBitBody<T>(a)
#else
#define SINGLE_4BIT_BODY(T)
#endif

#define INSTANCE_16(T)                                                          \
    extern "C" __global__ void __launch_bounds__(NIBBLE_SINGLE_4BIT_THREADS, 1) \
        gemv_4bit_single_##T(const __grid_constant__ NibbleLinearArguments a) { \
        SINGLE_4BIT_BODY(T);                                                    \
    }
#define INSTANCE_f32(T)
#define INSTANCE_f16(T) INSTANCE_16(T)
#define INSTANCE_bf16(T) INSTANCE_16(T)
#define INSTANCE(T) INSTANCE_##T(T)
NIBBLE_FOR_TYPES(INSTANCE)
