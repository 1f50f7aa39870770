// LayerNorm and RMSNorm over rows, with an optional residual added after.
#include "common.cuh"

// Any width and any types. Every thread's loop is over the same columns in each pass, so the output may be the input or the
// residual.
__device__ __forceinline__ void normalizeElements(const NibbleNormArguments &a) {
    const long long row = (long long)blockIdx.x * a.width;
    const float count = (float)a.width;
    float mean = 0.f;
    if (a.isLayerNorm) {
        float sum = 0.f;
        for (int e = threadIdx.x; e < a.width; e += blockDim.x) sum += loadAs(a.input, row + e, a.inputType);
        mean = blockSum(sum) / count;
    }
    float squares = 0.f;
    for (int e = threadIdx.x; e < a.width; e += blockDim.x) {
        const float x = loadAs(a.input, row + e, a.inputType) - mean;
        squares += x * x;
    }
    const float scale = 1.f / sqrtf(blockSum(squares) / count + a.epsilon);
    for (int e = threadIdx.x; e < a.width; e += blockDim.x) {
        float x = (loadAs(a.input, row + e, a.inputType) - mean) * scale;
        if (a.weight) x *= a.weight[e];
        if (a.bias) x += a.bias[e];
        if (a.residual) x += loadAs(a.residual, row + e, a.residualType);
        storeAs(a.output, row + e, a.outputType, x);
    }
}

// Widths that are multiples of 8: a thread holds up to Most runs of eight elements, so that memory is read once.
template <int Most>
__device__ __forceinline__ void normalizeRuns(const NibbleNormArguments &a) {
    const long long row = (long long)blockIdx.x * a.width;
    const int runs = a.width / 8;
    const float count = (float)a.width;
    float x[Most][8], sum = 0.f, squares = 0.f;
#pragma unroll
    for (int r = 0; r < Most; ++r) {
        const int i = r * blockDim.x + threadIdx.x;
        if (i >= runs) break;
        loadEight(a.input, row + 8 * i, a.inputType, x[r]);
#pragma unroll
        for (int j = 0; j < 8; ++j) sum += x[r][j];
    }
    const float mean = a.isLayerNorm ? blockSum(sum) / count : 0.f;
#pragma unroll
    for (int r = 0; r < Most; ++r) {
        if (r * blockDim.x + threadIdx.x >= runs) break;
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            x[r][j] -= mean;
            squares = fmaf(x[r][j], x[r][j], squares);
        }
    }
    const float scale = 1.f / sqrtf(blockSum(squares) / count + a.epsilon);
#pragma unroll
    for (int r = 0; r < Most; ++r) {
        const int i = r * blockDim.x + threadIdx.x;
        if (i >= runs) break;
        float factor[8], addend[8];
        if (a.weight) loadEight(a.weight, 8 * i, NIBBLE_F32, factor);
#pragma unroll
        for (int j = 0; j < 8; ++j) x[r][j] *= a.weight ? scale * factor[j] : scale;
        if (a.bias) {
            loadEight(a.bias, 8 * i, NIBBLE_F32, addend);
#pragma unroll
            for (int j = 0; j < 8; ++j) x[r][j] += addend[j];
        }
        if (a.residual) {
            loadEight(a.residual, row + 8 * i, a.residualType, addend);
#pragma unroll
            for (int j = 0; j < 8; ++j) x[r][j] += addend[j];
        }
        storeEight(a.output, row + 8 * i, a.outputType, x[r]);
    }
}

// grid rows; the block's size depends on the width alone, so that a row's sums are always taken in the same order.
extern "C" __global__ void __launch_bounds__(512) normalize(const __grid_constant__ NibbleNormArguments a) {
    beginKernel();
    const bool isAlignedToRuns = a.width % 8 == 0 && isAligned(a.input, 0, a.inputType) && isAligned(a.output, 0, a.outputType) &&
                                 (!a.residual || isAligned(a.residual, 0, a.residualType)) &&
                                 isAligned(a.weight, 0, NIBBLE_F32) && isAligned(a.bias, 0, NIBBLE_F32);
    if (isAlignedToRuns && a.width <= 2 * 8 * blockDim.x)
        normalizeRuns<2>(a);
    else if (isAlignedToRuns && a.width <= 4 * 8 * blockDim.x)
        normalizeRuns<4>(a);
    else
        normalizeElements(a);
}
