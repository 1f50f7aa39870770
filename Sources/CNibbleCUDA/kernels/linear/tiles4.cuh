// The tiled 4-bit layout: the canonical codes and scales in the order of tensor-core fragments.
//
// A tile has 16 rows and 64 columns: 512 bytes, 16 bytes per lane of a warp. Tiles are ordered along K, padded to an even number,
// then along N; padding is zero. Lane 4 g + t holds four words, one for each 16 columns; word s holds four bytes:
//   row g, columns 16 s + 2 t, + 1;  row g + 8, same columns;  row g, columns 16 s + 2 t + 8, + 9;  row g + 8, same columns
// The scales of two neighbouring tiles follow the same order: for each g those of row g (first tile, second tile), then of
// row g + 8. Everything is a permutation of the canonical layout and can be undone. Second-level scales stay as they are.
// Needs K divisible by 64 and quantization blocks of 64 elements, or of 32 where scales are powers of two. Those have one byte
// each, the exponent: for each g the four of row g (two of each tile), then of row g + 8.
#pragma once
#include "mma.cuh"
#include "codebooks.cuh"

// Offset of byte j (0 ... 3) of word s of lane `lane`, relative to row 0, column 0 of a tile, in canonical bytes.
__device__ __forceinline__ long long canonicalOffset(int lane, int s, int j, long long rowBytes) {
    return ((lane >> 2) + 8 * (j & 1)) * rowBytes + 8 * s + (lane & 3) + 4 * (j >> 1);
}

// Activations enter the tensor cores as float16, scaled by a power of two per token: bfloat16 and float16 values are exact down
// to 2^-29 of the token's largest, and none is out of range. `largest` holds the bits of max |x|. Returns the factor; its
// reciprocal goes to `inverse`.
__device__ __forceinline__ float factorToHalf(u32 largest, float &inverse) {
    const int exponent = max((int)(largest >> 23) - 127, -100);
    inverse = __uint_as_float((u32)(113 + exponent) << 23);
    return __uint_as_float((u32)(141 - exponent) << 23);
}

__device__ __forceinline__ u32 warpMaxBits(u32 x) {
#if __CUDA_ARCH__ >= 800
    return __reduce_max_sync(~0u, x);
#else
#pragma unroll
    for (int d = 16; d > 0; d >>= 1) x = max(x, __shfl_xor_sync(~0u, x, d));
    return x;
#endif
}

// Over a block of up to 1024 threads; every thread gets the result. May be called repeatedly.
__device__ __forceinline__ u32 blockMaxBits(u32 x) {
    __shared__ u32 partial[32];
    x = warpMaxBits(x);
    __syncthreads();
    if ((threadIdx.x & 31) == 0) partial[threadIdx.x >> 5] = x;
    __syncthreads();
    return warpMaxBits((threadIdx.x & 31) < (blockDim.x + 31) / 32 ? partial[threadIdx.x & 31] : 0);
}

// Place of the scale of row r (0 ... 15), column tile e (0 or 1) of a pair of tiles.
__device__ __forceinline__ int scalePlace(int r, int e) { return (r & 7) * 4 + (r >> 3) * 2 + e; }

// The same for a power of two: of half b (0 or 1) of the tile.
__device__ __forceinline__ int powerPlace(int r, int e, int b) { return (r & 7) * 8 + (r >> 3) * 4 + e * 2 + b; }

// The first-level scales of a weight.
enum ScaleKind { plainScales, nestedScales, powersOfTwo };

// Blocks of a row in a tile.
__host__ __device__ constexpr int blocksOfTile(ScaleKind kind) { return kind == powersOfTwo ? 2 : 1; }

// The power whose exponent is byte i of a word.
__device__ __forceinline__ float powerOfWord(u32 exponents, int i) {
    const u32 bits = (i < 3 ? exponents << (23 - 8 * i) : exponents >> 1) & 0x7f800000u;
    return __uint_as_float(max(bits, 0x400000u));  // 2^-127 is subnormal
}

__device__ __forceinline__ void powersOfWord(u32 exponents, float (&powers)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) powers[i] = powerOfWord(exponents, i);
}
