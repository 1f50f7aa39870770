// Linear layers whose weights are floats of the activations' type.
#include "tile_product.cuh"

// A warp computes two rows for MM tokens; lanes take 16 bytes of each row at a time. Lane 2 m + r returns row r for token m.
template <typename T, int MM> __device__ __forceinline__ float gemvRows(const NibbleLinearArguments &a, const NibbleLinearPart &part, int n0) {
    constexpr int E = Chunk<T>::size, unroll = MM == 1 ? 4 : 2;
    const int lane = threadIdx.x & 31, N = part.outFeatures, M = a.tokens;
    const long long K = a.inFeatures;
    const T *input = (const T *)a.input, *weight = (const T *)part.weight;
    const T *rows[2] = {weight + n0 * K, weight + (long long)min(n0 + 1, N - 1) * K};
    float sums[MM][2] = {};
    if (K % E == 0) {
        for (long long k0 = lane * E; k0 < K; k0 += 32 * E * unroll) {
            uint4 q[unroll][2];
#pragma unroll
            for (int u = 0; u < unroll; ++u)
#pragma unroll
                for (int r = 0; r < 2; ++r) {
                    const long long k = k0 + u * 32 * E;
                    q[u][r] = k < K ? loadStreaming(rows[r] + k) : make_uint4(0, 0, 0, 0);
                }
#pragma unroll
            for (int u = 0; u < unroll; ++u) {
                const long long k = k0 + u * 32 * E;
                if (k >= K) break;
                float w[2][E];
                unpack(q[u][0], w[0], T());
                unpack(q[u][1], w[1], T());
#pragma unroll
                for (int m = 0; m < MM; ++m) {
                    float x[E];
                    unpack(*(const uint4 *)(input + (long long)min(m, M - 1) * K + k), x, T());
#pragma unroll
                    for (int r = 0; r < 2; ++r)
#pragma unroll
                        for (int i = 0; i < E; ++i) sums[m][r] = fmaf(w[r][i], x[i], sums[m][r]);
                }
            }
        }
    } else {
        for (long long k = lane; k < K; k += 32)
#pragma unroll
            for (int m = 0; m < MM; ++m) {
                const float x = toFloat(input[(long long)min(m, M - 1) * K + k]);
                sums[m][0] = fmaf(toFloat(rows[0][k]), x, sums[m][0]);
                sums[m][1] = fmaf(toFloat(rows[1][k]), x, sums[m][1]);
            }
    }
    return sumOfLane(sums);
}

template <typename T> __device__ __forceinline__ void gemvBody(const NibbleLinearArguments &a) {
    releaseDependents();
    waitForPredecessors();
    int tile = blockIdx.x;
    const NibbleLinearPart &part = a.parts[partOfTile(a, tile, NIBBLE_GEMV_ROWS)];
    const int n0 = tile * NIBBLE_GEMV_ROWS + 2 * (threadIdx.x >> 5);
    if (n0 >= part.outFeatures) return;
    float sum;
    if (a.tokens == 1) sum = gemvRows<T, 1>(a, part, n0);
    else if (a.tokens == 2) sum = gemvRows<T, 2>(a, part, n0);
    else if (a.tokens <= 4) sum = gemvRows<T, 4>(a, part, n0);
    else sum = gemvRows<T, 8>(a, part, n0);
    const int m = (threadIdx.x & 31) >> 1, n = n0 + (threadIdx.x & 1);
    if (m < a.tokens && n < part.outFeatures) finish(a.epilogue, m, part.firstColumn + n, sum + (part.bias ? part.bias[n] : 0.f));
}

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
    extern "C" __global__ void __launch_bounds__(NIBBLE_GEMV_THREADS) gemv_##T(const __grid_constant__ NibbleLinearArguments a) { gemvBody<T>(a); } \
    extern "C" __global__ void __launch_bounds__(NIBBLE_GEMM_THREADS) gemm_##T(const __grid_constant__ NibbleLinearArguments a) { gemmBody<T>(a); }
NIBBLE_FOR_TYPES(INSTANCE)
