// B times the sums of one token, by the kernels of one token. B is fetched ahead of the layer's own product. All of it is empty
// without NIBBLE_ADAPTERS.
#pragma once
#include "common.cuh"

// Asks for the ranks of output n, which come from far away.
__device__ __forceinline__ void prefetchRanks(const NibbleLowRank &l, long long n) {
#ifdef NIBBLE_ADAPTERS
    const int bytes = l.ranks * (l.type == NIBBLE_F32 ? 4 : 2);
    for (int i = 0; i < bytes; i += 128) asm volatile("prefetch.global.L2 [%0];" ::"l"((const char *)l.b + n * bytes + i));
#endif
}

// Pairs of neighbouring ranks of one output that a lane multiplies: first, first + step ...
template <int Pairs>
struct RankPairs {
#ifdef NIBBLE_ADAPTERS
    uint2 b[Pairs];  // as they lie in memory; 16-bit ones fill half of it
#endif

    // Of output n.
    __device__ __forceinline__ void fetch(const NibbleLowRank &l, long long n, int first, int step) {
#ifdef NIBBLE_ADAPTERS
#pragma unroll
        for (int i = 0; i < Pairs; ++i) {
            const int rank = 2 * (first + i * step);
            b[i] = make_uint2(0, 0);
            if (rank >= l.ranks) continue;
            const long long at = n * l.ranks + rank;
            if (l.type == NIBBLE_F32)
                b[i] = *(const uint2 *)((const float *)l.b + at);
            else
                b[i].x = *(const u32 *)((const u16 *)l.b + at);
        }
#endif
    }

    // With the layer's sums, which are there.
    __device__ __forceinline__ float product(const NibbleLowRank &l, int first, int step) const {
        float sum = 0.f;
#ifdef NIBBLE_ADAPTERS
#pragma unroll
        for (int i = 0; i < Pairs; ++i) {
            const int rank = 2 * (first + i * step);
            if (rank >= l.ranks) continue;
            const float2 u = *(const float2 *)(l.sums + rank);
            const u32 word = b[i].x;
            float low = __uint_as_float(word), high = __uint_as_float(b[i].y);
            if (l.type == NIBBLE_F16) {
                low = toFloat(f16{(u16)word});
                high = toFloat(f16{(u16)(word >> 16)});
            } else if (l.type == NIBBLE_BF16) {
                low = __uint_as_float(word << 16);
                high = __uint_as_float(word & 0xffff0000u);
            }
            sum = fmaf(high, u.y, fmaf(low, u.x, sum));
        }
#endif
        return sum;
    }
};
