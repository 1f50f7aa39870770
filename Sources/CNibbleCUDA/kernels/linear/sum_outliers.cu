// The products of LLM.int8()'s outlier columns for many tokens, ahead of the integer product.
//
// A block computes 32 outputs, one per lane, for up to TW tokens per warp. It walks through K in chunks of OUTLIER_CHUNK columns.
// Of the weight's rows it copies only the 32-byte sectors in which a token of the block has an outlier, several chunks ahead.
// Each warp then adds the products of its tokens' outliers in that chunk, in the order of the columns.
#include "mma.cuh"
#include "outliers.cuh"

#define WARPS (NIBBLE_OUTLIER_THREADS / 32)
#define SECTOR 32            // columns, bytes
#define MARKED_SECTORS 8192  // sectors with a mark; sectors past them count as marked

__device__ __forceinline__ void copyAsync4(u32 destination, const void *source) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(destination), "l"(source) : "memory");
#else
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(destination), "r"(*(const u32 *)source) : "memory");
#endif
}

// A chunk of 32 rows of the weight. The padding puts the same column of different rows into different banks.
struct WeightChunk {
    u8 rows[32][NIBBLE_OUTLIER_CHUNK + 4];
};

// The outliers of a warp's tokens in one chunk, token after token: lane t knows those of token t.
struct ChunkOutliers {
    int end;    // of token t's outliers in this chunk, an index of its list
    int total;  // outliers of tokens 0 ... t
    int shift;  // from a place among all tokens' outliers to an index of token t's list

    __device__ __forceinline__ int count() const { return __shfl_sync(~0u, total, 31); }
};

// One outlier per lane.
struct Outlier {
    int token, column;
    float x;
};

template <typename T>
struct OutlierTile {
    const NibbleLinearArguments &a;
    const NibbleLinearLayer &part;
    const u32 *marks;
    float (*sums)[32];  // of this warp's tokens, by lane
    long long m0;       // this warp's first token
    int n0, lane, warp;
    float scale;  // of this lane's output

    __device__ __forceinline__ bool isMarked(int sector) const {
        return sector >= MARKED_SECTORS || (marks[sector >> 5] >> (sector & 31) & 1);
    }

    // The first chunk from `chunk` on with a marked sector, or `end`. Uniform over the block.
    __device__ __forceinline__ int nextChunk(int chunk, int end) const {
        constexpr int sectors = NIBBLE_OUTLIER_CHUNK / SECTOR;
        for (; chunk < end; ++chunk) {
            const int sector = chunk * sectors;
            if (sector >= MARKED_SECTORS || (marks[sector >> 5] >> (sector & 31) & ((1u << sectors) - 1))) break;
        }
        return chunk;
    }

    // Starts the copies of a chunk's marked sectors; each warp takes whole rows.
    __device__ __forceinline__ void copy(WeightChunk &to, int chunk) const {
        const int K = a.inFeatures, N = part.outFeatures;
        const u8 *weight = (const u8 *)part.weight;
        for (int row = warp; row < 32; row += WARPS) {
            const u8 *source = weight + (long long)min(n0 + row, N - 1) * K;
#pragma unroll
            for (int i = lane * 4; i < NIBBLE_OUTLIER_CHUNK; i += 128) {
                const int k = chunk * NIBBLE_OUTLIER_CHUNK + i;
                if (k >= K || !isMarked(k / SECTOR)) continue;
                if (K % 4 == 0) {
                    copyAsync4(sharedAddress(&to.rows[row][i]), source + k);
                } else {
                    for (int j = 0; j < 4 && k + j < K; ++j) to.rows[row][i + j] = source[k + j];
                }
            }
        }
    }

    // The end of lane t's outliers in `chunk`; `isListed` says whether there is such a token, with a list.
    __device__ __forceinline__ int loadEnd(int chunk, bool isListed) const {
        return isListed ? a.outlierStarts[(m0 + lane) * a.outlierStartsStride + chunk + 1] : 0;
    }

    // The outliers from those of the chunk before up to `end`.
    __device__ __forceinline__ ChunkOutliers outliers(const ChunkOutliers &before, int end) const {
        const int count = end - before.end;
        int total = count;
#pragma unroll
        for (int d = 1; d < 32; d <<= 1) {
            const int other = __shfl_up_sync(~0u, total, d);
            if (lane >= d) total += other;
        }
        return {end, total, before.end - (total - count)};
    }

    // Outliers first ..< first + 32 of a chunk.
    __device__ __forceinline__ Outlier load(const ChunkOutliers &outliers, int first) const {
        int token = 0;
#pragma unroll
        for (int step = 16; step > 0; step >>= 1)
            if (__shfl_sync(~0u, outliers.total, token + step - 1) <= first + lane) token += step;
        const int shift = __shfl_sync(~0u, outliers.shift, token & 31);
        if (first + lane >= outliers.count()) return {0, 0, 0.f};
        const long long at = (m0 + token) * a.outlierCapacity + first + lane + shift;
        return {token, a.outlierColumns[at], a.outlierValues[at]};
    }

    __device__ __forceinline__ float weightAt(const WeightChunk &chunk, int place) const {
        return toFloat(fromFloat<T>(__fmul_rn(__fmul_rn((float)(i8)chunk.rows[lane][place], scale), WEIGHT_SCALE)));
    }

    // Adds the products of `count` outliers, one per lane.
    __device__ __forceinline__ void add(const WeightChunk &chunk, int first, const Outlier &outlier, int count) const {
        int current = -1;
        float sum = 0.f;
#pragma unroll 4
        for (int i = 0; i < count; ++i) {
            const float w = weightAt(chunk, __shfl_sync(~0u, outlier.column, i) - first);
            const float product = __fmul_rn(__shfl_sync(~0u, outlier.x, i), w);
            const int token = __shfl_sync(~0u, outlier.token, i);
            if (token != current) {
                if (current >= 0) sums[current][lane] = sum;
                sum = sums[token][lane];
                current = token;
            }
            sum = __fadd_rn(sum, product);
        }
        if (current >= 0) sums[current][lane] = sum;
    }

    // The same for token t without a list: searches its activations.
    __device__ __forceinline__ void search(const WeightChunk &chunk, int first, int t) const {
        const T *row = (const T *)a.input + (m0 + t) * a.inFeatures;
        float sum = sums[t][lane];
#pragma unroll 1
        for (int c = 0; c < NIBBLE_OUTLIER_CHUNK && first + c < a.inFeatures; c += 32) {
            const int k = first + c + lane;
            const bool take = k < a.inFeatures && isOutlier<T>(a, m0 + t, k);
            const float x = take ? toFloat(row[k]) : 0.f;
            for (u32 left = __ballot_sync(~0u, take); left; left &= left - 1) {
                const int i = __ffs(left) - 1;
                sum = __fadd_rn(sum, __fmul_rn(__shfl_sync(~0u, x, i), weightAt(chunk, c + i)));
            }
        }
        sums[t][lane] = sum;
    }
};

// Marks the sectors of the outliers of token m, by a warp.
template <typename T>
__device__ __forceinline__ void markSectors(const NibbleLinearArguments &a, long long m, int count, u32 *marks) {
    const int lane = threadIdx.x & 31;
    const bool isListed = count <= a.outlierCapacity;
    for (int i = lane; i < (isListed ? count : a.inFeatures); i += 32) {
        const int k = isListed ? a.outlierColumns[m * a.outlierCapacity + i] : i, sector = k / SECTOR;
        if (sector < MARKED_SECTORS && (isListed || isOutlier<T>(a, m, k))) atomicOr(&marks[sector >> 5], 1u << (sector & 31));
    }
}

template <typename T, int TW, int Stages>
__device__ __forceinline__ void sumOutliersBody(const NibbleLinearArguments &a) {
    __shared__ WeightChunk chunks[Stages];
    __shared__ u32 marks[MARKED_SECTORS / 32];
    __shared__ float sums[WARPS][TW][32];
    beginKernel();
    if (isUnused(a)) return;
    int tile = blockIdx.x;
    const NibbleLinearLayer &part = a.parts[layerOfTile(a, tile, NIBBLE_OUTLIER_TILE_N)];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, n0 = tile * NIBBLE_OUTLIER_TILE_N, n = n0 + lane;
    const int perWarp = a.outlierTokensPerWarp;
    const long long m0 = ((long long)blockIdx.y * WARPS + warp) * perWarp;
    const OutlierTile<T> work = {a, part, marks, sums[warp], m0, n0, lane, warp, part.scales[min(n, part.outFeatures - 1)]};
    for (int i = threadIdx.x; i < MARKED_SECTORS / 32; i += NIBBLE_OUTLIER_THREADS) marks[i] = 0;
    const int count = lane < perWarp && m0 + lane < a.tokens ? a.outlierCounts[m0 + lane] : 0;
    const bool isListed = count > 0 && count <= a.outlierCapacity;
    const u32 searched = __ballot_sync(~0u, count > a.outlierCapacity);
    if (!__syncthreads_or(count > 0)) return;
#pragma unroll 1
    for (int t = 0; t < perWarp; ++t) {
        sums[warp][t][lane] = 0.f;
        markSectors<T>(a, m0 + t, __shfl_sync(~0u, count, t), marks);
    }
    __syncthreads();

    const int end = (a.inFeatures + NIBBLE_OUTLIER_CHUNK - 1) / NIBBLE_OUTLIER_CHUNK;
    int ahead = work.nextChunk(0, end);
    int waiting[Stages - 1];  // chunks whose copies have started
#pragma unroll
    for (int s = 0; s < Stages - 1; ++s) {
        waiting[s] = ahead;
        if (ahead < end) {
            work.copy(chunks[s], ahead);
            ahead = work.nextChunk(ahead + 1, end);
        }
        commitCopies();
    }
    // Loads run ahead as well: outliers by one chunk, the ends of their ranges by two.
    ChunkOutliers next = work.outliers({0, 0, 0}, work.loadEnd(waiting[0], isListed));
    Outlier nextOutlier = work.load(next, 0);
    int nextEnd = waiting[1] < end ? work.loadEnd(waiting[1], isListed) : next.end;
#pragma unroll 1
    for (int step = 0; waiting[0] < end; ++step) {
        waitCopies<Stages - 2>();
        __syncthreads();
        const int chunk = waiting[0], first = chunk * NIBBLE_OUTLIER_CHUNK;
#pragma unroll
        for (int s = 0; s < Stages - 2; ++s) waiting[s] = waiting[s + 1];
        waiting[Stages - 2] = ahead;
        if (ahead < end) {
            work.copy(chunks[(step + Stages - 1) % Stages], ahead);
            ahead = work.nextChunk(ahead + 1, end);
        }
        commitCopies();
        const ChunkOutliers here = next;
        const Outlier outlier = nextOutlier;
        next = work.outliers(here, nextEnd);
        nextOutlier = work.load(next, 0);
        if (waiting[1] < end) nextEnd = work.loadEnd(waiting[1], isListed);

        const WeightChunk &weights = chunks[step % Stages];
        const int all = here.count();
        work.add(weights, first, outlier, min(all, 32));
#pragma unroll 1
        for (int from = 32; from < all; from += 32) work.add(weights, first, work.load(here, from), min(all - from, 32));
#pragma unroll 1
        for (u32 left = searched; left; left &= left - 1) work.search(weights, first, __ffs(left) - 1);
    }
    if (n >= part.outFeatures) return;
#pragma unroll 1
    for (int t = 0; t < perWarp && m0 + t < a.tokens; ++t)
        if (a.outlierCounts[m0 + t] > 0)
            a.outlierSums[(m0 + t) * a.outlierSumsStride + columnOfCall(a, part) + n] = sums[warp][t][lane];
}

#ifndef NIBBLE_EXPERTS
#define SUM_OUTLIERS(NAME, T, TW, STAGES)                                   \
    extern "C" __global__ void __launch_bounds__(NIBBLE_OUTLIER_THREADS, 2) \
        NAME##_##T(const __grid_constant__ NibbleLinearArguments a) {       \
        sumOutliersBody<T, TW, STAGES>(a);                                  \
    }
#define INSTANCE(T)                                                          \
    SUM_OUTLIERS(sum_outliers_few, T, NIBBLE_OUTLIER_FEW_TOKENS_PER_WARP, 5) \
    SUM_OUTLIERS(sum_outliers, T, NIBBLE_OUTLIER_TOKENS_PER_WARP, 3)
NIBBLE_FOR_TYPES(INSTANCE)
#endif
