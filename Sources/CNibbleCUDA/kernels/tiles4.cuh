// The tiled 4-bit layout: the canonical codes in the order in which tensor cores take them.
//
// A tile is 16 rows by 64 columns: 512 bytes, lane after lane of a warp 16 bytes. Tiles of 16 rows follow each other along K,
// then along N; rows past N are zero bytes. Lane 4 g + t holds four words, one for each 16 columns; word s holds four bytes:
//   row g, columns 16 s + 2 t, + 1;  row g + 8, same columns;  row g, columns 16 s + 2 t + 8, + 9;  row g + 8, same columns
// A byte is a byte of the canonical layout, so packing is a permutation and can be undone. Scales stay as they are.
// Needs K divisible by 64 and quantization blocks of 64 elements or more.
#pragma once
#include "mma.cuh"
#include "codebooks.cuh"

// Offset of byte j (0 ... 3) of word s of lane `lane`, relative to row 0, column 0 of a tile, in canonical bytes.
__device__ __forceinline__ long long canonicalOffset(int lane, int s, int j, long long rowBytes) {
    return ((lane >> 2) + 8 * (j & 1)) * rowBytes + 8 * s + (lane & 3) + 4 * (j >> 1);
}

// Activations enter the tensor cores as float16, scaled by a power of two for each 64 of them: exact for every bfloat16 and
// float16 within 2^-29 of the largest of its 64, and never out of range. `largest` holds the bits of max |x|.
// Returns the factor; its reciprocal goes to `inverse`.
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

// A pair of neighbouring elements, for even `i` in rows of an even number of elements.
__device__ __forceinline__ float2 loadPair(const f32 *p) { return *(const float2 *)p; }
__device__ __forceinline__ float2 loadPair(const f16 *p) {
    const u32 w = *(const u32 *)p;
    return make_float2(toFloat(f16{(u16)w}), toFloat(f16{(u16)(w >> 16)}));
}
__device__ __forceinline__ float2 loadPair(const bf16 *p) {
    const u32 w = *(const u32 *)p;
    return make_float2(__uint_as_float(w << 16), __uint_as_float(w & 0xffff0000u));
}
