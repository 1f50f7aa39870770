// Converts between the canonical and the tiled 4-bit layout (tiles4.cuh), and dequantizes tiled weights.
#include "tiles4.cuh"

// A thread takes one word of the tiled codes. There are 32 or 64 scales for 256 words.
template <bool Undo>
__device__ __forceinline__ void permute(const NibbleTileArguments &a) {
    const long long rowBytes = a.inFeatures / 2, K64 = a.inFeatures / 64, pairs = (K64 + 1) / 2;
    const long long i = (long long)blockIdx.x * 256 + threadIdx.x, pair = i >> 8, rowTile = pair / pairs;
    if (rowTile >= (a.outFeatures + 15) / 16) return;
    const int s = (int)(i & 3), lane = (int)(i >> 2) & 31;
    const long long kb = pair % pairs * 2 + ((i >> 7) & 1);
    const long long base = rowTile * 16 * rowBytes + kb * 32, end = (long long)a.outFeatures * rowBytes;
    if (a.source) {
        u32 word = Undo ? ((const u32 *)a.source)[i] : 0;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const long long offset = base + canonicalOffset(lane, s, j, rowBytes);
            if (offset >= end || kb >= K64) continue;
            if (Undo)
                a.destination[offset] = (u8)(word >> (8 * j));
            else
                word |= (u32)a.source[offset] << (8 * j);
        }
        if (!Undo) ((u32 *)a.destination)[i] = word;
    }
    const int perTile = a.scalesPerTile;
    if ((i & 255) >= 32 * perTile) return;
    const int row = (int)(i & 15), e = (int)(i >> 4) & 1, b = (int)(i >> 5) & 1;
    const long long tile = pair % pairs * 2 + e, block = ((rowTile * 16 + row) * K64 + tile) * perTile + b;
    const long long tiled = pair * 32 * perTile + (perTile == 1 ? scalePlace(row, e) : powerPlace(row, e, b));
    const bool exists = rowTile * 16 + row < a.outFeatures && tile < K64;
    if (a.sourceScales) {
        if (!Undo)
            a.destinationScales[tiled] = exists ? a.sourceScales[block] : 0.f;
        else if (exists)
            a.destinationScales[block] = a.sourceScales[tiled];
    }
    if (a.sourceNested) {
        if (!Undo)
            a.destinationNested[tiled] = exists ? a.sourceNested[block] : 0;
        else if (exists)
            a.destinationNested[block] = a.sourceNested[tiled];
    }
}

#if !defined(NIBBLE_ONLY_F16) && !defined(NIBBLE_ONLY_BF16)
extern "C" __global__ void __launch_bounds__(256) tile_4bit(const __grid_constant__ NibbleTileArguments a) { permute<false>(a); }
extern "C" __global__ void __launch_bounds__(256) untile_4bit(const __grid_constant__ NibbleTileArguments a) { permute<true>(a); }
#endif

// The first-level scales of a pair of tiles that a lane needs: of row g and row g + 8 of each, and where they are powers of two,
// of each half of the columns. Rows and tiles that do not exist have any.
struct PairScales {
    float value[2][2][2];  // [tile][row g or g + 8][half]
};

__device__ __forceinline__ PairScales loadPairScales(const NibbleLinearLayer &part, u32 pair, int g, u32 firstBlock,
                                                     u32 tilesOfRow) {
    PairScales scales;
    if (!part.nestedCodes) {
        const float4 four = __ldg((const float4 *)part.scales + pair * 8ull + g);
        const float values[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) scales.value[i & 1][i >> 1][0] = scales.value[i & 1][i >> 1][1] = values[i];
    } else if (part.nestedAbsmax) {
        const u32 codes = __ldg((const u32 *)part.nestedCodes + pair * 8ull + g);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const u32 block = firstBlock + (i >> 1) * 8 * tilesOfRow + (i & 1);
            const float absmax = part.nestedAbsmax[min(block, (u32)part.outFeatures * tilesOfRow - 1) >> 8];
            scales.value[i & 1][i >> 1][0] = scales.value[i & 1][i >> 1][1] =
                nestedScale(codes >> (8 * i) & 255, absmax, part.nestedOffset);
        }
    } else {
        const uint2 exponents = __ldg((const uint2 *)part.nestedCodes + pair * 8ull + g);
#pragma unroll
        for (int i = 0; i < 8; ++i)
            scales.value[i >> 1 & 1][i >> 2][i & 1] = powerOfTwo((i < 4 ? exponents.x : exponents.y) >> (8 * (i & 3)) & 255);
    }
    return scales;
}

// Exchanges codes among the four lanes of a row, so that each has eight neighbouring columns in a word. Before, word s of lane t
// has columns 16 s + 2 t, 16 s + 2 t + 8 and the columns after them, of row g in bytes 0 and 2 and of row g + 8 in bytes 1 and 3.
// After, word 2 q + r has columns 32 q + 8 t ... 32 q + 8 t + 7 of row g + 8 r.
__device__ __forceinline__ void gatherColumns(u32 (&words)[4], int t) {
    const bool isOdd = t & 1, isUpper = t & 2;
    // Even lanes keep columns 16 s ... 16 s + 7 and odd lanes the eight after them.
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        const u32 sent = __byte_perm(words[i], words[i + 1], isOdd ? 0x5410 : 0x7632);
        const u32 received = __shfl_xor_sync(~0u, sent, 1);
        // Bytes: row g of the even and of the odd lane, then row g + 8.
        words[i] = __byte_perm(words[i], received, isOdd ? 0x3524 : 0x5140);
        words[i + 1] = __byte_perm(words[i + 1], received, isOdd ? 0x3726 : 0x7160);
    }
    // Lanes 0 and 1 keep the even words, lanes 2 and 3 the odd ones.
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        const u32 kept = isUpper ? words[i + 1] : words[i];
        const u32 received = __shfl_xor_sync(~0u, isUpper ? words[i] : words[i + 1], 2);
        words[i] = __byte_perm(kept, received, isUpper ? 0x1054 : 0x5410);
        words[i + 1] = __byte_perm(kept, received, isUpper ? 0x3276 : 0x7632);
    }
}

// Exchanges words of neighbouring rows, so that the eight lanes of two rows have all of each row in turn. After, word 2 p + r of
// lanes g has columns 32 (g & 1) + 8 t ... + 7 of row (g & ~1) + p + 8 r.
__device__ __forceinline__ void gatherRows(u32 (&words)[4], bool isOddRow) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const u32 received = __shfl_xor_sync(~0u, isOddRow ? words[r] : words[2 + r], 4);
        const u32 first = isOddRow ? received : words[r], second = isOddRow ? words[2 + r] : received;
        words[r] = first;
        words[2 + r] = second;
    }
}

template <typename T>
__device__ __forceinline__ void dequantizeEight(u32 word, float scale, const float *values, T *output) {
    float x[8];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        x[2 * i] = __fmul_rn(values[word >> (8 * i + 4) & 15], scale);
        x[2 * i + 1] = __fmul_rn(values[word >> (8 * i) & 15], scale);
    }
    if constexpr (sizeof(T) == 4) {
        ((float4 *)output)[0] = make_float4(x[0], x[1], x[2], x[3]);
        ((float4 *)output)[1] = make_float4(x[4], x[5], x[6], x[7]);
    } else {
        *(uint4 *)output = packEight<T>(x);
    }
}

// A warp dequantizes a pair of tiles that are neighbours in K.
template <typename T>
__device__ __forceinline__ void dequantize4TiledBody(const NibbleDequantizeArguments &a) {
    __shared__ float values[16];
    if (threadIdx.x < 16) values[threadIdx.x] = codeValue(a.codebook, threadIdx.x);
    const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    const u32 K = a.inFeatures, N = a.part.outFeatures, K64 = K / 64, across = (K64 + 1) / 2;
    const u32 pair = blockIdx.x * 8 + (threadIdx.x >> 5), rowTile = pair / across, kb = (pair - rowTile * across) * 2;
    const int even = g & ~1, half = g & 1;
    const u32 row = rowTile * 16 + even;
    const bool exists = rowTile * 16 < N;
    uint4 codes[2];
    PairScales scales[2];
    if (exists) {
        const uint4 *tile = (const uint4 *)a.part.weight + pair * 64ull + lane;
        codes[0] = loadStreaming(tile);
        codes[1] = loadStreaming(tile + 32);
#pragma unroll
        for (int p = 0; p < 2; ++p) scales[p] = loadPairScales(a.part, pair, even + p, (row + p) * K64 + kb, K64);
    }
    releaseDependents();
    waitForPredecessors();  // they may read what is overwritten
    __syncthreads();
    if (!exists) return;
#pragma unroll
    for (int e = 0; e < 2; ++e) {
        if (kb + e >= K64) return;
        u32 words[4] = {codes[e].x, codes[e].y, codes[e].z, codes[e].w};
        gatherColumns(words, t);
        gatherRows(words, half);
        T *output = (T *)a.output + (unsigned long long)row * K + (kb + e) * 64 + 32 * half + 8 * t;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int p = i >> 1, r = i & 1;
            const float scale = half ? scales[p].value[e][r][1] : scales[p].value[e][r][0];
            if (row + p + 8 * r < N) dequantizeEight(words[i], scale, values, output + (p + 8ull * r) * K);
        }
    }
}

#define INSTANCE(T)                                                                      \
    extern "C" __global__ void __launch_bounds__(256)                                    \
        dequantize_4bit_tiled_##T(const __grid_constant__ NibbleDequantizeArguments a) { \
        dequantize4TiledBody<T>(a);                                                      \
    }
NIBBLE_FOR_TYPES(INSTANCE)
