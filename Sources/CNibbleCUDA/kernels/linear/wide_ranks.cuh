// B times the sums of adapters, by the products on warpgroups: ranks are further columns of the product, after the weight's.
#pragma once
#include "staging4.cuh"
#include "warpgroup.cuh"

#if NIBBLE_HAS_WARPGROUPS && defined(NIBBLE_ADAPTERS)
// The ranks of a block of 128 outputs, NIBBLE_WIDE_RANKS at a time.
template <int Tokens>
struct WideRanks {
    const NibbleLowRank &lowRank;
    int firstOutput, outputs;  // of the block; of the layer
    int tokens;                // of the call
    u32 w[4][4];               // the first operands of the pass
    float inverse;             // back to B's true size

    __device__ __forceinline__ WideRanks(const NibbleLinearArguments &a, const NibbleLinearLayer &part, int tile)
        : lowRank(part.lowRank), firstOutput(tile * NIBBLE_WIDE_4BIT_ROWS), outputs(part.outFeatures), tokens(a.tokens) {}

    // The stage's layout is that of staged activations. Ranks take the first half of a token tile's 16 matrices; behind them lie
    // the factors of its tokens.
    static __device__ __forceinline__ u32 factorAddress(u32 stage, int token) {
        return stage + (token >> 3) * 2048 + NIBBLE_WIDE_RANKS / 8 * 128 + (token & 7) * 4;
    }

    // Asks for the rows of B, which come from far away.
    __device__ __forceinline__ void prefetch() const {
        const long long bytes = lowRank.ranks * (lowRank.type == NIBBLE_F32 ? 4LL : 2LL);
        const long long row = min(firstOutput + (int)threadIdx.x % NIBBLE_WIDE_4BIT_ROWS, outputs - 1);
        for (int i = (int)threadIdx.x / NIBBLE_WIDE_4BIT_ROWS * 128; i < bytes; i += 256)
            asm volatile("prefetch.global.L2 [%0];" ::"l"((const char *)lowRank.b + row * bytes + i));
    }

    // Products sum over ranks in any order, as long as both operands agree: a lane takes eight neighbouring ranks of its rows,
    // which are two products' worth.
    __device__ __forceinline__ void loadB(int first) {
        const int lane = threadIdx.x & 31, t = lane & 3, row = firstOutput + (threadIdx.x >> 5) * 16 + (lane >> 2);
        const long long at[2] = {(long long)min(row, outputs - 1) * lowRank.ranks + first + 8 * t,
                                 (long long)min(row + 8, outputs - 1) * lowRank.ranks + first + 8 * t};
        inverse = 1.f;
        if (lowRank.type != NIBBLE_F16) return convertB(at, first + 8 * t);
        uint4 b[2][2];  // [units of 32 ranks][rows]
#pragma unroll
        for (int u = 0; u < 2; ++u)
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                b[u][r] = make_uint4(0, 0, 0, 0);
                if (first + 32 * u + 8 * t < lowRank.ranks) b[u][r] = loadStreaming((const f16 *)lowRank.b + at[r] + 32 * u);
            }
#pragma unroll
        for (int u = 0; u < 2; ++u)
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                w[2 * u][r] = b[u][r].x;
                w[2 * u][2 + r] = b[u][r].y;
                w[2 * u + 1][r] = b[u][r].z;
                w[2 * u + 1][2 + r] = b[u][r].w;
            }
    }

    // The same of other types, with a factor for each warp.
    __device__ __forceinline__ void convertB(const long long (&at)[2], int rank) {
        float b[2][2][8];
        u32 largest = 0;
#pragma unroll
        for (int u = 0; u < 2; ++u)
#pragma unroll
            for (int r = 0; r < 2; ++r) {
#pragma unroll
                for (int j = 0; j < 8; ++j) b[u][r][j] = 0.f;
                if (rank + 32 * u < lowRank.ranks) loadEight(lowRank.b, at[r] + 32 * u, lowRank.type, b[u][r]);
#pragma unroll
                for (int j = 0; j < 8; ++j) largest = max(largest, __float_as_uint(b[u][r][j]) & 0x7fffffffu);
            }
        const float factor = factorToHalf(warpMaxBits(largest), inverse);
#pragma unroll
        for (int s = 0; s < 4; ++s)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float *pair = &b[s >> 1][i & 1][4 * (s & 1) + (i & 2)];
                w[s][i] = packPair<f16>(pair[0] * factor, pair[1] * factor);
            }
    }

    // Stores the tokens' sums as float16, each token with a factor of its own.
    __device__ __forceinline__ void storeSums(int first, const float *factors, u32 stage) const {
#pragma unroll 1
        for (int i = threadIdx.x; i < Tokens * 8; i += NIBBLE_WIDE_4BIT_THREADS) {
            const int token = i >> 3, unit = i & 7, m = (int)blockIdx.y * Tokens + token, rank = first + 8 * unit;
            float u[8] = {}, staged = 1.f;
            if (m < tokens) {
                staged = factors[m];
                if (rank < lowRank.ranks) loadEight(lowRank.sums, m * lowRank.stride + rank, NIBBLE_F32, u);
            }
            u32 largest = 0;
#pragma unroll
            for (int j = 0; j < 8; ++j) largest = max(largest, __float_as_uint(u[j]) & 0x7fffffffu);
#pragma unroll
            for (int d = 1; d < 8; d <<= 1) largest = max(largest, __shfl_xor_sync(~0u, largest, d));
            float back;
            const float factor = factorToHalf(largest, back);
            // Rank 32 u + 8 t + 4 h + 2 p + q is column 2 t + q of matrix 4 u + 2 h + p.
            const u32 place = stage + (token >> 3) * 2048 + (unit >> 2) * 512 + (token & 7) * 16 + (unit & 3) * 4;
#pragma unroll
            for (int j = 0; j < 4; ++j)
                asm volatile("st.shared.u32 [%0], %1;" ::"r"(place + j * 128),
                             "r"(packPair<f16>(u[2 * j] * factor, u[2 * j + 1] * factor))
                             : "memory");
            // The staged token's factor is a power of two, by which all sums are multiplied in the end.
            if (unit == 0)
                asm volatile("st.shared.f32 [%0], %1;" ::"r"(factorAddress(stage, token)),
                             "f"(back * __uint_as_float((254u << 23) - __float_as_uint(staged)))
                             : "memory");
        }
    }

    static __device__ __forceinline__ float2 factorPair(u32 stage, int token) {
        float2 v;
        asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(factorAddress(stage, token)) : "memory");
        return v;
    }

    // By all threads, after `loadB(0)`, when the sums are there.
    // `factors`: of the staged tokens. `stage`: the shared address of a stage of activations that is free.
    __device__ __forceinline__ void addTo(float (&sums)[Tokens / 2], const float *factors, u32 stage) {
        const u64 matrices = describeMatrices(stage, 128, 2048);
#pragma unroll 1
        for (int first = 0; first < lowRank.ranks; first += NIBBLE_WIDE_RANKS) {
            if (first > 0) {
                loadB(first);
                __syncthreads();
            }
            storeSums(first, factors, stage);
            fenceForProducts();
            __syncthreads();
            float c[Tokens / 2];
            fenceSums(c);
            beginProducts();
#pragma unroll
            for (int s = 0; s < 4; ++s) multiplyWarpgroup(c, w[s], matrices + s * (256 >> 4), s > 0);
            commitProducts();
            waitProducts();
            fenceSums(c);
#pragma unroll
            for (int i = 0; i < Tokens / 2; i += 4) {
                const float2 factor = factorPair(stage, 2 * (threadIdx.x & 3) + 2 * i);
                sums[i] = fmaf(c[i], inverse * factor.x, sums[i]);
                sums[i + 1] = fmaf(c[i + 1], inverse * factor.y, sums[i + 1]);
                sums[i + 2] = fmaf(c[i + 2], inverse * factor.x, sums[i + 2]);
                sums[i + 3] = fmaf(c[i + 3], inverse * factor.y, sums[i + 3]);
            }
        }
    }
};
#endif
