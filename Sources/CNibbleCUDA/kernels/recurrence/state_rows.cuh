// Where the tokens and states of a row lie, for the kernels of recurrent mixers.
#pragma once
#include "common.cuh"

struct StateRow {
    long long first;  // token
    int count;        // tokens; 0 where there is nothing to do
    bool begins;      // from zeros
    long long from;   // blocks of the states
    long long to;
};

// A row whose blocks are none of the states' has no tokens.
__device__ __forceinline__ StateRow findRow(const NibbleStateRows &rows, int r) {
    StateRow row;
    row.first = rows.queryOffsets[r];
    row.count = rows.queryOffsets[r + 1] - (int)row.first;
    const int end = rows.lengths[r], start = end - row.count, last = (end - 1) / NIBBLE_CACHE_BLOCK;
    row.begins = start == 0;
    row.from = row.to = -1;
    if (row.count > 0 && start >= 0 && last < rows.blockTableStride) {
        const int *table = rows.blockTable + (long long)r * rows.blockTableStride;
        row.to = table[last];
        row.from = start > 0 ? table[(start - 1) / NIBBLE_CACHE_BLOCK] : row.to;
    }
    if (row.from < 0 || row.to < 0 || row.from >= rows.blocks || row.to >= rows.blocks) row.count = 0;
    return row;
}

__device__ __forceinline__ float softplus(float x) { return x > 20.f ? x : log1pf(expf(x)); }

__device__ __forceinline__ float loadAs(const NibbleColumns &columns, long long token, int column) {
    return loadAs(columns.first, token * columns.stride + column, columns.type);
}

// Elements n ..< n + 4 of a row of `count` floats, which begins at a multiple of 16 bytes if `count` is a multiple of 4; zeros
// beyond it.
__device__ __forceinline__ float4 loadFour(const float *row, int n, int count) {
    if (count % 4 == 0) return n < count ? *(const float4 *)(row + n) : make_float4(0.f, 0.f, 0.f, 0.f);
    return make_float4(n < count ? row[n] : 0.f, n + 1 < count ? row[n + 1] : 0.f, n + 2 < count ? row[n + 2] : 0.f,
                       n + 3 < count ? row[n + 3] : 0.f);
}

__device__ __forceinline__ void storeFour(float *row, int n, int count, float4 x) {
    if (count % 4 == 0) {
        if (n < count) *(float4 *)(row + n) = x;
        return;
    }
    if (n < count) row[n] = x.x;
    if (n + 1 < count) row[n + 1] = x.y;
    if (n + 2 < count) row[n + 2] = x.z;
    if (n + 3 < count) row[n + 3] = x.w;
}
