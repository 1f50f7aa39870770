// A 64 x 64 tile of input · weightᵀ on tensor cores, for elements of one or two bytes.
//
// Four warps of 32 x 32. K advances in steps of 128 bytes through three buffers of shared memory, whose 16-byte chunks are
// swizzled so that neither copies nor matrix loads have bank conflicts.
#pragma once
#include "mma.cuh"

#define TILE_STAGES 3

__device__ __forceinline__ void multiplyStep(f16 e, float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) { mmaK16(e, c, a, b0, b1); }
#if __CUDA_ARCH__ >= 800
__device__ __forceinline__ void multiplyStep(bf16 e, float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    mmaK16(e, c, a, b0, b1);
}
#endif
__device__ __forceinline__ void multiplyStep(i8 e, int (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) { mmaK32(e, c, a, b0, b1); }

// Rows of a matrix: `bytes` of data in each, `stride` bytes apart.
struct TileOperand {
    const u8 *base;
    long long stride;
    long long bytes;
    int rows;
    bool isAligned;  // base and stride are multiples of 16, and bytes past the
                     // end of a row are readable or bytes is one too
};

// Copies rows first ..< first + 64, bytes k ..< k + 128, zeros outside.
template <typename E>
__device__ __forceinline__ void copyTile(u8 *shared, const TileOperand &o, int first, long long k) {
#pragma unroll
    for (int i = threadIdx.x; i < 512; i += 128) {
        const int row = i >> 3, chunk = i & 7;
        u8 *destination = shared + row * 128 + ((chunk ^ (row & 7)) << 4);
        const long long at = k + chunk * 16;
        const bool rowExists = first + row < o.rows;
        const u8 *source = o.base + (long long)(rowExists ? first + row : 0) * o.stride + at;
        if (o.isAligned) {
            const bool valid = rowExists && at < o.bytes;
            copyAsync16(sharedAddress(destination), valid ? source : o.base, valid);
        } else {
#pragma unroll
            for (int j = 0; j < 16 / (int)sizeof(E); ++j) {
                const bool valid = rowExists && at + j * (int)sizeof(E) < o.bytes;
                ((E *)destination)[j] = valid ? *(const E *)(source + j * sizeof(E)) : E{};
            }
        }
    }
}

// c[i][j]: products of rows 16 i and columns 8 j of this warp's 32 x 32 part, as mma fragments.
template <typename E, typename A>
__device__ __forceinline__ void tileProduct(u8 *shared, const TileOperand &input, const TileOperand &weight, int m0, int n0,
                                            A (&c)[2][4][4]) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int rowInput = (warp >> 1) * 32 + (lane & 7) + ((lane >> 3) & 1) * 8;
    const int rowWeight = (warp & 1) * 32 + (lane & 7) + (lane >> 4) * 8;
    const long long bytes = weight.bytes;
    const int steps = (int)((bytes + 127) / 128);
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
#pragma unroll
            for (int l = 0; l < 4; ++l) c[i][j][l] = 0;
#pragma unroll
    for (int s = 0; s < TILE_STAGES - 1; ++s) {
        if (s < steps) {
            copyTile<E>(shared + s * 16384, input, m0, s * 128);
            copyTile<E>(shared + s * 16384 + 8192, weight, n0, s * 128);
        }
        commitCopies();
    }
    for (int step = 0; step < steps; ++step) {
        waitCopies<TILE_STAGES - 2>();
        __syncthreads();
        const int ahead = step + TILE_STAGES - 1;
        if (ahead < steps) {
            u8 *buffer = shared + ahead % TILE_STAGES * 16384;
            copyTile<E>(buffer, input, m0, (long long)ahead * 128);
            copyTile<E>(buffer + 8192, weight, n0, (long long)ahead * 128);
        }
        commitCopies();
        const u32 inputBase = sharedAddress(shared + step % TILE_STAGES * 16384), weightBase = inputBase + 8192;
#pragma unroll
        for (int part = 0; part < 4; ++part) {
            u32 a[2][4], b[2][4];
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const int row = rowInput + 16 * i, chunk = part * 2 + (lane >> 4);
                loadMatrices(a[i], inputBase + row * 128 + ((chunk ^ (row & 7)) << 4));
            }
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const int row = rowWeight + 16 * j, chunk = part * 2 + ((lane >> 3) & 1);
                loadMatrices(b[j], weightBase + row * 128 + ((chunk ^ (row & 7)) << 4));
            }
#pragma unroll
            for (int i = 0; i < 2; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) multiplyStep(E(), c[i][j], a[i], b[j >> 1][(j & 1) * 2], b[j >> 1][(j & 1) * 2 + 1]);
        }
    }
    waitCopies<0>();
}

// Lays a tile's products out as [64][68] in shared memory.
template <typename A>
__device__ __forceinline__ void gatherProducts(A *all, const A (&c)[2][4][4]) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
#pragma unroll
            for (int l = 0; l < 4; ++l) {
                const int m = (warp >> 1) * 32 + 16 * i + (lane >> 2) + 8 * (l >> 1);
                const int n = (warp & 1) * 32 + 8 * j + 2 * (lane & 3) + (l & 1);
                all[m * 68 + n] = c[i][j][l];
            }
}

// Calls store(m, n, value) for every product inside M x N; neighbouring threads handle neighbouring columns. The products pass
// through shared memory, so that `store` is instantiated once.
template <typename A, typename F>
__device__ __forceinline__ void forEachProduct(u8 *shared, const A (&c)[2][4][4], int m0, int n0, int M, int N, F store) {
    A *all = (A *)shared;
    __syncthreads();
    gatherProducts(all, c);
    __syncthreads();
    const int n = threadIdx.x & 63;
    if (n0 + n >= N) return;
#pragma unroll 1
    for (int m = threadIdx.x >> 6; m < 64 && m0 + m < M; m += 2) store(m0 + m, n0 + n, all[m * 68 + n]);
}
