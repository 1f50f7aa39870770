// LLM.int8() (arXiv 2208.07339): rows of activations to int8 with their outlier columns, products with int8 weights.
#include "tile_product.cuh"
#include "gemv.cuh"

#define PRODUCT_SCALE __uint_as_float(0x38820610u)  // 1 / 127^2
#define WEIGHT_SCALE __uint_as_float(0x3c010204u)   // 1 / 127

// The value whose magnitude decides: rounded to float16 where the reference does so.
template <typename T> __device__ __forceinline__ float measured(T x, int roundsToHalf) {
    return roundsToHalf ? toFloat(fromFloat<f16>(toFloat(x))) : toFloat(x);
}

__device__ __forceinline__ float measuredThreshold(float threshold, int roundsToHalf) {
    return roundsToHalf ? toFloat(fromFloat<f16>(threshold)) : threshold;
}

template <typename T> __device__ __forceinline__ void markBody(const NibbleRowQuantizeArguments &a) {
    releaseDependents();
    waitForPredecessors();
    const int k = blockIdx.x * 256 + threadIdx.x;
    if (k >= a.inFeatures || !(a.outlierThreshold > 0.f)) return;
    const float threshold = measuredThreshold(a.outlierThreshold, a.roundsToHalf);
    bool isOutlier = false;
    for (long long m = blockIdx.y; m < a.tokens; m += gridDim.y)
        isOutlier |= fabsf(measured(((const T *)a.input)[m * a.inFeatures + k], a.roundsToHalf)) >= threshold;
    if (isOutlier) a.columnFlags[k] = 1;
}

// Eight elements from k0 on; zeros past K.
template <typename T> __device__ __forceinline__ void loadRun(const T *row, int k0, int K, int roundsToHalf, float (&x)[8]) {
    if constexpr (sizeof(T) == 2) {
        if (K % 8 == 0 && k0 < K) {
            unpack(*(const uint4 *)(row + k0), x, T());
            if (roundsToHalf)
#pragma unroll
                for (int i = 0; i < 8; ++i) x[i] = toFloat(fromFloat<f16>(x[i]));
            return;
        }
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = k0 + i < K ? measured(row[k0 + i], roundsToHalf) : 0.f;
}

// A block takes one row, a thread eight columns at a time.
template <typename T> __device__ __forceinline__ void int8QuantizeBody(const NibbleRowQuantizeArguments &a) {
    __shared__ int warpCounts[8];
    releaseDependents();
    waitForPredecessors();
    const int K = a.inFeatures, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const long long m = blockIdx.x;
    const T *row = (const T *)a.input + m * K;
    i8 *quantized = a.quantized + m * a.quantizedStride;
    const bool hasThreshold = a.outlierThreshold > 0.f;
    const float threshold = hasThreshold ? measuredThreshold(a.outlierThreshold, a.roundsToHalf) : NIBBLE_INFINITY;
    float absmax = 0.f;
    for (int k0 = threadIdx.x * 8; k0 < K; k0 += 2048) {
        float x[8];
        loadRun(row, k0, K, a.roundsToHalf, x);
#pragma unroll
        for (int i = 0; i < 8; ++i)
            if (!hasThreshold || !(fabsf(x[i]) >= threshold)) absmax = fmaxf(absmax, fabsf(x[i]));
    }
    absmax = blockMax(absmax);
    const float scale = absmax > 0.f ? __fdividef(127.f, absmax) : 0.f;
    int found = 0;
    for (int base = 0; base < a.quantizedStride; base += 2048) {
        const int k0 = base + threadIdx.x * 8;
        float x[8];
        loadRun(row, k0, K, a.roundsToHalf, x);
        u32 outliers = 0, packed[2] = {0, 0};
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            bool isOutlier = hasThreshold && k0 + i < K && fabsf(x[i]) >= threshold;
            if (hasThreshold && a.columnFlags && k0 + i < K) isOutlier = isOutlier || a.columnFlags[k0 + i];
            if (isOutlier) outliers |= 1u << i;
            else packed[i >> 2] |= ((u32)__float2int_rn(__fmul_rn(x[i], scale)) & 255) << (8 * (i & 3));
        }
        if (k0 < a.quantizedStride) *(uint2 *)(quantized + k0) = make_uint2(packed[0], packed[1]);
        if (!hasThreshold || !__syncthreads_or(outliers)) continue;
        // Ascending places: threads before this one, in this stretch of columns.
        int inclusive = __popc(outliers);
#pragma unroll
        for (int d = 1; d < 32; d <<= 1) {
            const int other = __shfl_up_sync(~0u, inclusive, d);
            if (lane >= d) inclusive += other;
        }
        if (lane == 31) warpCounts[warp] = inclusive;
        __syncthreads();
        int place = found + inclusive - __popc(outliers);
        for (int w = 0; w < 8; ++w) {
            if (w < warp) place += warpCounts[w];
            found += warpCounts[w];
        }
        for (int i = 0; i < 8; ++i)
            if (outliers >> i & 1) {
                if (place < a.outlierCapacity) a.outlierColumns[m * a.outlierCapacity + place] = k0 + i;
                ++place;
            }
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        a.rowScales[m] = absmax;
        a.outlierCounts[m] = found;
    }
}

// x[m, k] times the dequantized weight, both in T.
template <typename T> __device__ __forceinline__ float outlierProduct(const NibbleLinearArguments &a, const NibbleLinearPart &part, long long m, long long n, int k) {
    const float w = __fmul_rn(__fmul_rn((float)((const i8 *)part.weight)[n * a.inFeatures + k], part.scales[n]), WEIGHT_SCALE);
    return __fmul_rn(toFloat(((const T *)a.input)[m * a.inFeatures + k]), toFloat(fromFloat<T>(w)));
}

template <typename T> __device__ __forceinline__ bool isOutlier(const NibbleLinearArguments &a, long long m, int k) {
    if (a.columnFlags) return a.columnFlags[k];
    return fabsf(measured(((const T *)a.input)[m * a.inFeatures + k], a.roundsToHalf)) >= measuredThreshold(a.outlierThreshold, a.roundsToHalf);
}

// The sum over the outlier columns of token m, ascending, by one thread; or by a warp, in the same order.
template <typename T> __device__ __forceinline__ float outlierSum(const NibbleLinearArguments &a, const NibbleLinearPart &part, long long m, long long n) {
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

template <typename T> __device__ __forceinline__ float outlierSumOfWarp(const NibbleLinearArguments &a, const NibbleLinearPart &part, long long m, long long n) {
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

template <typename T> struct IsHalf { static constexpr bool value = false; };
template <> struct IsHalf<f16> { static constexpr bool value = true; };

// The integer product with its scales and the bias. Where activations are rounded to float16 as in the reference, so is the
// result: bitsandbytes makes a float16 tensor of it, into which it adds a bias of another type, whatever the activations are.
template <typename T> __device__ __forceinline__ float int8Result(const NibbleLinearArguments &a, const NibbleLinearPart &part, long long m, long long n, int sum) {
    const float scaled = __fmul_rn(__fmul_rn((float)sum, a.rowScales[m]), part.scales[n]), bias = part.bias ? part.bias[n] : 0.f;
    if (!a.roundsToHalf) return fmaf(scaled, PRODUCT_SCALE, bias);
    if constexpr (IsHalf<T>::value) return toFloat(fromFloat<f16>(fmaf(scaled, PRODUCT_SCALE, bias)));
    float y = toFloat(fromFloat<f16>(__fmul_rn(scaled, PRODUCT_SCALE)));
    if (part.bias) y = toFloat(fromFloat<f16>(__fadd_rn(y, bias)));
    return toFloat(fromFloat<T>(y));
}

__device__ __forceinline__ int dot16(uint4 w, uint4 x, int sum) {
    sum = __dp4a((int)w.x, (int)x.x, sum);
    sum = __dp4a((int)w.y, (int)x.y, sum);
    sum = __dp4a((int)w.z, (int)x.z, sum);
    return __dp4a((int)w.w, (int)x.w, sum);
}

__device__ __forceinline__ int warpSumInteger(int x) {
#if __CUDA_ARCH__ >= 800
    return __reduce_add_sync(~0u, x);
#else
#pragma unroll
    for (int d = 16; d > 0; d >>= 1) x += __shfl_xor_sync(~0u, x, d);
    return x;
#endif
}

template <typename T> struct Int8Rows {
    typedef int Sum;
    static constexpr int E = 16;
    const NibbleLinearArguments &a;
    bool isAligned;

    __device__ __forceinline__ Int8Rows(const NibbleLinearArguments &arguments) : a(arguments), isAligned(a.inFeatures % 16 == 0) {}

    template <int MM> __device__ __forceinline__ void add(int (&sums)[MM][2], const uint4 &q0, const uint4 &q1, int k) const {
#pragma unroll
        for (int m = 0; m < MM; ++m) {
            const uint4 x = *(const uint4 *)(a.quantized + min(m, a.tokens - 1) * a.quantizedStride + k);
            sums[m][0] = dot16(q0, x, sums[m][0]);
            sums[m][1] = dot16(q1, x, sums[m][1]);
        }
    }

    template <int MM> __device__ __forceinline__ void addOne(int (&sums)[MM][2], const u8 *row0, const u8 *row1, int k) const {
#pragma unroll
        for (int m = 0; m < MM; ++m) {
            const int x = a.quantized[min(m, a.tokens - 1) * a.quantizedStride + k];
            sums[m][0] += ((const i8 *)row0)[k] * x;
            sums[m][1] += ((const i8 *)row1)[k] * x;
        }
    }

    __device__ __forceinline__ static int sumOfWarp(int x) { return warpSumInteger(x); }

    __device__ __forceinline__ void store(int sum, const NibbleLinearPart &part, int m, int n, bool isMine) const {
        float outliers = 0.f;
        if (a.outlierThreshold > 0.f) {
            if (a.tokens == 1) {
                // The list's length is the same for both rows: the warp works on one after the other.
                const int row = n & ~1;
                const float first = outlierSumOfWarp<T>(a, part, 0, row);
                const float second = outlierSumOfWarp<T>(a, part, 0, min(row + 1, part.outFeatures - 1));
                outliers = n & 1 ? second : first;
            } else if (isMine) {
                outliers = outlierSum<T>(a, part, m, n);
            }
        }
        if (isMine) finish(a.epilogue, m, part.firstColumn + n, int8Result<T>(a, part, m, n, sum) + outliers);
    }
};

template <typename T> __device__ __forceinline__ void gemm8Body(const NibbleLinearArguments &a) {
    __shared__ __align__(128) u8 shared[TILE_STAGES * 16384];
    releaseDependents();
    waitForPredecessors();
    int tile = blockIdx.x;
    const NibbleLinearPart &part = a.parts[partOfTile(a, tile, NIBBLE_GEMM8_TILE_N)];
    const int m0 = blockIdx.y * NIBBLE_GEMM8_TILE_M, n0 = tile * NIBBLE_GEMM8_TILE_N;
    const long long K = a.inFeatures;
    const TileOperand input = {(const u8 *)a.quantized, a.quantizedStride, a.quantizedStride, a.tokens, true};
    const TileOperand weight = {(const u8 *)part.weight, K, K, part.outFeatures, K % 16 == 0};
    int c[2][4][4];
    tileProduct<i8>(shared, input, weight, m0, n0, c);
    forEachProduct(shared, c, m0, n0, a.tokens, part.outFeatures, [&](int m, int n, int sum) {
        finish(a.epilogue, m, part.firstColumn + n, int8Result<T>(a, part, m, n, sum) + outlierSum<T>(a, part, m, n));
    });
}

// Integer products that a library made.
template <typename T> __device__ __forceinline__ void int8FinishBody(const NibbleLinearArguments &a) {
    int total = 0;
    for (int p = 0; p < a.partCount; ++p) total += a.parts[p].outFeatures;
    int n = blockIdx.x * 256 + threadIdx.x;
    const long long m = blockIdx.y;
    if (n >= total) return;
    const int sum = a.accumulated[m * total + n];
    const NibbleLinearPart &part = a.parts[partOfTile(a, n, 1)];
    finish(a.epilogue, m, part.firstColumn + n, int8Result<T>(a, part, m, n, sum) + outlierSum<T>(a, part, m, n));
}

template <typename T> __device__ __forceinline__ void dequantize8Body(const NibbleDequantizeArguments &a) {
    const long long count = (long long)a.part.outFeatures * a.inFeatures, start = (long long)blockIdx.x * NIBBLE_DEQUANTIZE_ELEMENTS;
    const long long end = min(start + NIBBLE_DEQUANTIZE_ELEMENTS, count);
    for (long long i = start + threadIdx.x; i < end; i += 256)
        ((T *)a.output)[i] = fromFloat<T>(
            __fmul_rn(__fmul_rn((float)((const i8 *)a.part.weight)[i], a.part.scales[i / a.inFeatures]), WEIGHT_SCALE));
}

#define INSTANCE(T)                                                                                                    \
    extern "C" __global__ void __launch_bounds__(256) int8_mark_##T(const __grid_constant__ NibbleRowQuantizeArguments a) { markBody<T>(a); } \
    extern "C" __global__ void __launch_bounds__(256) int8_quantize_##T(const __grid_constant__ NibbleRowQuantizeArguments a) { int8QuantizeBody<T>(a); } \
    extern "C" __global__ void __launch_bounds__(NIBBLE_GEMV8_THREADS) gemv8_##T(const __grid_constant__ NibbleLinearArguments a) { gemvAny(a, Int8Rows<T>(a)); } \
    extern "C" __global__ void __launch_bounds__(NIBBLE_GEMM8_THREADS) gemm8_##T(const __grid_constant__ NibbleLinearArguments a) { gemm8Body<T>(a); } \
    extern "C" __global__ void __launch_bounds__(256) int8_finish_##T(const __grid_constant__ NibbleLinearArguments a) { int8FinishBody<T>(a); } \
    extern "C" __global__ void __launch_bounds__(256) dequantize8_##T(const __grid_constant__ NibbleDequantizeArguments a) { dequantize8Body<T>(a); }
NIBBLE_FOR_TYPES(INSTANCE)
