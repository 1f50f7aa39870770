// 4-bit linear layers over the tiled layout (tiles4.cuh): one token up to a few dozen, bound by the weight's bytes.
//
// A block of eight warps computes RT * 16 outputs for NT * 8 tokens. The warps divide K: pairs of 64 columns in turn, so that
// the order of additions depends on K alone and a token's result never on the others. Codes become pairs of float16 table
// values through a table with one copy for each lane (no bank conflicts); scales multiply the float32 sums of 64 products.
//
// The float32 variant splits activations and table values into two float16 parts each.
#include "tiles4.cuh"

#define WARPS 8

// Where the staged activations of a call begin: fragments [token tiles][K / 64][lane][16 halves], then their scales
// [token tiles][K / 64][8]; float32 has a second set of fragments (the low parts) after the first.
struct Staged {
    uint4 *fragments;
    float *scales;
    long long lowOffset;  // in uint4
};

template <typename T> __device__ __forceinline__ Staged stagedLayout(void *base, int tokens, int K64) {
    const long long tiles = (tokens + 7) / 8;
    Staged s;
    s.lowOffset = tiles * K64 * 64;
    s.fragments = (uint4 *)base;
    s.scales = (float *)(s.fragments + s.lowOffset * (sizeof(T) == 4 ? 2 : 1));
    return s;
}

// A warp stages 64 columns of one token.
template <typename T> __device__ __forceinline__ void stage4Body(const NibbleLinearArguments &a) {
    releaseDependents();
    waitForPredecessors();
    const int K64 = a.inFeatures / 64, lane = threadIdx.x & 31;
    const long long unit = (long long)blockIdx.x * WARPS + (threadIdx.x >> 5);
    if (unit >= (long long)a.tokens * K64) return;
    const int m = (int)(unit / K64), kb = (int)(unit % K64);
    const Staged staged = stagedLayout<T>(a.staged, a.tokens, K64);
    const float2 x = loadPair((const T *)a.input + (long long)m * a.inFeatures + kb * 64 + 2 * lane);
    const u32 largest = warpMaxBits(max(__float_as_uint(x.x) & 0x7fffffffu, __float_as_uint(x.y) & 0x7fffffffu));
    float inverse;
    const float factor = factorToHalf(largest, inverse);
    const long long tile = (long long)(m >> 3) * K64 + kb;
    const int word = (4 * (m & 7) + (lane & 3)) * 8 + (lane >> 3) * 2 + ((lane >> 2) & 1);
    u32 *fragments = (u32 *)staged.fragments;
    const f16 high0 = fromFloat<f16>(x.x * factor), high1 = fromFloat<f16>(x.y * factor);
    fragments[tile * 256 + word] = (u32)high0.bits | (u32)high1.bits << 16;
    if constexpr (sizeof(T) == 4)
        fragments[staged.lowOffset * 4 + tile * 256 + word] =
            packPair<f16>((x.x * factor - toFloat(high0)) * 4096.f, (x.y * factor - toFloat(high1)) * 4096.f);
    if (lane == 0) staged.scales[tile * 8 + (m & 7)] = inverse;
}

// table[byte * 32 + lane]: the float16 values of the byte's two codes, for each lane its own copy.
__device__ __forceinline__ void fillTable(u32 *table, int codebook) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, byte = threadIdx.x & 255;
    const u32 entry = packPair<f16>(codeValue(codebook, byte >> 4), codeValue(codebook, byte & 15));
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const u32 v = __shfl_sync(~0u, entry, 4 * i + (lane >> 3));
        ((uint4 *)table)[(warp * 32 + 4 * i + (lane >> 3)) * 8 + (lane & 7)] = make_uint4(v, v, v, v);
    }
}

// The same with the rest of each value, times 4096, beside it: table[(byte * 32 + lane) * 2 + part].
__device__ __forceinline__ void fillExactTable(u32 *table, int codebook) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, byte = threadIdx.x & 255;
    const float first = codeValue(codebook, byte >> 4), second = codeValue(codebook, byte & 15);
    const u32 high = packPair<f16>(first, second);
    const u32 low = packPair<f16>(
        (first - toFloat(fromFloat<f16>(first))) * 4096.f, (second - toFloat(fromFloat<f16>(second))) * 4096.f);
    for (int i = 0; i < 32; ++i) {
        const u32 h = __shfl_sync(~0u, high, i), l = __shfl_sync(~0u, low, i);
        ((uint2 *)table)[(warp * 32 + i) * 32 + lane] = make_uint2(h, l);
    }
}

// Codes and scales of two neighbouring tiles along K for RT tiles of rows, as loaded.
template <int RT> struct Loaded {
    uint4 codes[RT][2];
    u32 scale[RT];   // bits of a plain scale, or a nested scale's code
    float absmax[RT];
};

template <typename T, int RT, int NT, bool Single, bool Exact, int Depth> struct Tiled4 {
    const NibbleLinearArguments &a;
    const u32 *table;
    const u32 *stagedInput;      // Single: fragments of the token in shared memory [K64][4][8 words]
    const float *stagedScales;   // Single: [K64] in shared memory
    Staged staged;
    const float *map;
    int K64, lane, warp, groups;
    float sums[RT][NT][4];

    __device__ __forceinline__ Tiled4(const NibbleLinearArguments &arguments) : a(arguments) {
        K64 = a.inFeatures / 64;
        groups = (K64 + 1) / 2;
        lane = threadIdx.x & 31;
        warp = threadIdx.x >> 5;
    }

    // Group `group` of two tiles along K. Lane t loads the scale of row g + 8 (t / 2), tile t % 2.
    __device__ __forceinline__ void load(Loaded<RT> &q, const NibbleLinearPart &part, int rowTile, int group) const {
        const int kb = 2 * group;
#pragma unroll
        for (int r = 0; r < RT; ++r) {
            const bool rowsExist = (rowTile * RT + r) * 16 < part.outFeatures;
            const uint4 *codes = (const uint4 *)part.weight + ((long long)(rowTile * RT + r) * K64 + kb) * 32 + lane;
            q.codes[r][0] = rowsExist && kb < K64 ? loadStreaming(codes) : make_uint4(0, 0, 0, 0);
            q.codes[r][1] = rowsExist && kb + 1 < K64 ? loadStreaming(codes + 32) : make_uint4(0, 0, 0, 0);
            const int row = (rowTile * RT + r) * 16 + (lane >> 2) + 4 * (lane & 2), column = kb + (lane & 1);
            q.scale[r] = 0;
            q.absmax[r] = 0;
            if (row < part.outFeatures && column < K64) {
                const long long block = ((long long)row * K64 + column) >> (a.blockSizeLog2 - 6);
                if (part.nestedCodes) {
                    q.scale[r] = part.nestedCodes[block];
                    q.absmax[r] = part.nestedAbsmax[block >> 8];
                } else {
                    q.scale[r] = __float_as_uint(part.scales[block]);
                }
            }
        }
    }

    __device__ __forceinline__ u32 pairOf(u32 word, int j) const {
        return table[((word >> (8 * j)) & 255) * 32 + lane];
    }

    __device__ __forceinline__ void consume(const Loaded<RT> &q, const NibbleLinearPart &part, int group) {
        float scale[RT];
#pragma unroll
        for (int r = 0; r < RT; ++r)
            scale[r] = part.nestedCodes ? __fadd_rn(__fmul_rn(map[q.scale[r] & 255], q.absmax[r]), part.nestedOffset)
                                        : __uint_as_float(q.scale[r]);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int kb = 2 * group + half;
            if (kb >= K64) break;
            float s0[RT], s1[RT];
#pragma unroll
            for (int r = 0; r < RT; ++r) {
                s0[r] = __shfl_sync(~0u, scale[r], (lane & 28) | half);
                s1[r] = __shfl_sync(~0u, scale[r], (lane & 28) | 2 | half);
            }
            if constexpr (Exact) multiplyExact(q, half, kb, s0, s1);
            else multiply(q, half, kb, s0, s1);
        }
    }

    __device__ __forceinline__ void multiply(const Loaded<RT> &q, int half, int kb, const float (&s0)[RT], const float (&s1)[RT]) {
        u32 w[RT][4][4];
#pragma unroll
        for (int r = 0; r < RT; ++r) {
            const u32 words[4] = {q.codes[r][half].x, q.codes[r][half].y, q.codes[r][half].z, q.codes[r][half].w};
#pragma unroll
            for (int s = 0; s < 4; ++s)
#pragma unroll
                for (int j = 0; j < 4; ++j) w[r][s][j] = pairOf(words[s], j);
        }
#pragma unroll
        for (int n = 0; n < NT; ++n) {
            u32 b[8];
            float2 inputScale;
            loadInput(b, inputScale, kb, n, 0);
#pragma unroll
            for (int r = 0; r < RT; ++r) {
                float c[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
                for (int s = 0; s < 4; ++s) mmaK16(f16(), c, w[r][s], b[2 * s], b[2 * s + 1]);
                accumulate(sums[r][n], c, s0[r], s1[r], inputScale);
            }
        }
    }

    __device__ __forceinline__ void multiplyExact(const Loaded<RT> &q, int half, int kb, const float (&s0)[RT], const float (&s1)[RT]) {
#pragma unroll
        for (int n = 0; n < NT; ++n) {
            u32 high[8], low[8];
            float2 inputScale;
            loadInput(high, inputScale, kb, n, 0);
            loadInput(low, inputScale, kb, n, staged.lowOffset);
#pragma unroll
            for (int r = 0; r < RT; ++r) {
                const u32 words[4] = {q.codes[r][half].x, q.codes[r][half].y, q.codes[r][half].z, q.codes[r][half].w};
                float c[4] = {0.f, 0.f, 0.f, 0.f}, rest[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
                for (int s = 0; s < 4; ++s) {
                    u32 wHigh[4], wLow[4];
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        const uint2 v = ((const uint2 *)table)[((words[s] >> (8 * j)) & 255) * 32 + lane];
                        wHigh[j] = v.x;
                        wLow[j] = v.y;
                    }
                    mmaK16(f16(), c, wHigh, high[2 * s], high[2 * s + 1]);
                    mmaK16(f16(), rest, wLow, high[2 * s], high[2 * s + 1]);
                    mmaK16(f16(), rest, wHigh, low[2 * s], low[2 * s + 1]);
                }
#pragma unroll
                for (int i = 0; i < 4; ++i) c[i] = fmaf(rest[i], 1.f / 4096.f, c[i]);
                accumulate(sums[r][n], c, s0[r], s1[r], inputScale);
            }
        }
    }

    __device__ __forceinline__ void loadInput(u32 (&b)[8], float2 &scale, int kb, int n, long long offset) const {
        uint4 v, w;
        if constexpr (Single) {
            const uint4 *p = (const uint4 *)(stagedInput + kb * 32 + (lane & 3) * 8);
            v = p[0];
            w = p[1];
            scale.x = scale.y = stagedScales[kb];
        } else {
            const long long tile = (long long)(blockIdx.y * NT + n) * K64 + kb;
            const uint4 *p = staged.fragments + offset + (tile * 32 + lane) * 2;
            v = p[0];
            w = p[1];
            scale = *(const float2 *)(staged.scales + tile * 8 + 2 * (lane & 3));
        }
        b[0] = v.x; b[1] = v.y; b[2] = v.z; b[3] = v.w;
        b[4] = w.x; b[5] = w.y; b[6] = w.z; b[7] = w.w;
    }

    __device__ __forceinline__ static void accumulate(float (&sum)[4], const float (&c)[4], float s0, float s1, float2 inputScale) {
        sum[0] = fmaf(c[0], s0 * inputScale.x, sum[0]);
        sum[2] = fmaf(c[2], s1 * inputScale.x, sum[2]);
        if constexpr (!Single) {
            sum[1] = fmaf(c[1], s0 * inputScale.y, sum[1]);
            sum[3] = fmaf(c[3], s1 * inputScale.y, sum[3]);
        }
    }

    // Adds the warps' sums in order and stores the outputs of row tile `rowTile`.
    template <int Columns>
    __device__ __forceinline__ void store(float (&shared)[2][WARPS][Columns][RT * 16 + 4], int &buffer, const NibbleLinearPart &part, int rowTile) {
        const int g = lane >> 2, t = lane & 3;
#pragma unroll
        for (int n = 0; n < NT; ++n) {
            float (&all)[WARPS][Columns][RT * 16 + 4] = shared[buffer];
            buffer ^= 1;
#pragma unroll
            for (int r = 0; r < RT; ++r) {
                if constexpr (Single) {
                    if (t == 0) {
                        all[warp][0][r * 16 + g] = sums[r][n][0];
                        all[warp][0][r * 16 + g + 8] = sums[r][n][2];
                    }
                } else {
                    all[warp][2 * t][r * 16 + g] = sums[r][n][0];
                    all[warp][2 * t + 1][r * 16 + g] = sums[r][n][1];
                    all[warp][2 * t][r * 16 + g + 8] = sums[r][n][2];
                    all[warp][2 * t + 1][r * 16 + g + 8] = sums[r][n][3];
                }
            }
            __syncthreads();
            for (int i = threadIdx.x; i < Columns * RT * 16; i += WARPS * 32) {
                const int column = i / (RT * 16), row = i % (RT * 16);
                const int m = (blockIdx.y * NT + n) * 8 + column, output = rowTile * RT * 16 + row;
                if (m >= a.tokens || output >= part.outFeatures) continue;
                float sum = all[0][column][row];
#pragma unroll
                for (int w = 1; w < WARPS; ++w) sum += all[w][column][row];
                finish(a.epilogue, m, part.firstColumn + output, sum + (part.bias ? part.bias[output] : 0.f));
            }
        }
    }

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int r = 0; r < RT; ++r)
#pragma unroll
            for (int n = 0; n < NT; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) sums[r][n][i] = 0.f;
    }
};

// Blocks take row tiles in turn: any grid.x works. The next codes are always on their way while the present ones are used.
template <typename T, int RT, int NT, bool Single, bool Exact, int Depth>
__device__ __forceinline__ void tiled4Body(const NibbleLinearArguments &a) {
    extern __shared__ uint4 dynamicShared[];
    constexpr int columns = Single ? 1 : 8;
    __shared__ float map[256];
    __shared__ float reduction[2][WARPS][columns][RT * 16 + 4];
    u32 *table = (u32 *)dynamicShared;
    Tiled4<T, RT, NT, Single, Exact, Depth> work(a);
    work.table = table;
    work.map = map;
    releaseDependents();

    int tiles = 0;
    for (int p = 0; p < a.partCount; ++p) tiles += (a.parts[p].outFeatures + RT * 16 - 1) / (RT * 16);
    const int batches = (work.groups + WARPS * Depth - 1) / (WARPS * Depth);
    int tile = blockIdx.x, batch = 0;
    if (tile >= tiles) return;
    int rowTile = tile, partIndex = partOfTile(a, rowTile, RT * 16);
    Loaded<RT> present[Depth], next[Depth];
#pragma unroll
    for (int d = 0; d < Depth; ++d) work.load(present[d], a.parts[partIndex], rowTile, d * WARPS + work.warp);

    if constexpr (Exact) fillExactTable(table, a.codebook);
    else fillTable(table, a.codebook);
    map[threadIdx.x] = dynamicMapValue(threadIdx.x);
    waitForPredecessors();
    if constexpr (Single) {
        u32 *input = table + 256 * 32;
        float *scales = (float *)(input + work.K64 * 32);
        for (int kb = work.warp; kb < work.K64; kb += WARPS) {
            const float2 x = loadPair((const T *)a.input + kb * 64 + 2 * work.lane);
            const u32 largest = warpMaxBits(max(__float_as_uint(x.x) & 0x7fffffffu, __float_as_uint(x.y) & 0x7fffffffu));
            float inverse;
            const float factor = factorToHalf(largest, inverse);
            input[kb * 32 + (work.lane & 3) * 8 + (work.lane >> 3) * 2 + ((work.lane >> 2) & 1)] = packPair<f16>(x.x * factor, x.y * factor);
            if (work.lane == 0) scales[kb] = inverse;
        }
        work.stagedInput = input;
        work.stagedScales = scales;
    } else {
        work.staged = stagedLayout<T>(a.staged, a.tokens, work.K64);
    }
    __syncthreads();

    int buffer = 0;
    work.clear();
    while (true) {
        int nextTile = tile, nextBatch = batch + 1, nextRowTile = rowTile, nextPart = partIndex;
        if (nextBatch == batches) {
            nextBatch = 0;
            nextTile += gridDim.x;
            nextRowTile = nextTile;
            if (nextTile < tiles) nextPart = partOfTile(a, nextRowTile, RT * 16);
        }
        if (nextTile < tiles) {
#pragma unroll
            for (int d = 0; d < Depth; ++d)
                work.load(next[d], a.parts[nextPart], nextRowTile, (nextBatch * Depth + d) * WARPS + work.warp);
        }
#pragma unroll
        for (int d = 0; d < Depth; ++d) work.consume(present[d], a.parts[partIndex], (batch * Depth + d) * WARPS + work.warp);
        if (nextBatch == 0) {
            work.template store<columns>(reduction, buffer, a.parts[partIndex], rowTile);
            if (nextTile >= tiles) break;
            work.clear();
        }
        tile = nextTile; batch = nextBatch; rowTile = nextRowTile; partIndex = nextPart;
#pragma unroll
        for (int d = 0; d < Depth; ++d) present[d] = next[d];
    }
}

#define TILED4(NAME, T, RT, NT, SINGLE, EXACT, DEPTH, RESIDENT)                                                        \
    extern "C" __global__ void __launch_bounds__(WARPS * 32, RESIDENT) NAME(const __grid_constant__ NibbleLinearArguments a) { \
        tiled4Body<T, RT, NT, SINGLE, EXACT, DEPTH>(a);                                                                \
    }

#define STAGE4(T)                                                                                                      \
    extern "C" __global__ void __launch_bounds__(WARPS * 32) stage4_##T(const __grid_constant__ NibbleLinearArguments a) { stage4Body<T>(a); }

#define INSTANCE_f32(T) STAGE4(T) TILED4(tiled4_8_##T, T, 1, 1, false, true, 1, 2)
#define INSTANCE_16(T)                                                                                                 \
    STAGE4(T)                                                                                                          \
    TILED4(tiled4_1_##T, T, 1, 1, true, false, 2, 3)                                                                   \
    TILED4(tiled4_8_##T, T, 1, 1, false, false, 2, 2)                                                                  \
    TILED4(tiled4_16_##T, T, 2, 2, false, false, 1, 2)                                                                 \
    TILED4(tiled4_32_##T, T, 2, 4, false, false, 1, 1)                                                                 \
    TILED4(tiled4_64_##T, T, 2, 8, false, false, 1, 1)
#define INSTANCE_f16(T) INSTANCE_16(T)
#define INSTANCE_bf16(T) INSTANCE_16(T)
#define INSTANCE(T) INSTANCE_##T(T)
NIBBLE_FOR_TYPES(INSTANCE)
