// Outlier columns of LLM.int8(): what is one, and their products with the dequantized int8 weight. However the work is divided,
// the products of an output are added one after the other, columns ascending.
#pragma once
#include "common.cuh"

#define WEIGHT_SCALE __uint_as_float(0x3c010204u)  // 1 / 127

// The value whose magnitude decides: rounded to float16 where the reference does so.
template <typename T>
__device__ __forceinline__ float measured(T x, int roundsToHalf) {
    return roundsToHalf ? toFloat(fromFloat<f16>(toFloat(x))) : toFloat(x);
}

__device__ __forceinline__ float measuredThreshold(float threshold, int roundsToHalf) {
    return roundsToHalf ? toFloat(fromFloat<f16>(threshold)) : threshold;
}

// A weight as outliers see it: int8 dequantized, then rounded to T.
template <typename T>
__device__ __forceinline__ float outlierWeight(const NibbleLinearPart &part, long long n, i8 value) {
    return toFloat(fromFloat<T>(__fmul_rn(__fmul_rn((float)value, part.scales[n]), WEIGHT_SCALE)));
}

template <typename T>
__device__ __forceinline__ float outlierWeight(const NibbleLinearArguments &a, const NibbleLinearPart &part, long long n, int k) {
    return outlierWeight<T>(part, n, ((const i8 *)part.weight)[n * a.inFeatures + k]);
}

template <typename T>
__device__ __forceinline__ float outlierProduct(const NibbleLinearArguments &a, const NibbleLinearPart &part, long long m,
                                                long long n, int k) {
    return __fmul_rn(toFloat(((const T *)a.input)[m * a.inFeatures + k]), outlierWeight<T>(a, part, n, k));
}

template <typename T>
__device__ __forceinline__ bool isOutlier(const NibbleLinearArguments &a, long long m, int k) {
    if (a.columnFlags) return a.columnFlags[k];
    return fabsf(measured(((const T *)a.input)[m * a.inFeatures + k], a.roundsToHalf)) >=
           measuredThreshold(a.outlierThreshold, a.roundsToHalf);
}

// The sum over the outlier columns of token m, ascending, by one thread; or by a warp, in the same order.
template <typename T>
__device__ __forceinline__ float outlierSum(const NibbleLinearArguments &a, const NibbleLinearPart &part, long long m,
                                            long long n) {
    const int count = a.outlierThreshold > 0.f ? a.outlierCounts[m] : 0;
    float sum = 0.f;
    if (count <= a.outlierCapacity) {
        const int *columns = a.outlierColumns + m * a.outlierCapacity;
        for (int i0 = 0; i0 < count; i0 += 4) {  // four at a time, so that their loads overlap
            float products[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) products[i] = i0 + i < count ? outlierProduct<T>(a, part, m, n, columns[i0 + i]) : 0.f;
#pragma unroll
            for (int i = 0; i < 4; ++i) sum = i0 + i < count ? __fadd_rn(sum, products[i]) : sum;
        }
    } else {
        for (int k = 0; k < a.inFeatures; ++k)
            if (isOutlier<T>(a, m, k)) sum = __fadd_rn(sum, outlierProduct<T>(a, part, m, n, k));
    }
    return sum;
}

template <typename T>
__device__ __forceinline__ float outlierSumOfWarp(const NibbleLinearArguments &a, const NibbleLinearPart &part, long long m,
                                                  long long n) {
    const int count = a.outlierThreshold > 0.f ? a.outlierCounts[m] : 0, lane = threadIdx.x & 31;
    const bool isListed = count <= a.outlierCapacity;
    float sum = 0.f;
    for (int i0 = 0; i0 < (isListed ? count : count > 0 ? a.inFeatures : 0); i0 += 32) {
        const int i = i0 + lane;
        bool take;
        int k = i;
        if (isListed) {
            take = i < count;
            if (take) k = a.outlierColumns[m * a.outlierCapacity + i];
        } else {
            take = i < a.inFeatures && isOutlier<T>(a, m, i);
        }
        const float product = take ? outlierProduct<T>(a, part, m, n, k) : 0.f;
        for (u32 left = __ballot_sync(~0u, take); left; left &= left - 1)
            sum = __fadd_rn(sum, __shfl_sync(~0u, product, __ffs(left) - 1));
    }
    return sum;
}

// The outlier sums of a tile of 64 tokens x 64 outputs by 128 threads: a column that is an outlier for any of the tokens is read
// once. Thread i adds to the outputs i % 64 of the tokens i / 64 + 0, 2, 4 ...
#define OUTLIER_WINDOW 16384  // columns looked at together
#define OUTLIER_LIST 960
struct OutlierShared {
    u32 marks[OUTLIER_WINDOW / 32];
    int columns[OUTLIER_LIST];
    int warpCounts[4];
    int padding[60];
    float inputs[16][2][32];  // [column][token % 2][token / 2]
    float weights[16][64];
};

// Marks the window's columns that are outliers for any of the tokens.
template <typename T>
__device__ __forceinline__ void markOutliers(const NibbleLinearArguments &a, OutlierShared &shared, int m0, int window) {
    for (int i = threadIdx.x; i < OUTLIER_WINDOW / 32; i += 128) shared.marks[i] = 0;
    __syncthreads();
    const int m = m0 + (threadIdx.x & 63), half = threadIdx.x >> 6;
    if (m < a.tokens) {
        const int count = a.outlierCounts[m];
        if (count <= a.outlierCapacity) {
            for (int i = half; i < count; i += 2) {
                const int k = a.outlierColumns[(long long)m * a.outlierCapacity + i] - window;
                if (k >= 0 && k < OUTLIER_WINDOW) atomicOr(&shared.marks[k >> 5], 1u << (k & 31));
            }
        } else {
            for (int k = half; k < OUTLIER_WINDOW && window + k < a.inFeatures; k += 2)
                if (isOutlier<T>(a, m, window + k)) atomicOr(&shared.marks[k >> 5], 1u << (k & 31));
        }
    }
    __syncthreads();
}

// Writes the marked columns number `from` ..< `from` + OUTLIER_LIST, ascending, and returns how many are marked in all.
__device__ __forceinline__ int listOutliers(OutlierShared &shared, int window, int from) {
    constexpr int words = OUTLIER_WINDOW / 32 / 128;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int count = 0;
#pragma unroll
    for (int i = 0; i < words; ++i) count += __popc(shared.marks[threadIdx.x * words + i]);
    int place = count;
#pragma unroll
    for (int d = 1; d < 32; d <<= 1) {
        const int other = __shfl_up_sync(~0u, place, d);
        if (lane >= d) place += other;
    }
    if (lane == 31) shared.warpCounts[warp] = place;
    __syncthreads();
    int total = 0;
#pragma unroll
    for (int w = 0; w < 4; ++w) {
        if (w < warp) place += shared.warpCounts[w];
        total += shared.warpCounts[w];
    }
    place -= count + from;
    for (int i = 0; i < words; ++i)
        for (u32 left = shared.marks[threadIdx.x * words + i]; left; left &= left - 1, ++place)
            if (place >= 0 && place < OUTLIER_LIST)
                shared.columns[place] = window + (threadIdx.x * words + i) * 32 + __ffs(left) - 1;
    __syncthreads();
    return total;
}

template <typename T>
__device__ __forceinline__ void addOutliers(const NibbleLinearArguments &a, const NibbleLinearPart &part, OutlierShared &shared,
                                            int m0, int n0, float (&sums)[32]) {
#pragma unroll
    for (int i = 0; i < 32; ++i) sums[i] = 0.f;
    for (int window = 0; window < a.inFeatures; window += OUTLIER_WINDOW) {
        markOutliers<T>(a, shared, m0, window);
        for (int from = 0, total = 1; from < total; from += OUTLIER_LIST) {
            total = listOutliers(shared, window, from);
            const int count = min(total - from, OUTLIER_LIST);
            for (int first = 0; first < count; first += 16) {
#pragma unroll
                for (int i = 0; i < 8; ++i) {
                    const int j = (threadIdx.x >> 6) + 2 * i, r = threadIdx.x & 63;
                    const int k = first + j < count ? shared.columns[first + j] : -1;
                    float x = 0.f, w = 0.f;
                    if (k >= 0 && m0 + r < a.tokens && isOutlier<T>(a, m0 + r, k))
                        x = toFloat(((const T *)a.input)[(long long)(m0 + r) * a.inFeatures + k]);
                    if (k >= 0 && n0 + r < part.outFeatures) w = outlierWeight<T>(a, part, n0 + r, k);
                    shared.inputs[j][r & 1][r >> 1] = x;
                    shared.weights[j][r] = w;
                }
                __syncthreads();
#pragma unroll 2
                for (int j = 0; j < 16; ++j) {
                    const float w = shared.weights[j][threadIdx.x & 63];
#pragma unroll
                    for (int i = 0; i < 32; i += 4) {
                        const float4 x = *(const float4 *)&shared.inputs[j][threadIdx.x >> 6][i];
                        sums[i] = __fadd_rn(sums[i], __fmul_rn(x.x, w));
                        sums[i + 1] = __fadd_rn(sums[i + 1], __fmul_rn(x.y, w));
                        sums[i + 2] = __fadd_rn(sums[i + 2], __fmul_rn(x.z, w));
                        sums[i + 3] = __fadd_rn(sums[i + 3], __fmul_rn(x.w, w));
                    }
                }
                __syncthreads();
            }
        }
    }
}
