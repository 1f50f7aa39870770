// Products of a mixture's experts. The kernels are those of single layers, which are included with NIBBLE_EXPERTS defined and
// then have no entries of their own: a block serves the slot blockIdx.z, with the arguments of that slot.
#pragma once
#include "common.cuh"

// An expert with neighbouring positions. Staged rows of a slot begin at a multiple of 8.
struct ExpertSlot {
    int expert, first, count, padded;
};

__device__ __forceinline__ ExpertSlot expertSlot(const NibbleExpertsArguments &e, int z) {
    if (e.ids) return {e.ids[z], z, 1, 8 * z};
    const int4 slot = ((const int4 *)e.slots)[z];
    return {slot.x, slot.y, slot.z, slot.w};
}

// The slot of a position, or -1; and the row of the input that belongs to it.
__device__ __forceinline__ int slotOfPosition(const NibbleExpertsArguments &e, int position) {
    return e.ids ? position : e.slotOfPosition[position];
}

__device__ __forceinline__ long long inputRow(const NibbleExpertsArguments &e, int position) {
    return e.isByPosition ? position : e.ids ? 0 : e.rows[position];
}

__device__ __forceinline__ void *stagedRows(const NibbleExpertsArguments &e, const ExpertSlot &slot) {
    return (u8 *)e.linear.staged + slot.padded * e.stagedRowBytes;
}

// The addresses of a slot's rows.
__device__ __forceinline__ void selectRows(NibbleLinearArguments &a, const NibbleExpertsArguments &e, const ExpertSlot &slot) {
    const long long first = slot.first, input = e.isByPosition ? first : 0;
    a.tokens = slot.count;
    a.input = (const u8 *)a.input + input * e.inputRowBytes;
    a.staged = stagedRows(e, slot);
    a.epilogue.output = (u8 *)a.epilogue.output + first * a.epilogue.outputStride * (a.epilogue.outputType == NIBBLE_F32 ? 4 : 2);
    if (!a.quantized) return;
    a.quantized += input * a.quantizedStride;
    a.rowScales += input;
    a.outlierCounts += input;
    a.outlierColumns += input * a.outlierCapacity;
    a.outlierValues += input * a.outlierCapacity;
    a.outlierStarts += input * a.outlierStartsStride;
    if (a.outlierSums) a.outlierSums += first * a.outlierSumsStride;
}

// Loads the arguments of this block's slot into shared memory, by all threads; false where no position is left for it.
__device__ __forceinline__ bool loadExpert(NibbleLinearArguments &a, const NibbleExpertsArguments &e) {
    releaseDependents();
    waitForPredecessors();
    const ExpertSlot slot = expertSlot(e, blockIdx.z);
    if (slot.count == 0) return false;
    const u32 *source = (const u32 *)&e.linear;
    for (int i = threadIdx.x; i < (int)sizeof(NibbleLinearArguments) / 4; i += blockDim.x) ((u32 *)&a)[i] = source[i];
    __syncthreads();
    const u32 *parts = (const u32 *)(e.layers + (long long)slot.expert * e.linear.layerCount);
    const int words = e.linear.layerCount * (int)sizeof(NibbleLinearLayer) / 4;
    if (threadIdx.x < words) ((u32 *)a.parts)[threadIdx.x] = parts[threadIdx.x];
    if (threadIdx.x == blockDim.x - 1) selectRows(a, e, slot);
    __syncthreads();
    return true;
}

// The same in each thread's own memory, for kernels that have no shared memory left.
__device__ __forceinline__ bool loadOwnExpert(NibbleLinearArguments &a, const NibbleExpertsArguments &e) {
    releaseDependents();
    waitForPredecessors();
    const ExpertSlot slot = expertSlot(e, blockIdx.z);
    if (slot.count == 0) return false;
    a = e.linear;
    for (int p = 0; p < a.layerCount; ++p) a.parts[p] = e.layers[(long long)slot.expert * a.layerCount + p];
    selectRows(a, e, slot);
    return true;
}
