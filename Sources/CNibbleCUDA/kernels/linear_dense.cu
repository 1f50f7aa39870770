// Linear layers whose weights are floats of the activations' type.
#include "tile_product.cuh"
#include "gemv.cuh"

template <typename T> struct DenseRows {
    typedef float Sum;
    static constexpr int E = Chunk<T>::size;
    const NibbleLinearArguments &a;
    bool isAligned;

    __device__ __forceinline__ DenseRows(const NibbleLinearArguments &arguments) : a(arguments), isAligned(a.inFeatures % E == 0) {}

    template <int MM> __device__ __forceinline__ void add(float (&sums)[MM][2], const uint4 &q0, const uint4 &q1, int k) const {
        float w0[E], w1[E], x[E];
        unpack(q0, w0, T());
        unpack(q1, w1, T());
#pragma unroll
        for (int m = 0; m < MM; ++m) {
            unpack(*(const uint4 *)((const T *)a.input + (long long)min(m, a.tokens - 1) * a.inFeatures + k), x, T());
#pragma unroll
            for (int i = 0; i < E; ++i) {
                sums[m][0] = fmaf(w0[i], x[i], sums[m][0]);
                sums[m][1] = fmaf(w1[i], x[i], sums[m][1]);
            }
        }
    }

    template <int MM> __device__ __forceinline__ void addOne(float (&sums)[MM][2], const u8 *row0, const u8 *row1, int k) const {
#pragma unroll
        for (int m = 0; m < MM; ++m) {
            const float x = toFloat(((const T *)a.input)[(long long)min(m, a.tokens - 1) * a.inFeatures + k]);
            sums[m][0] = fmaf(toFloat(((const T *)row0)[k]), x, sums[m][0]);
            sums[m][1] = fmaf(toFloat(((const T *)row1)[k]), x, sums[m][1]);
        }
    }

    __device__ __forceinline__ static float sumOfWarp(float x) { return warpSum(x); }

    __device__ __forceinline__ void store(float sum, const NibbleLinearPart &part, int m, int n, bool isMine) const {
        if (isMine) finish(a.epilogue, m, part.firstColumn + n, sum + (part.bias ? part.bias[n] : 0.f));
    }
};

// float32 arithmetic: a 64 x 64 tile, a thread 8 tokens x 4 outputs.
template <typename T> __device__ __forceinline__ void simtTile(const NibbleLinearArguments &a, const NibbleLinearPart &part, int m0, int n0) {
    __shared__ float x[16][68], w[16][68];
    const int K = a.inFeatures, M = a.tokens, N = part.outFeatures;
    const int tm = (threadIdx.x >> 4) * 8, tn = (threadIdx.x & 15) * 4;
    float sums[8][4] = {};
    for (int k0 = 0; k0 < K; k0 += 16) {
        for (int i = threadIdx.x; i < 1024; i += 128) {
            const int row = i >> 4, k = k0 + (i & 15);
            x[i & 15][row] = m0 + row < M && k < K ? toFloat(((const T *)a.input)[(long long)(m0 + row) * K + k]) : 0.f;
            w[i & 15][row] = n0 + row < N && k < K ? toFloat(((const T *)part.weight)[(long long)(n0 + row) * K + k]) : 0.f;
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < 16; ++k) {
            const float4 x0 = *(const float4 *)&x[k][tm], x1 = *(const float4 *)&x[k][tm + 4], y = *(const float4 *)&w[k][tn];
            const float xs[8] = {x0.x, x0.y, x0.z, x0.w, x1.x, x1.y, x1.z, x1.w}, ws[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
            for (int i = 0; i < 8; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) sums[i][j] = fmaf(xs[i], ws[j], sums[i][j]);
        }
        __syncthreads();
    }
    __shared__ float all[64][65];
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) all[tm + i][tn + j] = sums[i][j];
    __syncthreads();
    const int n = n0 + (threadIdx.x & 63);
    if (n >= N) return;
#pragma unroll 1
    for (int m = threadIdx.x >> 6; m < 64 && m0 + m < M; m += 2)
        finish(a.epilogue, m0 + m, part.firstColumn + n, all[m][threadIdx.x & 63] + (part.bias ? part.bias[n] : 0.f));
}

template <typename T> __device__ __forceinline__ void tensorTile(const NibbleLinearArguments &a, const NibbleLinearPart &part, int m0, int n0) {
    __shared__ __align__(128) u8 shared[TILE_STAGES * 16384];
    const long long bytes = (long long)a.inFeatures * sizeof(T);
    const TileOperand input = {(const u8 *)a.input, bytes, bytes, a.tokens, bytes % 16 == 0};
    const TileOperand weight = {(const u8 *)part.weight, bytes, bytes, part.outFeatures, bytes % 16 == 0};
    float c[2][4][4];
    tileProduct<T>(shared, input, weight, m0, n0, c);
    forEachProduct(shared, c, m0, n0, a.tokens, part.outFeatures, [&](int m, int n, float product) {
        finish(a.epilogue, m, part.firstColumn + n, product + (part.bias ? part.bias[n] : 0.f));
    });
}

template <typename T> struct TensorCores { static constexpr bool have = false; };
template <> struct TensorCores<f16> { static constexpr bool have = true; };
#if __CUDA_ARCH__ >= 800
template <> struct TensorCores<bf16> { static constexpr bool have = true; };
#endif

template <typename T> __device__ __forceinline__ void gemmBody(const NibbleLinearArguments &a) {
    releaseDependents();
    waitForPredecessors();
    int tile = blockIdx.x;
    const NibbleLinearPart &part = a.parts[partOfTile(a, tile, NIBBLE_GEMM_TILE_N)];
    if constexpr (TensorCores<T>::have) tensorTile<T>(a, part, blockIdx.y * NIBBLE_GEMM_TILE_M, tile * NIBBLE_GEMM_TILE_N);
    else simtTile<T>(a, part, blockIdx.y * NIBBLE_GEMM_TILE_M, tile * NIBBLE_GEMM_TILE_N);
}

#define INSTANCE(T)                                                                                                    \
    extern "C" __global__ void __launch_bounds__(NIBBLE_GEMV_THREADS) gemv_##T(const __grid_constant__ NibbleLinearArguments a) { gemvAny(a, DenseRows<T>(a)); } \
    extern "C" __global__ void __launch_bounds__(NIBBLE_GEMM_THREADS) gemm_##T(const __grid_constant__ NibbleLinearArguments a) { gemmBody<T>(a); }
NIBBLE_FOR_TYPES(INSTANCE)
