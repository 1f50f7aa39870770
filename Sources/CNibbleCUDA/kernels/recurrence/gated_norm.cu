// Norms with a gate over runs of a token's elements: a warp or a block for each run.
#include "state_rows.cuh"

__device__ __forceinline__ float runSum(float x, bool isWarp) { return isWarp ? warpSum(x) : blockSum(x); }

// Threads first, first + step, ... of a run. A thread's elements are the same in every pass, so the output may be the input.
__device__ __forceinline__ void normalizeRun(const NibbleGatedNormArguments &a, long long item, int first, int step,
                                             bool isWarp) {
    const long long token = item / a.runs, start = item * a.width;
    const int run = item % a.runs;
    const int gateStart = a.layout.offset + run / a.layout.group * a.layout.stride + run % a.layout.group * a.width;
    auto gateAt = [&](int e) {
        return activate(a.activation, a.gateScale * loadAs(a.gate, token, gateStart + e), a.activationParameter);
    };
    auto elementAt = [&](int e) {
        const float x = loadAs(a.input, start + e, a.inputType);
        return a.gateFirst ? x * gateAt(e) : x;
    };
    float mean = 0.f, factor = 1.f;
    if (a.norm == 2) {
        float sum = 0.f;
        for (int e = first; e < a.width; e += step) sum += elementAt(e);
        mean = runSum(sum, isWarp) / a.width;
    }
    if (a.norm) {
        float squares = 0.f;
        for (int e = first; e < a.width; e += step) {
            const float x = elementAt(e) - mean;
            squares = fmaf(x, x, squares);
        }
        factor = 1.f / sqrtf(runSum(squares, isWarp) / a.width + a.epsilon);
    }
    for (int e = first; e < a.width; e += step) {
        float y = (elementAt(e) - mean) * factor;
        if (a.weight) y *= a.weight[(long long)run * a.weightStride + e];
        if (a.bias) y += a.bias[(long long)run * a.weightStride + e];
        storeAs(a.output, start + e, a.outputType, a.gateFirst ? y : y * gateAt(e));
    }
}

// grid runs of all tokens, four to a block where they are narrow.
extern "C" __global__ void gated_norm(const __grid_constant__ NibbleGatedNormArguments a) {
    beginKernel();
    if (a.width <= NIBBLE_GATED_NORM_WARP_WIDTH) {
        const long long item = blockIdx.x * (blockDim.x / 32LL) + threadIdx.x / 32;
        if (item < a.count) normalizeRun(a, item, threadIdx.x % 32, 32, true);
    } else {
        normalizeRun(a, blockIdx.x, threadIdx.x, blockDim.x, false);
    }
}
