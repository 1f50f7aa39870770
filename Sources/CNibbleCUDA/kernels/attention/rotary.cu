// Query and key norms, rotary embedding, and the write into the cache.
#include "cache_codes.cuh"

enum Part { queryPart, keyPart, valuePart };

struct HeadNorm {
    const float *weight;
    const float *bias;
    bool perHead;  // weight and bias have one entry for every head's element
    bool isLayerNorm;
    float epsilon;
};

// One token's heads of one part.
template <typename T>
struct Heads {
    T *row;
    NibbleHeads where;
    int size;
    float clip;

    __device__ __forceinline__ T *head(int h) const {
        return row + where.offset + (long long)(h / where.group) * where.stride + (long long)(h % where.group) * size;
    }

    __device__ __forceinline__ float load(const T *p, int d) const {
        const float x = toFloat(p[d]);
        return clip > 0.f ? fminf(fmaxf(x, -clip), clip) : x;
    }
};

// Mean and reciprocal deviation over heads first ..< last together.
template <typename T>
__device__ float2 statistics(const Heads<T> &heads, int first, int last, bool isLayerNorm, float epsilon) {
    const int count = (last - first) * heads.size;
    float mean = 0.f;
    if (isLayerNorm) {
        float sum = 0.f;
        for (int i = threadIdx.x; i < count; i += blockDim.x)
            sum += heads.load(heads.head(first + i / heads.size), i % heads.size);
        mean = blockSum(sum) / count;
    }
    float squares = 0.f;
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        const float x = heads.load(heads.head(first + i / heads.size), i % heads.size) - mean;
        squares += x * x;
    }
    return make_float2(mean, 1.f / sqrtf(blockSum(squares) / count + epsilon));
}

__device__ __forceinline__ float normalized(float x, float2 s, const HeadNorm &norm, int h, int d, int size) {
    const int i = norm.perHead ? h * size + d : d;
    x = (x - s.x) * s.y;
    if (norm.weight) x *= norm.weight[i];
    if (norm.bias) x += norm.bias[i];
    return x;
}

// The slot of a token in the cache, counted in positions of all heads, or -1.
__device__ __forceinline__ long long cacheRow(const NibbleBatch &b, int t, int head, int heads) {
    const int position = b.positions[t];
    const int logical = position / NIBBLE_CACHE_BLOCK;
    if (position < 0 || logical >= b.blockTableStride) return -1;
    const int block = b.blockTable[(long long)b.rows[t] * b.blockTableStride + logical];
    if (block < 0) return -1;
    return ((long long)block * heads + head) * NIBBLE_CACHE_BLOCK + position % NIBBLE_CACHE_BLOCK;
}

template <typename Load>
__device__ __forceinline__ void storeVector(const NibbleRotateArguments &a, void *memory, int size, long long slot, Load load) {
    const CodeLayout layout{size, a.cacheGroup, a.cacheBits};
    storeCodes((u8 *)memory + slot / NIBBLE_CACHE_BLOCK * layout.panelBytes(), layout, (int)(slot % NIBBLE_CACHE_BLOCK), load);
}

template <typename T>
__device__ void rotateHeads(const NibbleRotateArguments &a, int t, Part part, int first, int last) {
    const bool isQuery = part == queryPart;
    // Norms see what is not clipped.
    const Heads<T> heads{(T *)a.projections + t * a.width, isQuery ? a.query : a.key, a.keySize, 0.f};
    const int size = heads.size;
    const bool normFollows = a.normScope == 3, normPrecedes = a.normScope && !normFollows;
    const HeadNorm norm =
        isQuery ? HeadNorm{a.queryWeight, a.queryBias, a.queryWeightCount > size, a.queryIsLayerNorm != 0, a.queryEpsilon}
                : HeadNorm{a.keyWeight, a.keyBias, a.keyWeightCount > size, a.keyIsLayerNorm != 0, a.keyEpsilon};

    float2 s = make_float2(0.f, 1.f);
    if (a.normScope == 2) s = statistics(heads, first, last, norm.isLayerNorm, norm.epsilon);
    const int half = a.cosines ? a.rotated / 2 : 0;
    const int position = max(a.batch.positions[t], 0);
    const long long angle = (long long)min(position, a.rotaryPositions - 1) * half;
    const float factor =
        isQuery && a.temperatureBeta != 0.f ? 1.f + a.temperatureBeta * logf(1.f + position / a.temperatureLength) : 1.f;

    for (int h = first; h < last; h++) {
        if (a.normScope == 1) s = statistics(heads, h, h + 1, norm.isLayerNorm, norm.epsilon);
        __syncthreads();  // statistics read what is overwritten now
        T *p = heads.head(h);
        const long long slot = isQuery ? -1 : cacheRow(a.batch, t, h, a.key.heads);
        auto load = [&](int d) {
            float x = heads.load(p, d);
            if (normPrecedes) x = normalized(x, s, norm, h, d, size);
            return a.clip > 0.f ? fminf(fmaxf(x, -a.clip), a.clip) : x;
        };
        auto finish = [&](int d, float x) {
            p[d] = fromFloat<T>(x * factor);
            if (slot >= 0 && !a.cacheBits) storeAs(a.keys, slot * size + d, a.cacheType, x);
        };
        auto store = [&](int d, float x) {
            if (normFollows)
                p[d] = fromFloat<T>(x);
            else
                finish(d, x);
        };
        // One thread handles both elements of a pair, because they are rotated in place.
        for (int i = threadIdx.x; i < half; i += blockDim.x) {
            const int d0 = a.isInterleaved ? 2 * i : i;
            const int d1 = a.isInterleaved ? 2 * i + 1 : i + half;
            const float x = load(d0), y = load(d1);
            const float c = a.cosines[angle + i], n = a.sines[angle + i];
            store(d0, x * c - y * n);
            store(d1, y * c + x * n);
        }
        for (int d = 2 * half + threadIdx.x; d < size; d += blockDim.x) store(d, load(d));
        if (normFollows) {
            __syncthreads();
            s = statistics(heads, h, h + 1, norm.isLayerNorm, norm.epsilon);
            __syncthreads();  // statistics read what is overwritten now
            for (int d = threadIdx.x; d < size; d += blockDim.x) finish(d, normalized(toFloat(p[d]), s, norm, h, d, size));
        }
        if (slot >= 0 && a.cacheBits) {
            __syncthreads();  // groups are made of what other threads wrote
            storeVector(a, a.keys, size, slot, [&](int d) { return toFloat(p[d]); });
        }
    }
}

template <typename T>
__device__ void storeValues(const NibbleRotateArguments &a, int t, int first, int last) {
    // Norms see what is not clipped.
    const Heads<T> heads{(T *)a.projections + t * a.width, a.value, a.valueSize, 0.f};
    for (int h = first; h < last; h++) {
        const long long slot = cacheRow(a.batch, t, h, a.key.heads);
        if (slot < 0) return;
        const T *p = heads.head(h);
        const float factor = a.normsValues ? statistics(heads, h, h + 1, false, a.valueEpsilon).y : 1.f;
        auto load = [&](int d) {
            const float x = toFloat(p[d]) * factor;
            return a.clip > 0.f ? fminf(fmaxf(x, -a.clip), a.clip) : x;
        };
        if (a.cacheBits) {
            storeVector(a, a.values, heads.size, slot, load);
            continue;
        }
        for (int d = threadIdx.x; d < heads.size; d += blockDim.x) storeAs(a.values, slot * heads.size + d, a.cacheType, load(d));
    }
}

// grid (T, H + 2G), or (T, 3) when a norm spans all heads of a token; block 64
template <typename T>
__device__ void rotateBody(const NibbleRotateArguments &a) {
    beginKernel();
    const int t = blockIdx.x, y = blockIdx.y;
    if (a.normScope == 2) {
        if (y == 0)
            rotateHeads<T>(a, t, queryPart, 0, a.query.heads);
        else if (y == 1)
            rotateHeads<T>(a, t, keyPart, 0, a.key.heads);
        else
            storeValues<T>(a, t, 0, a.value.heads);
        return;
    }
    const int q = a.query.heads, k = a.key.heads;
    if (y < q)
        rotateHeads<T>(a, t, queryPart, y, y + 1);
    else if (y < q + k)
        rotateHeads<T>(a, t, keyPart, y - q, y - q + 1);
    else
        storeValues<T>(a, t, y - q - k, y - q - k + 1);
}

// The usual case, by accesses of 16 bytes: no norms, a dense cache of type T, sizes, halves and offsets that are multiples of 8.
// A thread takes eight elements of a head, or eight pairs. grid (T, (H + 2G) * threads a head / block rounded up)
template <typename T>
__device__ __forceinline__ void rotateEightBody(const NibbleRotateArguments &a) {
    beginKernel();
    const int perHead = max(a.keySize, a.valueSize) / 8, index = blockIdx.y * blockDim.x + threadIdx.x, t = blockIdx.x;
    const int y = index / perHead, d = index % perHead * 8, q = a.query.heads, k = a.key.heads;
    if (y >= q + 2 * k) return;
    const Part part = y < q ? queryPart : y < q + k ? keyPart : valuePart;
    const int h = part == queryPart ? y : part == keyPart ? y - q : y - q - k;
    const Heads<T> heads{(T *)a.projections + t * a.width,
                         part == queryPart ? a.query
                         : part == keyPart ? a.key
                                           : a.value,
                         part == valuePart ? a.valueSize : a.keySize, a.clip};
    if (d >= heads.size) return;
    T *p = heads.head(h);
    const long long slot = part == queryPart ? -1 : cacheRow(a.batch, t, h, k);
    T *cached = (T *)(part == valuePart ? a.values : a.keys) + slot * heads.size;
    auto load = [&](int at, float (&x)[8]) {
        unpack(*(const uint4 *)(p + at), x, T());
        if (a.clip > 0.f)
#pragma unroll
            for (int i = 0; i < 8; ++i) x[i] = fminf(fmaxf(x[i], -a.clip), a.clip);
    };
    auto store = [&](int at, const float (&x)[8], bool isChanged) {
        const uint4 packed = packEight<T>(x);
        if (isChanged) *(uint4 *)(p + at) = packed;
        if (slot >= 0) *(uint4 *)(cached + at) = packed;
    };
    const int half = part != valuePart && a.cosines ? a.rotated / 2 : 0;
    float x[8], z[8];
    if (d >= 2 * half) {
        if (part == queryPart && !(a.clip > 0.f)) return;
        load(d, x);
        return store(d, x, part != valuePart && a.clip > 0.f);
    }
    const long long angle = (long long)min(max(a.batch.positions[t], 0), a.rotaryPositions - 1) * half;
    if (a.isInterleaved) {  // pairs stand side by side: four of them
        load(d, x);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float c = a.cosines[angle + d / 2 + i], n = a.sines[angle + d / 2 + i];
            z[2 * i] = x[2 * i] * c - x[2 * i + 1] * n;
            z[2 * i + 1] = x[2 * i + 1] * c + x[2 * i] * n;
        }
        return store(d, z, true);
    }
    if (d >= half) return;  // the second halves go with the first
    float w[8], c[8], n[8];
    load(d, x);
    load(d + half, z);
    loadEight(a.cosines, angle + d, NIBBLE_F32, c);
    loadEight(a.sines, angle + d, NIBBLE_F32, n);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        w[i] = x[i] * c[i] - z[i] * n[i];
        z[i] = z[i] * c[i] + x[i] * n[i];
    }
    store(d, w, true);
    store(d + half, z, true);
}

#define INSTANCE_16(T)                                                                                                    \
    extern "C" __global__ void __launch_bounds__(128) rotate_eight_##T(const __grid_constant__ NibbleRotateArguments a) { \
        if constexpr (IS_WANTED(rotate_eight_##T)) rotateEightBody<T>(a);                                                 \
    }
#define INSTANCE_f32(T)
#define INSTANCE_f16(T) INSTANCE_16(T)
#define INSTANCE_bf16(T) INSTANCE_16(T)
#define INSTANCE(T)                                                                                          \
    INSTANCE_##T(T) extern "C" __global__ void rotate_##T(const __grid_constant__ NibbleRotateArguments a) { \
        if constexpr (IS_WANTED(rotate_##T)) rotateBody<T>(a);                                               \
    }
NIBBLE_FOR_TYPES(INSTANCE)
