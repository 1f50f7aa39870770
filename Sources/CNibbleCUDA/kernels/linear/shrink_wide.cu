// A . x of adapters for the products on warpgroups (linear_4bit_wide.cu), on tensor cores: the staged tokens are the second
// operand, 16 ranks of a layer the first. Needs compute capability 9.0.
//
// The product runs beside this kernel and takes nearly all of each multiprocessor: its four schedulers have 1,024 registers left
// each, so that a block here has four warps with 32 registers. The blocks of a cluster divide K and add their sums in the order
// of their ranks.
#include "input_turns.cuh"
#include "staging4.cuh"
#include "warpgroup.cuh"

#if NIBBLE_HAS_WARPGROUPS
#define WARPS (NIBBLE_SHRINK_WIDE_THREADS / 32)

// Two units of ranks of one layer, which may belong to two adapters.
struct RankGroup {
    const NibbleShrinkLayer &layer;
    int first;     // rank, within the layer
    bool hasHigh;  // whether there is a second unit

    static __device__ __forceinline__ int find(const NibbleShrinkArguments &a, int &group) {
        int p = 0;
        for (; p < a.layerCount - 1; ++p) {
            const int groups = (a.layers[p].ranks + 15) / 16;
            if (group < groups) break;
            group -= groups;
        }
        return p;
    }
    __device__ __forceinline__ RankGroup(const NibbleShrinkArguments &a, int group)
        : layer(a.layers[find(a, group)]), first(group * 16), hasHigh(first + NIBBLE_RANK_UNIT < layer.ranks) {}
};

// Some of the tokens that use one of a group's adapters, and what they take of them.
struct GroupUsers {
    int tokens[NIBBLE_SHRINK_WIDE_USERS];
    float weights[2][NIBBLE_SHRINK_WIDE_USERS];  // of the first and of the second unit
    int warpCounts[WARPS];
    int count;  // of all users, less those before these

    // By all threads, each for its token. Returns whether the token exists and uses none.
    __device__ __forceinline__ bool find(const NibbleShrinkArguments &a, const RankGroup &group, int first) {
        const int m = threadIdx.x, lane = m & 31, low = group.layer.adapters[group.first];
        const int high = group.hasHigh ? group.layer.adapters[group.first + NIBBLE_RANK_UNIT] : low;
        const float lowWeight = m < a.tokens ? adapterWeight(a.weights, a.weightStride, a.slots, m, low) : 0.f;
        const float highWeight = m < a.tokens ? adapterWeight(a.weights, a.weightStride, a.slots, m, high) : 0.f;
        const bool isUser = lowWeight != 0.f || highWeight != 0.f;
        const u32 used = __ballot_sync(~0u, isUser);
        if (lane == 0) warpCounts[m >> 5] = __popc(used);
        __syncthreads();
        int place = __popc(used & ((1u << lane) - 1)) - first, total = -first;
#pragma unroll
        for (int w = 0; w < WARPS; ++w) {
            if (w < m >> 5) place += warpCounts[w];
            total += warpCounts[w];
        }
        if (isUser && place >= 0 && place < NIBBLE_SHRINK_WIDE_USERS) {
            tokens[place] = m;
            weights[0][place] = lowWeight;
            weights[1][place] = highWeight;
        }
        if (m == 0) count = total;
        __syncthreads();
        return m < a.tokens && !isUser;
    }
};

// Eight elements of A as float16: rounded, or what rounding leaves, times 4096.
template <bool Rest>
__device__ __forceinline__ uint4 loadRanks(const void *p, long long i, int type) {
    if (type == NIBBLE_F16) return loadStreaming((const f16 *)p + i);
    float x[8];
    if (type == NIBBLE_F32) {
        const uint4 low = loadStreaming((const float *)p + i), high = loadStreaming((const float *)p + i + 4);
        unpack(low, (float (&)[4])x[0], f32());
        unpack(high, (float (&)[4])x[4], f32());
    } else {
        unpack(loadStreaming((const bf16 *)p + i), x, bf16());
    }
    if (Rest)
#pragma unroll
        for (int j = 0; j < 8; ++j) x[j] = (x[j] - toFloat(fromFloat<f16>(x[j]))) * 4096.f;
    return packEight<f16>(x);
}

// Adds the products of a warp's share of K. Products sum over columns in any order, as long as both operands agree: a lane
// takes eight neighbouring columns of its rows and of its token, which are two products' worth.
template <bool Rest>
__device__ __forceinline__ void addGroup(const RankGroup &group, const uint4 *row, int pairStride, int K, int step, int end,
                                         float (&sums)[4]) {
    const int lane = threadIdx.x & 31;
    const long long low = (long long)(group.first + (lane >> 2)) * K + 8 * (lane & 3);
    const int toHigh = group.hasHigh ? NIBBLE_RANK_UNIT * K : 0;
#pragma unroll 1
    for (; step < end; ++step) {
        const uint4 r0 = loadRanks<Rest>(group.layer.a, low + 32 * step, group.layer.type);
        const uint4 r1 = loadRanks<Rest>(group.layer.a, low + 32 * step + toHigh, group.layer.type);
        const uint4 x = row[(step >> 2) * pairStride + (step & 3) * 32];
        const u32 first[4] = {r0.x, r1.x, r0.y, r1.y}, second[4] = {r0.z, r1.z, r0.w, r1.w};
        mmaK16(f16(), sums, first, x.x, x.y);
        mmaK16(f16(), sums, second, x.z, x.w);
    }
}

__device__ __forceinline__ void shrinkWideBody(const NibbleShrinkArguments &a) {
    __shared__ float partial[WARPS][NIBBLE_SHRINK_WIDE_USERS][16];
    __shared__ GroupUsers users;
    beginShrink(a.turns, a.tokens);
    const RankGroup group(a, blockIdx.x / NIBBLE_SHRINK_WIDE_CLUSTER);
    const NibbleShrinkLayer &layer = group.layer;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, cluster = clusterRank();
    const int ranks = group.hasHigh ? 16 : 8, K = a.inFeatures;
    // No kernel writes the adapters of rows, nor A.
    const bool isIdle = users.find(a, group, blockIdx.y * NIBBLE_SHRINK_WIDE_USERS);
    const int count = min(users.count, NIBBLE_SHRINK_WIDE_USERS);
    if (count <= 0 && blockIdx.y > 0) return;
    if (count > 0) {
        const long long rowBytes = (long long)K * (layer.type == NIBBLE_F32 ? 4 : 2);
        for (int r = warp; r < ranks; r += WARPS)
            for (long long i = (cluster + lane * NIBBLE_SHRINK_WIDE_CLUSTER) * 128; i < rowBytes;
                 i += 32 * NIBBLE_SHRINK_WIDE_CLUSTER * 128)
                asm volatile("prefetch.global.L2 [%0];" ::"l"((const char *)layer.a + (group.first + r) * rowBytes + i));
    }
    waitForPredecessors();
    // A token that does not use the adapters must not see their overflows.
    if (isIdle && blockIdx.y == 0)
        for (int r = cluster; r < ranks; r += NIBBLE_SHRINK_WIDE_CLUSTER)
            layer.sums[(long long)threadIdx.x * a.sumsStride + group.first + r] = 0.f;
    if (count <= 0) return;

    const WideStaged staged((void *)a.input, a.tokens, (K + 127) / 128);
    const int token = users.tokens[min(lane >> 2, count - 1)], share = cluster * WARPS + warp;
    const uint4 *row = staged.rows + (token >> 3) * 128 + (token & 7) + 8 * (lane & 3);
    const int steps = K / 32, first = steps * share / (NIBBLE_SHRINK_WIDE_CLUSTER * WARPS);
    const int end = steps * (share + 1) / (NIBBLE_SHRINK_WIDE_CLUSTER * WARPS);
    float sums[4] = {0.f, 0.f, 0.f, 0.f};
    if (layer.type != NIBBLE_F16) {
        addGroup<true>(group, row, staged.tokenTiles * 128, K, first, end, sums);
#pragma unroll
        for (int j = 0; j < 4; ++j) sums[j] *= 1.f / 4096.f;
    }
    addGroup<false>(group, row, staged.tokenTiles * 128, K, first, end, sums);
#pragma unroll
    for (int j = 0; j < 4; ++j) partial[warp][2 * (lane & 3) + (j & 1)][(lane >> 2) + 4 * (j & 2)] = sums[j];
    syncCluster();
    // The cluster's blocks take 16 of the 128 sums each: a thread adds those of one warp of all blocks, then its neighbours'.
    const int index = cluster * 16 + (threadIdx.x >> 3), part = threadIdx.x & 7, user = index >> 4, r = index & 15;
    float sum = 0.f;
#pragma unroll
    for (int w = 0; w < WARPS; ++w) sum += loadFromCluster(sharedAddress(&partial[w][user][r]), part);
#pragma unroll
    for (int d = 1; d < 8; d <<= 1) sum += __shfl_xor_sync(~0u, sum, d);
    meetCluster();
    if (part > 0 || user >= count || r >= ranks) return;
    const float weight = users.weights[r / NIBBLE_RANK_UNIT][user];
    const long long m = users.tokens[user];
    const float scaled = weight * layer.scales[group.first + r] * staged.factors[m] * sum;
    layer.sums[m * a.sumsStride + group.first + r] = weight == 0.f ? 0.f : scaled;
}
#endif

#if !defined(NIBBLE_ONLY_F16) && !defined(NIBBLE_ONLY_BF16)
extern "C" __global__ void __launch_bounds__(NIBBLE_SHRINK_WIDE_THREADS, 16)
    shrink_wide(const __grid_constant__ NibbleShrinkArguments a) {
#if NIBBLE_HAS_WARPGROUPS
    shrinkWideBody(a);
#endif
}
#endif
