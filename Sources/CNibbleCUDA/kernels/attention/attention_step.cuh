// Shared by attend_step: where a row's keys are split, and the projections of the new token.
#pragma once
#include "attention.cuh"
#include "mma.cuh"

#define STEP_TILE NIBBLE_STEP_TILE
#define STEP_GROUPS NIBBLE_STEP_GROUPS
#define STEP_HEADS NIBBLE_STEP_HEADS

// 16 bytes as loadWritten gives them, or zeros; no branch.
__device__ __forceinline__ uint4 loadWrittenOrZero(const void *p, bool isValid) {
    uint4 v;
    asm volatile(
        "{\n\t.reg .pred q;\n\tsetp.ne.s32 q, %5, 0;\n\tmov.b32 %0, 0;\n\tmov.b32 %1, 0;\n\tmov.b32 %2, 0;\n\tmov.b32 %3, 0;\n\t"
        "@q ld.global.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];\n\t}"
        : "=&r"(v.x), "=&r"(v.y), "=&r"(v.z), "=&r"(v.w)
        : "l"(p), "r"((int)isValid));
    return v;
}

// Reads a result that another block wrote, bypassing L1.
__device__ __forceinline__ float4 loadFresh4(const float *p) {
    float4 v;
    asm volatile("ld.global.cg.v4.f32 {%0,%1,%2,%3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(p) : "memory");
    return v;
}

// a / b of small numbers, in fewer instructions than the division of integers.
__device__ __forceinline__ int smallQuotient(int a, int b) { return (int)__fdividef((float)a + 0.5f, (float)b); }

// The keys that a row's query sees and how they are divided. Depends on the row alone, so that its result does, too.
struct StepSplits {
    int firstKey, lastKey;  // the query sees keys first ..< last
    int keys;               // of a split, a multiple of the tiles
    int first, count;       // splits that hold keys which the query sees; one where it sees none

    __device__ __forceinline__ StepSplits(const NibbleAttentionArguments &a, int position, int length) {
        const ScoreRule rule(a, 0);
        firstKey = rule.first(position);
        lastKey = rule.last(position, length);
        keys = a.splitLength;
        while (keys * a.maximumSplits < length) keys *= 2;
        const int shift = __ffs(keys) - 1;  // a power of two
        first = lastKey > firstKey ? firstKey >> shift : 0;
        count = lastKey > firstKey ? (lastKey - 1 >> shift) - first + 1 : 1;
    }
};

// The new token's heads of a block: its queries, then key and value, rounded to T, with zeros up to D elements. Rows are
// apart by D + 32 elements, which keeps reads of neighbouring rows free of bank conflicts.
template <typename T, int D>
struct StepHeads {
    T rows[STEP_HEADS + 2][D + 32];

    __device__ __forceinline__ uint4 at(int row, int d) const { return *(const uint4 *)(rows[row] + d); }
    __device__ __forceinline__ uint4 key(int d) const { return at(STEP_HEADS, d); }
    __device__ __forceinline__ uint4 value(int d) const { return at(STEP_HEADS + 1, d); }
};

// What a thread does to the new token: two runs of eight elements of a head are normalized, rotated and stored. `prepare` reads
// only what no kernel writes, so it may run before the preceding kernel has completed.
template <typename T, int D>
struct StepItem {
    static constexpr int perHead = D / 16;  // threads, side by side in a warp
    const NibbleRotateArguments &r;
    const T *head;
    T *cached;        // of the new key or value, or null
    int row, number;  // in StepHeads; of the head among its kind
    int place[2];     // where the runs begin
    bool isMine, isQuery, isValue;
    bool rotates[2];
    float cosines[8], sines[8];  // of eight pairs, one element from each run; interleaved: of four pairs in each run
    float factor = 1.f;

    __device__ __forceinline__ explicit StepItem(const NibbleRotateArguments &r) : r(r) {}

    // Of `count` queries from `firstHead` on and, if `hasKey`, key and value of head g. `slot`: where the cache takes these, in
    // positions of a head, or negative.
    __device__ __forceinline__ void prepare(int t, int position, int g, int firstHead, int count, bool hasKey, long long slot) {
        const int heads = count + (hasKey ? 2 : 0), h = min((int)threadIdx.x / perHead, heads - 1), i = threadIdx.x % perHead;
        isMine = threadIdx.x < heads * perHead, isQuery = h<count, isValue = h> count;
        row = isQuery ? h : STEP_HEADS + h - count;
        number = isQuery ? firstHead + h : g;
        const NibbleHeads &where = isQuery ? r.query : isValue ? r.value : r.key;
        const int run = smallQuotient(number, where.group);
        head =
            (const T *)r.projections + t * r.width + where.offset + run * where.stride + (number - run * where.group) * r.keySize;
        cached = isQuery || slot < 0 ? nullptr : (T *)(isValue ? r.values : r.keys) + slot * r.keySize;
        const int half = r.cosines && !isValue ? r.rotated / 2 : 0;
        const bool isPair = !r.isInterleaved && 8 * i < half;
        place[0] = isPair ? 8 * i : 16 * i;
        place[1] = isPair ? 8 * i + half : 16 * i + 8;
        const float *c = r.cosines + (long long)min(max(position, 0), r.rotaryPositions - 1) * half + 8 * i;
        const float *s = r.sines + (c - r.cosines);
#pragma unroll
        for (int k = 0; k < 2; ++k) {
            rotates[k] = isPair || (r.isInterleaved && place[k] < 2 * half);
            const float4 x = rotates[k] ? ((const float4 *)c)[k] : make_float4(1.f, 1.f, 1.f, 1.f);
            const float4 y = rotates[k] ? ((const float4 *)s)[k] : make_float4(0.f, 0.f, 0.f, 0.f);
            cosines[4 * k] = x.x, cosines[4 * k + 1] = x.y, cosines[4 * k + 2] = x.z, cosines[4 * k + 3] = x.w;
            sines[4 * k] = y.x, sines[4 * k + 1] = y.y, sines[4 * k + 2] = y.z, sines[4 * k + 3] = y.w;
        }
        if (isQuery && r.temperatureBeta != 0.f) factor += r.temperatureBeta * logf(1.f + max(position, 0) / r.temperatureLength);
    }

    __device__ __forceinline__ void finish(StepHeads<T, D> &heads) const {
        float x[2][8] = {};
        uint4 raw[2] = {};
        const bool isInside[2] = {isMine && place[0] < r.keySize, isMine && place[1] < r.keySize};
        if (((unsigned long long)head & 15) == 0) {
#pragma unroll
            for (int k = 0; k < 2; ++k)
                if (isInside[k]) raw[k] = *(const uint4 *)(head + place[k]);
        } else {
            for (int k = 0; k < 2; ++k) {
                T *mine = heads.rows[row] + place[k];
                for (int j = 0; isInside[k] && j < 8; ++j) mine[j] = head[place[k] + j];
                if (isInside[k]) raw[k] = *(const uint4 *)mine;
            }
        }
#pragma unroll
        for (int k = 0; k < 2; ++k) unpack(raw[k], x[k], T());
        if (r.normScope) normalize(x);
#pragma unroll
        for (int k = 0; k < 2; ++k)
            if (r.clip > 0.f)
#pragma unroll
                for (int j = 0; j < 8; ++j) x[k][j] = fminf(fmaxf(x[k][j], -r.clip), r.clip);
        rotate(x);
        if (!isMine) return;
#pragma unroll
        for (int k = 0; k < 2; ++k) {
            if (factor != 1.f)
#pragma unroll
                for (int j = 0; j < 8; ++j) x[k][j] *= factor;
            const uint4 packed = packEight<T>(x[k]);
            *(uint4 *)(heads.rows[row] + place[k]) = packed;
            if (cached && place[k] < r.keySize) *(uint4 *)(cached + place[k]) = packed;
        }
    }

   private:
    __device__ __forceinline__ void rotate(float (&x)[2][8]) const {
        if (r.isInterleaved) {
#pragma unroll
            for (int k = 0; k < 2; ++k)
                if (rotates[k])
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        const float c = cosines[4 * k + j], s = sines[4 * k + j], even = x[k][2 * j], odd = x[k][2 * j + 1];
                        x[k][2 * j] = even * c - odd * s;
                        x[k][2 * j + 1] = odd * c + even * s;
                    }
        } else if (rotates[0]) {
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                const float low = x[0][j], high = x[1][j];
                x[0][j] = low * cosines[j] - high * sines[j];
                x[1][j] = high * cosines[j] + low * sines[j];
            }
        }
    }

    // Over the threads of a head.
    static __device__ __forceinline__ float total(float x) {
#pragma unroll
        for (int step = 1; step < perHead; step <<= 1) x += __shfl_xor_sync(~0u, x, step);
        return x;
    }

    // Called by whole warps.
    __device__ __forceinline__ void normalize(float (&x)[2][8]) const {
        const bool isLayerNorm = isQuery ? r.queryIsLayerNorm : r.keyIsLayerNorm;
        float mean = 0.f, squares = 0.f;
        if (isLayerNorm) {
#pragma unroll
            for (int j = 0; j < 16; ++j) mean += x[j >> 3][j & 7];
            mean = total(mean) / r.keySize;
        }
#pragma unroll
        for (int j = 0; j < 16; ++j) {
            const float y = x[j >> 3][j & 7] - mean;
            if (place[j >> 3] < r.keySize) squares += y * y;
        }
        const float scale = 1.f / sqrtf(total(squares) / r.keySize + (isQuery ? r.queryEpsilon : r.keyEpsilon));
        if (isValue) return;
        const float *weight = isQuery ? r.queryWeight : r.keyWeight, *bias = isQuery ? r.queryBias : r.keyBias;
        const int skip = (isQuery ? r.queryWeightCount : r.keyWeightCount) > r.keySize ? number * r.keySize : 0;
#pragma unroll
        for (int j = 0; j < 16; ++j) {
            const int k = j >> 3, d = skip + place[k] + (j & 7);
            if (place[k] >= r.keySize) continue;
            float y = (x[k][j & 7] - mean) * scale;
            if (weight) y *= weight[d];
            if (bias) y += bias[d];
            x[k][j & 7] = y;
        }
    }
};
