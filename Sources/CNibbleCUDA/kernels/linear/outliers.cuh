// Outlier columns of LLM.int8(): which columns are outliers, and their products with the dequantized int8 weight. Every kernel
// adds the products of an output one after the other, columns ascending, so that a token's result depends on no other token.
#pragma once
#include "common.cuh"

#define WEIGHT_SCALE __uint_as_float(0x3c010204u)   // 1 / 127
#define PRODUCT_SCALE __uint_as_float(0x38820610u)  // 1 / 127^2

// The integer product with its scales and the bias. In compatibility mode activations and result are rounded to float16:
// bitsandbytes stores the product as float16 and adds a bias of another type to that, whatever the activations' type is.
template <typename T>
__device__ __forceinline__ float int8Result(int sum, float rowScale, float columnScale, float bias, bool hasBias,
                                            int roundsToHalf) {
    const float scaled = __fmul_rn(__fmul_rn((float)sum, rowScale), columnScale);
    if (!roundsToHalf) return fmaf(scaled, PRODUCT_SCALE, bias);
    if constexpr (IsHalf<T>::value) return toFloat(fromFloat<f16>(fmaf(scaled, PRODUCT_SCALE, bias)));
    float y = toFloat(fromFloat<f16>(__fmul_rn(scaled, PRODUCT_SCALE)));
    if (hasBias) y = toFloat(fromFloat<f16>(__fadd_rn(y, bias)));
    return toFloat(fromFloat<T>(y));
}

// The value that is compared with the threshold: rounded to float16 in compatibility mode.
template <typename T>
__device__ __forceinline__ float measured(T x, int roundsToHalf) {
    return roundsToHalf ? toFloat(fromFloat<f16>(toFloat(x))) : toFloat(x);
}

__device__ __forceinline__ float measuredThreshold(float threshold, int roundsToHalf) {
    return roundsToHalf ? toFloat(fromFloat<f16>(threshold)) : threshold;
}

// A weight as it multiplies an outlier: dequantized, then rounded to T.
template <typename T>
__device__ __forceinline__ float outlierWeight(const NibbleLinearLayer &part, long long n, i8 value) {
    return toFloat(fromFloat<T>(__fmul_rn(__fmul_rn((float)value, part.scales[n]), WEIGHT_SCALE)));
}

template <typename T>
__device__ __forceinline__ float outlierWeight(const NibbleLinearArguments &a, const NibbleLinearLayer &part, long long n,
                                               int k) {
    return outlierWeight<T>(part, n, ((const i8 *)part.weight)[n * a.inFeatures + k]);
}

template <typename T>
__device__ __forceinline__ float outlierProduct(const NibbleLinearArguments &a, const NibbleLinearLayer &part, long long m,
                                                long long n, int k) {
    return __fmul_rn(toFloat(((const T *)a.input)[m * a.inFeatures + k]), outlierWeight<T>(a, part, n, k));
}

template <typename T>
__device__ __forceinline__ bool isOutlier(const NibbleLinearArguments &a, long long m, int k) {
    if (a.columnFlags) return a.columnFlags[k];
    return fabsf(measured(((const T *)a.input)[m * a.inFeatures + k], a.roundsToHalf)) >=
           measuredThreshold(a.outlierThreshold, a.roundsToHalf);
}

// The sum over the outlier columns of token m, ascending, by a warp.
template <typename T>
__device__ __forceinline__ float outlierSumOfWarp(const NibbleLinearArguments &a, const NibbleLinearLayer &part, long long m,
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

// The first output column of a layer, counted from the first layer of the call.
__device__ __forceinline__ long long columnOfCall(const NibbleLinearArguments &a, const NibbleLinearLayer &part) {
    return part.firstColumn - a.parts[0].firstColumn;
}

// The outlier sum of a token by one thread.
template <typename T>
__device__ __forceinline__ float outlierSum(const NibbleLinearArguments &a, const NibbleLinearLayer &part, long long m,
                                            long long n) {
    const int count = a.outlierThreshold > 0.f ? a.outlierCounts[m] : 0;
    float sum = 0.f;
    if (count > a.outlierCapacity) {
        for (int k = 0; k < a.inFeatures; ++k)
            if (isOutlier<T>(a, m, k)) sum = __fadd_rn(sum, outlierProduct<T>(a, part, m, n, k));
        return sum;
    }
    constexpr int ahead = 8;  // loads in flight
    const int *columns = a.outlierColumns + m * a.outlierCapacity;
    const float *values = a.outlierValues + m * a.outlierCapacity;
    for (int first = 0; first < count; first += ahead) {
        float products[ahead];
#pragma unroll
        for (int i = 0; i < ahead; ++i)
            products[i] =
                first + i < count ? __fmul_rn(values[first + i], outlierWeight<T>(a, part, n, columns[first + i])) : 0.f;
#pragma unroll
        for (int i = 0; i < ahead; ++i) sum = first + i < count ? __fadd_rn(sum, products[i]) : sum;
    }
    return sum;
}

// The outlier sum that `sum_outliers` stored for output n of a layer and token m.
__device__ __forceinline__ float storedOutlierSum(const NibbleLinearArguments &a, const NibbleLinearLayer &part, long long m,
                                                  int n) {
    if (!(a.outlierThreshold > 0.f) || a.outlierCounts[m] == 0) return 0.f;
    return a.outlierSums[m * a.outlierSumsStride + columnOfCall(a, part) + n];
}
