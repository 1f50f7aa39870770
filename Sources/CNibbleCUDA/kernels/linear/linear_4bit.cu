// 4-bit GEMV over the canonical layout (any shape), and dequantization of canonical weights.
#include "codebooks.cuh"

// Eight codes of four bytes in order: each byte holds the earlier element in its high nibble.
__device__ __forceinline__ u32 codeAt(u32 word, int i) { return word >> (8 * (i >> 1) + (i & 1 ? 0 : 4)) & 15; }

template <typename T>
__device__ __forceinline__ void load8(const T *p, float (&x)[8]) {
    if constexpr (sizeof(T) == 4) {
        uint4 v = *(const uint4 *)p, w = *(const uint4 *)(p + 4);
        float low[4], high[4];
        unpack(v, low, f32());
        unpack(w, high, f32());
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            x[i] = low[i];
            x[4 + i] = high[i];
        }
    } else {
        unpack(*(const uint4 *)p, x, T());
    }
}

// A warp computes two rows for MM tokens. Lanes take runs of 32 elements, which never leave a quantization block when K is a
// multiple of 32; otherwise they take single elements. Lane 2 m + r returns row r for token m.
template <typename T, int MM>
__device__ __forceinline__ float gemvFourBitRows(const NibbleLinearArguments &a, const NibbleLinearLayer &part, int n0,
                                                 const float *values) {
    const int lane = threadIdx.x & 31, N = part.outFeatures, M = a.tokens;
    const long long K = a.inFeatures;
    const T *input = (const T *)a.input;
    const u8 *codes = (const u8 *)part.weight;
    float sums[MM][2] = {};
    if (K % 32 == 0) {
        for (long long k = lane * 32; k < K; k += 1024) {
            uint4 q[2];
            float scale[2], partial[MM][2] = {};
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                const long long flat = (long long)min(n0 + r, N - 1) * K + k;
                q[r] = loadStreaming(codes + (flat >> 1));
                scale[r] = blockScale(part, flat >> a.blockSizeLog2);
            }
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                float w[2][8];
#pragma unroll
                for (int r = 0; r < 2; ++r) {
                    const u32 word = j == 0 ? q[r].x : j == 1 ? q[r].y : j == 2 ? q[r].z : q[r].w;
#pragma unroll
                    for (int i = 0; i < 8; ++i) w[r][i] = values[codeAt(word, i)];
                }
#pragma unroll
                for (int m = 0; m < MM; ++m) {
                    float x[8];
                    load8(input + (long long)min(m, M - 1) * K + k + 8 * j, x);
#pragma unroll
                    for (int r = 0; r < 2; ++r)
#pragma unroll
                        for (int i = 0; i < 8; ++i) partial[m][r] = fmaf(w[r][i], x[i], partial[m][r]);
                }
            }
#pragma unroll
            for (int m = 0; m < MM; ++m)
#pragma unroll
                for (int r = 0; r < 2; ++r) sums[m][r] = fmaf(partial[m][r], scale[r], sums[m][r]);
        }
    } else {
        for (long long k = lane; k < K; k += 32) {
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                const long long flat = (long long)min(n0 + r, N - 1) * K + k;
                const u32 byte = codes[flat >> 1];
                const float w = __fmul_rn(values[flat & 1 ? byte & 15 : byte >> 4], blockScale(part, flat >> a.blockSizeLog2));
#pragma unroll
                for (int m = 0; m < MM; ++m) sums[m][r] = fmaf(w, toFloat(input[(long long)min(m, M - 1) * K + k]), sums[m][r]);
            }
        }
    }
    return sumOfLane(sums);
}

template <typename T>
__device__ __forceinline__ void gemvFourBitBody(const NibbleLinearArguments &a) {
    __shared__ float values[16];  // one bank an entry: no conflicts
    releaseDependents();
    if (isUnused(a)) return;
    if (threadIdx.x < 16) values[threadIdx.x] = codeValue(a.codebook, threadIdx.x);
    __syncthreads();
    waitForPredecessors();
    int tile = blockIdx.x;
    const NibbleLinearLayer &part = a.parts[layerOfTile(a, tile, NIBBLE_GEMV_4BIT_ROWS)];
    const int n0 = tile * NIBBLE_GEMV_4BIT_ROWS + 2 * (threadIdx.x >> 5);
    if (n0 >= part.outFeatures) return;
    float sum;
    if (a.tokens == 1)
        sum = gemvFourBitRows<T, 1>(a, part, n0, values);
    else if (a.tokens == 2)
        sum = gemvFourBitRows<T, 2>(a, part, n0, values);
    else if (a.tokens <= 4)
        sum = gemvFourBitRows<T, 4>(a, part, n0, values);
    else
        sum = gemvFourBitRows<T, 8>(a, part, n0, values);
    const int m = (threadIdx.x & 31) >> 1, n = n0 + (threadIdx.x & 1);
    if (m < a.tokens && n < part.outFeatures) finishOutput(a.epilogue, part, m, n, sum + (part.bias ? part.bias[n] : 0.f));
}

// Elements are numbered flat across rows, so row alignment does not matter. A thread takes eight elements at a time.
template <typename T>
__device__ __forceinline__ void dequantize4Body(const NibbleDequantizeArguments &a) {
    const long long count = (long long)a.part.outFeatures * a.inFeatures;
    const u8 *codes = (const u8 *)a.part.weight;
    T *output = (T *)a.output;
    const long long end = min(((long long)blockIdx.x + 1) * NIBBLE_DEQUANTIZE_ELEMENTS, count);
    for (long long i = (long long)blockIdx.x * NIBBLE_DEQUANTIZE_ELEMENTS + threadIdx.x * 8; i < end; i += 2048) {
        const float scale = blockScale(a.part, i >> a.blockSizeLog2);
        if (i + 8 <= count) {
            const u32 word = *(const u32 *)(codes + (i >> 1));
            float w[8];
#pragma unroll
            for (int j = 0; j < 8; ++j) w[j] = __fmul_rn(codeValue(a.codebook, codeAt(word, j)), scale);
            if constexpr (sizeof(T) == 4) {
                *(float4 *)(output + i) = make_float4(w[0], w[1], w[2], w[3]);
                *(float4 *)(output + i + 4) = make_float4(w[4], w[5], w[6], w[7]);
            } else {
                *(uint4 *)(output + i) = make_uint4(packPair<T>(w[0], w[1]), packPair<T>(w[2], w[3]), packPair<T>(w[4], w[5]),
                                                    packPair<T>(w[6], w[7]));
            }
        } else {
            for (long long j = i; j < count; ++j) {
                const u32 byte = codes[j >> 1];
                output[j] = fromFloat<T>(__fmul_rn(codeValue(a.codebook, j & 1 ? byte & 15 : byte >> 4), scale));
            }
        }
    }
}

#define INSTANCE(T)                                                                                                              \
    extern "C" __global__ void __launch_bounds__(NIBBLE_GEMV_4BIT_THREADS)                                                       \
        gemv_4bit_##T(const __grid_constant__ NibbleLinearArguments a) {                                                         \
        if constexpr (IS_WANTED(gemv_4bit_##T)) gemvFourBitBody<T>(a);                                                           \
    }                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(256) dequantize_4bit_##T(const __grid_constant__ NibbleDequantizeArguments a) { \
        if constexpr (IS_WANTED(dequantize_4bit_##T)) dequantize4Body<T>(a);                                                     \
    }
NIBBLE_FOR_TYPES(INSTANCE)
