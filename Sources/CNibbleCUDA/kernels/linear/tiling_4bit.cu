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

// A warp dequantizes one tile. It passes through shared memory, so that whole lines are written.
template <typename T>
__device__ __forceinline__ void dequantize4TiledBody(const NibbleDequantizeArguments &a) {
    constexpr int perWord = 4 / sizeof(T) > 0 ? 4 / sizeof(T) : 1;  // elements in 32 bits
    constexpr int rowWords = 64 / perWord, pad = 4;
    __shared__ float values[16];
    __shared__ u32 shared[8][16][rowWords + pad];
    if (threadIdx.x < 16) values[threadIdx.x] = codeValue(a.codebook, threadIdx.x);
    __syncthreads();
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const long long K64 = a.inFeatures / 64, across = (K64 + 1) / 2 * 2, N = a.part.outFeatures;
    const long long tile = (long long)blockIdx.x * 8 + warp;
    const long long row0 = tile / across * 16, kb = tile % across;
    if (row0 >= N || kb >= K64) return;
    const int g = lane >> 2, t = lane & 3;
    const bool arePowers = a.part.nestedCodes && !a.part.nestedAbsmax;
    float scale[2][2];  // of row g and row g + 8, for each half of the columns
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const long long row = row0 + g + 8 * h;
        const long long place = tile / 2 * 32 + scalePlace(g + 8 * h, (int)(kb & 1));
        if (row >= N)
            scale[h][0] = 0.f;
        else if (!a.part.nestedCodes)
            scale[h][0] = a.part.scales[place];
        else if (!arePowers)
            scale[h][0] = nestedScale(a.part.nestedCodes[place], a.part.nestedAbsmax[(row * K64 + kb) >> 8], a.part.nestedOffset);
        else
            scale[h][0] = powerOfTwo(a.part.nestedCodes[tile / 2 * 64 + powerPlace(g + 8 * h, (int)(kb & 1), 0)]);
        scale[h][1] = row < N && arePowers
                          ? powerOfTwo(a.part.nestedCodes[tile / 2 * 64 + powerPlace(g + 8 * h, (int)(kb & 1), 1)])
                          : scale[h][0];
    }
    const uint4 codes = loadStreaming((const uint4 *)a.part.weight + tile * 32 + lane);
    const u32 words[4] = {codes.x, codes.y, codes.z, codes.w};
#pragma unroll
    for (int s = 0; s < 4; ++s)
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const u32 byte = words[s] >> (8 * j) & 255;
            const float factor = scale[j & 1][s >> 1];
            const float x = __fmul_rn(values[byte >> 4], factor), y = __fmul_rn(values[byte & 15], factor);
            const int row = g + 8 * (j & 1), column = 16 * s + 2 * t + 8 * (j >> 1);
            if constexpr (sizeof(T) == 4)
                *(float2 *)&shared[warp][row][column] = make_float2(x, y);
            else
                shared[warp][row][column / 2] = packPair<T>(x, y);
        }
    __syncwarp();
    constexpr int lanesPerRow = rowWords / 4;
#pragma unroll
    for (int i = lane; i < 16 * lanesPerRow; i += 32) {
        const int row = i / lanesPerRow, chunk = i % lanesPerRow;
        if (row0 + row < N)
            *(uint4 *)((T *)a.output + (row0 + row) * a.inFeatures + kb * 64 + chunk * 4 * perWord) =
                *(uint4 *)&shared[warp][row][chunk * 4];
    }
}

#define INSTANCE(T)                                                                      \
    extern "C" __global__ void __launch_bounds__(256)                                    \
        dequantize_4bit_tiled_##T(const __grid_constant__ NibbleDequantizeArguments a) { \
        dequantize4TiledBody<T>(a);                                                      \
    }
NIBBLE_FOR_TYPES(INSTANCE)
