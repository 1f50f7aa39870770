// Inputs of the tiled 4-bit products besides the weight: activations as float16 fragments, and the table of code values.
#pragma once
#include "tiles4.cuh"
#include "row_input.cuh"

// The staged activations of a call: fragments [token tiles][column tiles][lane][16 halves], then for each token the factor
// back to its true size; float32 has a second set of fragments (the low parts, times 4096) after the first.
struct Staged {
    uint4 *fragments;
    float *factors;
    long long lowOffset;  // in uint4
};

template <typename T>
__device__ __forceinline__ Staged stagedLayout(void *base, int tokens, int columnTiles) {
    Staged s;
    s.lowOffset = (long long)((tokens + 7) / 8) * columnTiles * 64;
    s.fragments = (uint4 *)base;
    s.factors = (float *)(s.fragments + s.lowOffset * (sizeof(T) == 4 ? 2 : 1));
    return s;
}

// The staged activations of products on warpgroups: float16, in 8 x 8 matrices of 8 tokens and 8 columns, ordered [pairs of
// column tiles][token tiles] [16 matrices along K][8 tokens][8 columns]. Then for each token the factor back to its true size.
struct WideStaged {
    uint4 *rows;  // of a matrix
    float *factors;
    int tokenTiles;

    __device__ __forceinline__ WideStaged(void *staged, int tokens, int pairs)
        : rows((uint4 *)staged), tokenTiles((tokens + 7) / 8) {
        factors = (float *)(rows + (long long)pairs * tokenTiles * 128);
    }
    __device__ __forceinline__ WideStaged(const NibbleLinearArguments &a, int pairs) : WideStaged(a.staged, a.tokens, pairs) {}
    // The 16 matrices of a pair and a token tile.
    __device__ __forceinline__ uint4 *matrices(int pair, int tokenTile) const {
        return rows + ((long long)pair * tokenTiles + tokenTile) * 128;
    }
};

// Elements 8 i ..< 8 i + 8 of a token; zeros past its end.
__device__ __forceinline__ void loadRun(const float *token, int i, int K, float (&x)[8]) {
    if (8 * i < K) {
        loadEight(token, 8 * i, NIBBLE_F32, x);
    } else {
#pragma unroll
        for (int j = 0; j < 8; ++j) x[j] = 0.f;
    }
}

// Stages one token by all threads of a block; returns the factor that undoes the scaling. The fragment words of run i go to
// `fragments` + (i / 8) * 256 + (0 ... 3) * 8 + i % 8; `low` takes the low parts.
__device__ __forceinline__ float stageToken(const float *token, int K, int columnTiles, u32 *fragments, u32 *low) {
    u32 largest = 0;
    float x[8];
    for (int i = threadIdx.x; i < K / 8; i += blockDim.x) {
        loadRun(token, i, K, x);
#pragma unroll
        for (int j = 0; j < 8; ++j) largest = max(largest, __float_as_uint(x[j]) & 0x7fffffffu);
    }
    float inverse;
    const float factor = factorToHalf(blockMaxBits(largest), inverse);
    for (int i = threadIdx.x; i < columnTiles * 8; i += blockDim.x) {
        loadRun(token, i, K, x);
        const long long place = (long long)(i >> 3) * 256 + (i & 7);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const float first = x[2 * j] * factor, second = x[2 * j + 1] * factor;
            const u32 high = packPair<f16>(first, second);
            fragments[place + 8 * j] = high;
            low[place + 8 * j] =
                packPair<f16>((first - toFloat(f16{(u16)high})) * 4096.f, (second - toFloat(f16{(u16)(high >> 16)})) * 4096.f);
        }
    }
    return inverse;
}

// Token m of a call whose input may have a prologue.
template <typename T>
__device__ __forceinline__ const void *tokenOf(const NibbleLinearArguments &a, long long m) {
    return (const u8 *)a.input + m * a.inFeatures * (a.prologue.kind == NIBBLE_PROLOGUE_NONE ? sizeof(T) : 4);
}

// The factors to float16 and back of a token of 16-bit elements, by all threads of a block. float16 stays as it is.
template <typename T>
__device__ __forceinline__ float factorOfRow(const RowInput<T> &row, float &inverse) {
    inverse = 1.f;
    if constexpr (IsHalf<T>::value) return 1.f;
    u32 largest = 0;
    row.forEachRun(row.K / 8, [&](int i, const float (&x)[8]) {
#pragma unroll
        for (int j = 0; j < 8; ++j) largest = max(largest, __float_as_uint(x[j]) & 0x7fffffffu);
    });
    return factorToHalf(blockMaxBits(largest), inverse);
}

// Where token m is kept as the prologue leaves it, or null: no other kernel wants it.
template <typename T>
__device__ __forceinline__ T *keptToken(const NibbleLinearArguments &a, long long m) {
#ifdef NIBBLE_ADAPTERS
    if (a.prepared) return (T *)a.prepared + m * a.inFeatures;
#endif
    return nullptr;
}

template <typename T>
__device__ __forceinline__ void keepRun(T *kept, int i, int K, const float (&x)[8]) {
    if (kept && 8 * i < K) storeEight(kept, 8LL * i, IsHalf<T>::value ? NIBBLE_F16 : NIBBLE_BF16, x);
}

// The same for a token of 16-bit elements, which may have a prologue and be kept.
template <typename T>
__device__ __forceinline__ float stageRow(const RowInput<T> &row, int columnTiles, u32 *fragments, T *kept = nullptr) {
    float inverse;
    const float factor = factorOfRow(row, inverse);
    row.forEachRun(columnTiles * 8, [&](int i, const float (&x)[8]) {
        if (i >= columnTiles * 8) return;
        keepRun(kept, i, row.K, x);
        const long long place = (long long)(i >> 3) * 256 + (i & 7);
#pragma unroll
        for (int j = 0; j < 4; ++j) fragments[place + 8 * j] = packPair<f16>(x[2 * j] * factor, x[2 * j + 1] * factor);
    });
    return inverse;
}

// The factors to float16 and back of 64 columns, of which eight neighbouring lanes hold eight each.
__device__ __forceinline__ float factorOfTile(const float (&x)[8], float &inverse) {
    u32 largest = 0;
#pragma unroll
    for (int j = 0; j < 8; ++j) largest = max(largest, __float_as_uint(x[j]) & 0x7fffffffu);
#pragma unroll
    for (int d = 1; d < 8; d <<= 1) largest = max(largest, __shfl_xor_sync(~0u, largest, d));
    return factorToHalf(largest, inverse);
}

// Stages a single token by all threads of a block. Each tile of 64 columns has its own factor, so warps need not synchronize.
// Fragments as above, 32 words per tile; tiles lie `stride` words apart.
template <typename T>
__device__ __forceinline__ void stageSingle(const RowInput<T> &row, int columnTiles, u32 *fragments, int stride, float *factors) {
    row.forEachRun(columnTiles * 8, [&](int i, const float (&x)[8]) {
        float inverse;
        const float factor = factorOfTile(x, inverse);
        if (i >= columnTiles * 8) return;
        const int place = (i >> 3) * stride + (i & 7);
#pragma unroll
        for (int j = 0; j < 4; ++j) fragments[place + 8 * j] = packPair<f16>(x[2 * j] * factor, x[2 * j + 1] * factor);
        if ((i & 7) == 0) factors[i >> 3] = inverse;
    });
}

// The float16 value of a code, selected among immediates.
__device__ __forceinline__ u32 halfValue(int codebook, u32 code) {
    const bool isNF4 = codebook == NIBBLE_NF4, isMXFP4 = codebook == NIBBLE_MXFP4;
    const u32 pairs[8] = {
        isNF4 ? 0xb992bc00u : isMXFP4 ? 0x38000000u : 0x1d550000u, isNF4 ? 0xb652b833u : isMXFP4 ? 0x3e003c00u : 0x3c003955u,
        isNF4 ? 0xb1eab48du : isMXFP4 ? 0x42004000u : 0x38003555u, isNF4 ? 0x0000add4u : isMXFP4 ? 0x46004400u : 0x34003155u,
        isNF4 ? 0x31262d18u : isMXFP4 ? 0xb8008000u : 0x9d558000u, isNF4 ? 0x356833e0u : isMXFP4 ? 0xbe00bc00u : 0xbc00b955u,
        isNF4 ? 0x3880370du : isMXFP4 ? 0xc200c000u : 0xb800b555u, isNF4 ? 0x3c0039c9u : isMXFP4 ? 0xc600c400u : 0xb400b155u};
    const u32 quads[4] = {code & 8 ? pairs[4] : pairs[0], code & 8 ? pairs[5] : pairs[1], code & 8 ? pairs[6] : pairs[2],
                          code & 8 ? pairs[7] : pairs[3]};
    const u32 low = code & 4 ? quads[2] : quads[0], high = code & 4 ? quads[3] : quads[1];
    return (code & 2 ? high : low) >> (code & 1 ? 16 : 0) & 0xffffu;
}

// table[byte][lane], entries `Stride` bytes apart: the float16 values of the byte's two codes, one copy per lane. By 256 threads.
template <int Stride>
__device__ __forceinline__ void fillSpreadTable(u8 *table, int codebook) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, byte = threadIdx.x;
    const u32 entry = halfValue(codebook, byte >> 4) | halfValue(codebook, byte & 15) << 16;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const u32 v = __shfl_sync(~0u, entry, 4 * i + (lane >> 3));
        *(uint4 *)(table + (warp * 32 + 4 * i + (lane >> 3)) * Stride + (lane & 7) * 16) = make_uint4(v, v, v, v);
    }
}

// The entry of byte j of a word, in a spread table at a shared address whose entries are 256 bytes apart. `laneOffset`: of the
// lane's copy.
__device__ __forceinline__ u32 spreadEntry(u32 table, u32 laneOffset, u32 word, int j) {
    u32 v;
    asm("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(table + __byte_perm(word, laneOffset, 0x5504 | j << 4)));
    return v;
}

// Sixteen bytes of shared memory.
__device__ __forceinline__ uint4 loadSharedQuad(u32 address) {
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address) : "memory");
    return v;
}

// table[byte][lane]: the float16 values of the byte's two codes, one copy per lane. Filled by the first 256 threads.
__device__ __forceinline__ void fillTable(u32 *table, int codebook) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, byte = threadIdx.x;
    if (byte >= 256) return;
    const u32 entry = halfValue(codebook, byte >> 4) | halfValue(codebook, byte & 15) << 16;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const u32 v = __shfl_sync(~0u, entry, 4 * i + (lane >> 3));
        ((uint4 *)table)[(warp * 32 + 4 * i + (lane >> 3)) * 8 + (lane & 7)] = make_uint4(v, v, v, v);
    }
}

// table[byte][lane][part]: part 0 as above, part 1 the rounding error of each value times 4096.
__device__ __forceinline__ void fillExactTable(u32 *table, int codebook) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, byte = threadIdx.x;
    if (byte >= 256) return;
    const float first = codeValue(codebook, byte >> 4), second = codeValue(codebook, byte & 15);
    const u32 high = packPair<f16>(first, second);
    const u32 low =
        packPair<f16>((first - toFloat(fromFloat<f16>(first))) * 4096.f, (second - toFloat(fromFloat<f16>(second))) * 4096.f);
    for (int i = 0; i < 32; ++i) {
        const u32 h = __shfl_sync(~0u, high, i), l = __shfl_sync(~0u, low, i);
        ((uint2 *)table)[(warp * 32 + i) * 32 + lane] = make_uint2(h, l);
    }
}
