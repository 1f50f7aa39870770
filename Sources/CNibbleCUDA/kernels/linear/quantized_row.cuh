// Rows of activations on their way to int8, for LLM.int8().
#pragma once
#include "outliers.cuh"
#include "row_input.cuh"

// Eight neighbouring columns of a row, as products see them.
struct ColumnRun {
    float x[8];
    u32 outliers;  // a bit for each column
};

// The norm's weights for a thread's first runs, asked for before the kernel before this one has ended.
template <typename T, int Runs>
struct HeldWeights {
    float w[Runs][8];
    bool exist;

    __device__ __forceinline__ void load(const NibblePrologue &prologue, int K, int column, int step) {
        exist = sizeof(T) == 2 && prologue.kind == NIBBLE_PROLOGUE_RMS && prologue.weight && !prologue.bias;
#pragma unroll
        for (int p = 0; p < Runs; ++p)
            if (exist && column + p * step < K) loadEight(prologue.weight, column + p * step, NIBBLE_F32, w[p]);
    }
};

// A row to be quantized by a block; in each pass a thread has one run of eight columns.
template <typename T>
struct QuantizedRow {
    const int K;
    const float threshold;  // NaN without outliers
    const int roundsToHalf;
    const u8 *columnFlags;  // or null
    RowInput<T> input;

    // Bytes of a row of the input.
    static __device__ __forceinline__ long long rowBytes(const NibblePrologue &prologue, int K) {
        if (prologue.kind == NIBBLE_PROLOGUE_SILU) return 2LL * K * (int)sizeof(T);
        return (long long)K * (prologue.kind == NIBBLE_PROLOGUE_NONE ? (int)sizeof(T) : 4);
    }

    // `row`: of T, or of float32 with a norm or rounding.
    __device__ __forceinline__ QuantizedRow(const void *row, const NibblePrologue &prologue, int K, float threshold,
                                            int roundsToHalf, const u8 *columnFlags)
        : K(K),
          threshold(threshold > 0.f ? measuredThreshold(threshold, roundsToHalf) : __int_as_float(0x7fffffff)),
          roundsToHalf(roundsToHalf),
          columnFlags(columnFlags),
          input(row, prologue, K) {}

    // Columns k0 ..< k0 + 8; zeros past K. The prologue's result goes to `kept`, a row, if that is given. `weights`: the norm's
    // for these columns, or null.
    __device__ __forceinline__ ColumnRun load(int k0, T *kept, const float (&weights)[8], bool areHeld) const {
        ColumnRun run = {};
        if (k0 >= K) return run;
        loadValues(run.x, k0, kept, weights, areHeld);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            bool isOutlier = fabsf(measured(run.x[i], roundsToHalf)) >= threshold;
            if (columnFlags && k0 + i < K) isOutlier = isOutlier || columnFlags[k0 + i];
            run.outliers |= (u32)isOutlier << i;
        }
        return run;
    }

    __device__ __forceinline__ ColumnRun load(int k0, T *kept) const {
        const float none[8] = {};
        return load(k0, kept, none, false);
    }

    __device__ __forceinline__ void loadValues(float (&x)[8], int k0, T *kept, const float (&weights)[8], bool areHeld) const {
        if constexpr (sizeof(T) == 2) {
            if (input.isPrepared()) {
                if (input.prologue.kind == NIBBLE_PROLOGUE_SILU)
                    loadGated(x, k0);
                else if (areHeld)
                    loadNormalized(x, k0, weights);
                else
                    input.finish(input.fetch(k0 / 8), k0 / 8, x);
                if (kept) *(uint4 *)(kept + k0) = packEight<T>(x);
                return;
            }
            if (K % 8 == 0) return unpack(*(const uint4 *)((const T *)input.input + k0), x, T());
        }
#pragma unroll
        for (int i = 0; i < 8; ++i) x[i] = k0 + i < K ? toFloat(((const T *)input.input)[k0 + i]) : 0.f;
    }

    __device__ __forceinline__ void loadNormalized(float (&x)[8], int k0, const float (&weights)[8]) const {
        RowInput<T>::unpackFloats(input.fetch(k0 / 8), x);
#pragma unroll
        for (int i = 0; i < 8; ++i) x[i] = toFloat(fromFloat<T>((x[i] - input.mean) * input.scale * weights[i]));
    }

    __device__ __forceinline__ void loadGated(float (&x)[8], int k0) const {
        float up[8];
        unpack(*(const uint4 *)((const T *)input.input + k0), x, T());
        unpack(*(const uint4 *)((const T *)input.input + K + k0), up, T());
#pragma unroll
        for (int i = 0; i < 8; ++i) x[i] = toFloat(fromFloat<T>(x[i] / (1.f + expf(-x[i])) * up[i]));
    }

    // The largest of the run's columns that count for the row's scale: outliers do not, small values in outlier columns do.
    __device__ __forceinline__ float largest(const ColumnRun &run) const {
        float largest = 0.f;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const float v = fabsf(measured(run.x[i], roundsToHalf));
            if (!(v >= threshold)) largest = fmaxf(largest, v);
        }
        return largest;
    }

    static __device__ __forceinline__ float scaleOf(float absmax) { return absmax > 0.f ? __fdividef(127.f, absmax) : 0.f; }

    __device__ __forceinline__ uint2 quantized(const ColumnRun &run, float scale) const {
        u32 packed[2] = {0, 0};
#pragma unroll
        for (int i = 0; i < 8; ++i)
            if (!(run.outliers >> i & 1))
                packed[i >> 2] |= ((u32)__float2int_rn(__fmul_rn(measured(run.x[i], roundsToHalf), scale)) & 255)
                                  << (8 * (i & 3));
        return make_uint2(packed[0], packed[1]);
    }

    // The outliers alone, in a row of 16-bit T. Of 16 columns, the pairs 0, 2, 4, 6 come first, then the others: the order in
    // which products that take int8 weights four at a time see them.
    static __device__ __forceinline__ void storeOutliers(const ColumnRun &run, int k0, T *row) {
        float x[8];
#pragma unroll
        for (int i = 0; i < 8; ++i) x[i] = run.outliers >> i & 1 ? run.x[i] : 0.f;
        u8 *to = (u8 *)(row + (k0 & ~15)) + (k0 & 8);
        *(uint2 *)to = make_uint2(packPair<T>(x[0], x[1]), packPair<T>(x[4], x[5]));
        *(uint2 *)(to + 16) = make_uint2(packPair<T>(x[2], x[3]), packPair<T>(x[6], x[7]));
    }
};

// Notes the column tiles of 128 that have outliers, a bit each, by all lanes of a warp with neighbouring runs from a multiple of
// 256 columns on.
__device__ __forceinline__ void noteOutlierTiles(u32 *tiles, u32 lanesWithOutliers, int k0OfWarp) {
    const u32 lanes = lanesWithOutliers, pair = (u32)((lanes & 0xffff) != 0) | (u32)(lanes >> 16 != 0) << 1;
    if (pair && (threadIdx.x & 31) == 0) atomicOr(&tiles[k0OfWarp / 4096], pair << (k0OfWarp / 128 % 32));
}
