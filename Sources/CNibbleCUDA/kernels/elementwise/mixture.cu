// Sorts pairs of token and expert by expert, and adds up what the experts give.
#include "common.cuh"

#define GROUP_THREADS 1024

// Exclusive prefix sums over the block, of three numbers at a time; `totals` receives the sums.
__device__ __forceinline__ void scanBlock(int (&x)[3], int (&totals)[3]) {
    __shared__ int warpTotals[3][32];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int before[3];
#pragma unroll
    for (int i = 0; i < 3; ++i) {
        int sum = x[i];
#pragma unroll
        for (int d = 1; d < 32; d <<= 1) {
            const int other = __shfl_up_sync(~0u, sum, d);
            if (lane >= d) sum += other;
        }
        if (lane == 31) warpTotals[i][warp] = sum;
        before[i] = sum - x[i];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 3; ++i) {
        const int mine = lane < (int)blockDim.x / 32 ? warpTotals[i][lane] : 0;
        x[i] = before[i] + warpSum(lane < warp ? mine : 0);
        totals[i] = warpSum(mine);
    }
    __syncthreads();
}

// One block of GROUP_THREADS threads. Positions follow the order of pairs within an expert.
extern "C" __global__ void __launch_bounds__(GROUP_THREADS) group_experts(const __grid_constant__ NibbleGroupArguments a) {
    __shared__ int counts[NIBBLE_MOST_EXPERTS], starts[NIBBLE_MOST_EXPERTS], firstSlots[NIBBLE_MOST_EXPERTS];
    const int thread = threadIdx.x, lane = thread & 31;
    counts[thread] = 0;
    beginKernel();
    __syncthreads();
    for (int i = thread; i < a.pairs; i += GROUP_THREADS) {
        const int expert = a.ids[i];
        if (expert >= 0 && expert < a.experts)
            atomicAdd(&counts[expert], 1);
        else
            a.positions[i] = -1;
    }
    __syncthreads();
    const int count = counts[thread], slots = (count + a.tile - 1) / a.tile;
    int sums[3] = {count, slots, (count + 7) / 8 * 8}, totals[3];
    scanBlock(sums, totals);
    starts[thread] = sums[0];
    firstSlots[thread] = sums[1];
    for (int i = 0; i < slots; ++i)
        ((int4 *)a.slots)[sums[1] + i] =
            make_int4(thread, sums[0] + i * a.tile, min(a.tile, count - i * a.tile), sums[2] + i * a.tile);
    for (int z = totals[1] + thread; z < a.slotCount; z += GROUP_THREADS) ((int4 *)a.slots)[z] = make_int4(0, 0, 0, 0);
    for (int i = totals[0] + thread; i < a.pairs; i += GROUP_THREADS) a.rows[i] = a.slotOfPosition[i] = -1;
    __syncthreads();

    for (int expert = thread >> 5; expert < a.experts; expert += GROUP_THREADS / 32) {
        if (counts[expert] == 0) continue;
        int done = 0;
        for (int i0 = 0; i0 < a.pairs; i0 += 32) {
            const int i = i0 + lane;
            const bool isMine = i < a.pairs && a.ids[i] == expert;
            const u32 mine = __ballot_sync(~0u, isMine);
            if (isMine) {
                const int rank = done + __popc(mine & ((1u << lane) - 1)), position = starts[expert] + rank;
                a.rows[position] = i / a.topK;
                a.slotOfPosition[position] = firstSlots[expert] + rank / a.tile;
                a.positions[i] = position;
            }
            done += __popc(mine);
        }
    }
}

// Grid (T, E / 256 rounded up), block 256.
extern "C" __global__ void combine_experts(const __grid_constant__ NibbleCombineArguments a) {
    beginKernel();
    const int column = blockIdx.y * 256 + threadIdx.x;
    if (column >= a.width) return;
    const long long t = blockIdx.x, at = t * a.width + column;
    float sum = 0.f;
    for (int j = 0; j < a.topK; ++j) {
        const long long pair = t * a.topK + j, position = a.positions ? a.positions[pair] : pair;
        if (position >= 0) sum = fmaf(a.weights[pair], a.products[position * a.width + column], sum);
    }
    if (a.residual) sum += loadAs(a.residual, at, a.residualType);
    storeAs(a.output, at, a.outputType, sum);
}
