// 4-bit linear layers over the tiled layout (tiles4.cuh): one token up to a few dozen, bound by the weight's bytes.
//
// A team of eight warps computes RT * 16 outputs for NT * 8 tokens. The warps divide K: pairs of 64 columns in turn, so that
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

// One token, by all threads of a block: fragments [K / 64][4][8 words] and scales [K / 64] in shared memory. A thread takes
// eight columns, so that eight neighbouring threads share a scale.
template <typename T> __device__ __forceinline__ void stageToken(const T *input, int K, u32 *fragments, float *scales) {
    for (int i0 = 0; i0 < K / 8; i0 += blockDim.x) {  // all threads, for the shuffles
        const int i = i0 + threadIdx.x;
        float x[8] = {};
        if (i < K / 8) unpack(*(const uint4 *)(input + 8 * i), x, T());
        u32 largest = 0;
#pragma unroll
        for (int j = 0; j < 8; ++j) largest = max(largest, __float_as_uint(x[j]) & 0x7fffffffu);
#pragma unroll
        for (int d = 1; d < 8; d <<= 1) largest = max(largest, __shfl_xor_sync(~0u, largest, d));
        if (i >= K / 8) continue;
        float inverse;
        const float factor = factorToHalf(largest, inverse);
        u32 *place = fragments + (i >> 3) * 32 + (i & 7);
#pragma unroll
        for (int j = 0; j < 4; ++j) place[8 * j] = packPair<f16>(x[2 * j] * factor, x[2 * j + 1] * factor);
        if ((i & 7) == 0) scales[i >> 3] = inverse;
    }
}

// The float16 value of a code, from immediates.
__device__ __forceinline__ u32 halfValue(int codebook, u32 code) {
    const bool isNF4 = codebook == NIBBLE_NF4;
    const u32 pairs[8] = {
        isNF4 ? 0xb992bc00u : 0x1d550000u, isNF4 ? 0xb652b833u : 0x3c003955u, isNF4 ? 0xb1eab48du : 0x38003555u, isNF4 ? 0x0000add4u : 0x34003155u,
        isNF4 ? 0x31262d18u : 0x9d558000u, isNF4 ? 0x356833e0u : 0xbc00b955u, isNF4 ? 0x3880370du : 0xb800b555u, isNF4 ? 0x3c0039c9u : 0xb400b155u};
    const u32 quads[4] = {code & 8 ? pairs[4] : pairs[0], code & 8 ? pairs[5] : pairs[1], code & 8 ? pairs[6] : pairs[2], code & 8 ? pairs[7] : pairs[3]};
    const u32 low = code & 4 ? quads[2] : quads[0], high = code & 4 ? quads[3] : quads[1];
    return (code & 2 ? high : low) >> (code & 1 ? 16 : 0) & 0xffffu;
}

// table[byte][lane]: the float16 values of the byte's two codes, for each lane its own copy. By the first 256 threads.
__device__ __forceinline__ void fillTable(u32 *table, int codebook) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, byte = threadIdx.x;
    if (byte >= 256) return;
    const u32 entry = halfValue(codebook, byte >> 4) | halfValue(codebook, byte & 15) << 16;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const u32 v = __shfl_sync(~0u, entry, 4 * i + (lane >> 3));
        ((uint4 *)table)[(warp * 32 + 4 * i + (lane >> 3)) * 8 + (lane & 7)] = make_uint4(v, v, v, v);
    }
}

// The same with the rest of each value, times 4096, beside it: table[byte][lane][part].
__device__ __forceinline__ void fillExactTable(u32 *table, int codebook) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, byte = threadIdx.x;
    if (byte >= 256) return;
    const float first = codeValue(codebook, byte >> 4), second = codeValue(codebook, byte & 15);
    const u32 high = packPair<f16>(first, second);
    const u32 low = packPair<f16>(
        (first - toFloat(fromFloat<f16>(first))) * 4096.f, (second - toFloat(fromFloat<f16>(second))) * 4096.f);
    for (int i = 0; i < 32; ++i) {
        const u32 h = __shfl_sync(~0u, high, i), l = __shfl_sync(~0u, low, i);
        ((uint2 *)table)[(warp * 32 + i) * 32 + lane] = make_uint2(h, l);
    }
}

// The row tile a team works on and where its weights are. Rows past the end repeat the last ones; nobody stores them.
template <int RT> struct RowTile {
    int part;
    int index;               // of RT * 16 rows, within the part
    const uint4 *codes[RT];  // this lane's 16 bytes of the first tile along K
    int firstScale[RT];      // this lane's row times K / 64
    const float *scales;
    const u8 *nestedCodes;
    const float *nestedAbsmax;
};

// Codes and scales of two neighbouring tiles along K for RT tiles of rows, as loaded.
template <int RT> struct Loaded {
    uint4 codes[RT][2];
    u32 scale[RT];  // bits of a plain scale, or a nested scale's code
    float absmax[RT];
};

template <typename T, int RT, int NT, bool Single, bool Exact> struct Tiled4 {
    static constexpr int columns = Single ? 1 : 8;
    typedef float Reduction[WARPS][columns][RT * 16 + 4];

    const NibbleLinearArguments &a;
    const u32 *stagedInput;  // Single: fragments in shared memory
    const float *stagedScales;
    Staged staged;
    const float *map;
    int K64, lane, warp, scaleShift;
    u32 laneTable;           // shared address of this lane's copy of the table
    float sums[RT][NT][4];

    __device__ __forceinline__ Tiled4(const NibbleLinearArguments &arguments, const u32 *table) : a(arguments) {
        K64 = a.inFeatures / 64;
        lane = threadIdx.x & 31;
        warp = __shfl_sync(~0u, threadIdx.x >> 5, 0) % WARPS;  // known to be the same in all lanes
        scaleShift = a.blockSizeLog2 - 6;
        // Through a shuffle, so that the compiler keeps the sum in a register instead of making it anew for each look-up.
        laneTable = __shfl_sync(~0u, sharedAddress(table) + lane * (Exact ? 8 : 4), lane);
    }

    __device__ __forceinline__ RowTile<RT> rowTile(int tile) const {
        RowTile<RT> t;
        t.index = tile;
        t.part = partOfTile(a, t.index, RT * 16);
        const NibbleLinearPart &part = a.parts[t.part];
        const int last = (part.outFeatures - 1) / 16;
#pragma unroll
        for (int r = 0; r < RT; ++r) {
            t.codes[r] = (const uint4 *)part.weight + (long long)min(t.index * RT + r, last) * K64 * 32 + lane;
            // Lane t of four loads the scale of row g + 8 (t / 2), tile t % 2.
            t.firstScale[r] = min((t.index * RT + r) * 16 + (lane >> 2) + 4 * (lane & 2), part.outFeatures - 1) * K64;
        }
        t.scales = part.scales;
        t.nestedCodes = part.nestedCodes;
        t.nestedAbsmax = part.nestedAbsmax;
        return t;
    }

    __device__ __forceinline__ void load(Loaded<RT> &q, const RowTile<RT> &t, int group) const {
        const int kb = 2 * group, column = min(kb + (lane & 1), K64 - 1);
#pragma unroll
        for (int r = 0; r < RT; ++r) {
            q.codes[r][0] = loadStreaming(t.codes[r] + kb * 32);
            if (kb + 1 < K64) q.codes[r][1] = loadStreaming(t.codes[r] + kb * 32 + 32);
            const u32 block = (u32)(t.firstScale[r] + column) >> scaleShift;
            if (t.nestedCodes) {
                q.scale[r] = t.nestedCodes[block];
                q.absmax[r] = t.nestedAbsmax[block >> 8];
            } else {
                q.scale[r] = __float_as_uint(t.scales[block]);
            }
        }
    }

    // The table's entry for byte j of a word.
    __device__ __forceinline__ u32 entry(u32 word, int j) const {
        u32 v;
        asm("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(laneTable + (__byte_perm(word, 0, 0x4440 | j) << 7)));
        return v;
    }

    __device__ __forceinline__ uint2 exactEntry(u32 word, int j) const {
        uint2 v;
        asm("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(laneTable + (__byte_perm(word, 0, 0x4440 | j) << 8)));
        return v;
    }

    __device__ __forceinline__ void consume(const Loaded<RT> &q, bool isNested, float nestedOffset, int group) {
        float scale[RT];
#pragma unroll
        for (int r = 0; r < RT; ++r)
            scale[r] = isNested ? __fadd_rn(__fmul_rn(map[q.scale[r]], q.absmax[r]), nestedOffset) : __uint_as_float(q.scale[r]);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int kb = 2 * group + half;
            if (half == 1 && kb >= K64) break;
            float s0[RT], s1[RT];
#pragma unroll
            for (int r = 0; r < RT; ++r) {
                s0[r] = __shfl_sync(~0u, scale[r], half, 4);
                s1[r] = __shfl_sync(~0u, scale[r], 2 + half, 4);
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
                for (int j = 0; j < 4; ++j) w[r][s][j] = entry(words[s], j);
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
                        const uint2 v = exactEntry(words[s], j);
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

    // A single token is column 0, held by the lanes 0 to 3; the others' fragments are zeros.
    __device__ __forceinline__ void loadInput(u32 (&b)[8], float2 &scale, int kb, int n, long long offset) const {
        uint4 v = make_uint4(0, 0, 0, 0), w = make_uint4(0, 0, 0, 0);
        if constexpr (Single) {
            const uint4 *p = (const uint4 *)(stagedInput + kb * 32 + (lane & 3) * 8);
            if (lane < 4) {
                v = p[0];
                w = p[1];
            }
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

    // Adds the warps' sums in order and stores the outputs of a row tile; `sync` is the team's barrier.
    template <typename F> __device__ __forceinline__ void store(Reduction *shared, int &buffer, const RowTile<RT> &t, F sync) {
        const int g = lane >> 2, c = lane & 3;
        const NibbleLinearPart &part = a.parts[t.part];
#pragma unroll
        for (int n = 0; n < NT; ++n) {
            Reduction &all = shared[buffer];
            buffer ^= 1;
#pragma unroll
            for (int r = 0; r < RT; ++r) {
                if constexpr (Single) {
                    if (c == 0) {
                        all[warp][0][r * 16 + g] = sums[r][n][0];
                        all[warp][0][r * 16 + g + 8] = sums[r][n][2];
                    }
                } else {
                    all[warp][2 * c][r * 16 + g] = sums[r][n][0];
                    all[warp][2 * c + 1][r * 16 + g] = sums[r][n][1];
                    all[warp][2 * c][r * 16 + g + 8] = sums[r][n][2];
                    all[warp][2 * c + 1][r * 16 + g + 8] = sums[r][n][3];
                }
            }
            sync();
            for (int i = warp * 32 + lane; i < columns * RT * 16; i += WARPS * 32) {
                const int column = i / (RT * 16), row = i % (RT * 16);
                const int m = (blockIdx.y * NT + n) * 8 + column, output = t.index * RT * 16 + row;
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

// Teams take row tiles in turn: any grid.x works. The codes of Depth groups are always on their way: where one is used up,
// its registers take the group that comes Depth later, be it of the next row tile.
template <typename T, int RT, int NT, bool Single, bool Exact, int Depth, int Teams>
__device__ __forceinline__ void tiled4Body(const NibbleLinearArguments &a) {
    using Work = Tiled4<T, RT, NT, Single, Exact>;
    extern __shared__ uint4 dynamicShared[];
    __shared__ float map[256];
    __shared__ typename Work::Reduction reduction[Teams][2];
    u32 *table = (u32 *)dynamicShared;
    const int team = threadIdx.x / (WARPS * 32);
    auto sync = [&] {
        if constexpr (Teams == 1) __syncthreads();
        else asm volatile("bar.sync %0, %1;" :: "r"(1 + team), "n"(WARPS * 32) : "memory");
    };
    Work work(a, table);
    work.map = map;
    releaseDependents();

    int tiles = 0;
    for (int p = 0; p < a.partCount; ++p) tiles += (a.parts[p].outFeatures + RT * 16 - 1) / (RT * 16);
    const int groups = (work.K64 + 1) / 2, batches = (groups + WARPS * Depth - 1) / (WARPS * Depth), step = gridDim.x * Teams;
    int tile = blockIdx.x * Teams + team;
    RowTile<RT> loading = work.rowTile(min(tile, tiles - 1));
    Loaded<RT> q[Depth];
#pragma unroll
    for (int d = 0; d < Depth; ++d)
        if (tile < tiles && d * WARPS + work.warp < groups) work.load(q[d], loading, d * WARPS + work.warp);

    if constexpr (Exact) fillExactTable(table, a.codebook);
    else fillTable(table, a.codebook);
    if (a.parts[0].nestedCodes && threadIdx.x < 256) map[threadIdx.x] = dynamicMapValue(threadIdx.x);
    waitForPredecessors();
    if constexpr (Single) {
        u32 *input = table + 256 * 32;
        float *scales = (float *)(input + work.K64 * 32);
        stageToken((const T *)a.input, a.inFeatures, input, scales);
        work.stagedInput = input;
        work.stagedScales = scales;
    } else {
        work.staged = stagedLayout<T>(a.staged, a.tokens, work.K64);
    }
    __syncthreads();

    int buffer = 0;
    for (; tile < tiles; tile += step) {
        work.clear();
        const RowTile<RT> present = loading;
        const bool isNested = present.nestedCodes != nullptr, hasNext = tile + step < tiles;
        const float offset = a.parts[present.part].nestedOffset;
        for (int batch = 0; batch < batches; ++batch) {
            const bool isLast = batch + 1 == batches;
            if (isLast && hasNext) loading = work.rowTile(tile + step);
            const int first = batch * Depth * WARPS + work.warp, next = isLast ? work.warp : first + Depth * WARPS;
#pragma unroll
            for (int d = 0; d < Depth; ++d) {
                if (first + d * WARPS < groups) work.consume(q[d], isNested, offset, first + d * WARPS);
                if (next + d * WARPS < groups && (!isLast || hasNext)) work.load(q[d], loading, next + d * WARPS);
            }
        }
        work.store(reduction[team], buffer, present, sync);
    }
}

#define TILED4(NAME, T, RT, NT, SINGLE, EXACT, DEPTH, TEAMS, RESIDENT)                                                 \
    extern "C" __global__ void __launch_bounds__(WARPS * 32 * TEAMS, RESIDENT) NAME(const __grid_constant__ NibbleLinearArguments a) { \
        tiled4Body<T, RT, NT, SINGLE, EXACT, DEPTH, TEAMS>(a);                                                         \
    }

#define STAGE4(T)                                                                                                      \
    extern "C" __global__ void __launch_bounds__(WARPS * 32) stage4_##T(const __grid_constant__ NibbleLinearArguments a) { stage4Body<T>(a); }

#define INSTANCE_f32(T) STAGE4(T) TILED4(tiled4_8_##T, T, 1, 1, false, true, 1, 1, 2)
#define INSTANCE_16(T)                                                                                                 \
    STAGE4(T)                                                                                                          \
    TILED4(tiled4_1_##T, T, 1, 1, true, false, 2, 1, 4)                                                                \
    TILED4(tiled4_8_##T, T, 1, 1, false, false, 2, 1, 3)                                                               \
    TILED4(tiled4_16_##T, T, 2, 2, false, false, 1, 1, 2)                                                              \
    TILED4(tiled4_32_##T, T, 2, 4, false, false, 1, 1, 1)                                                              \
    TILED4(tiled4_64_##T, T, 2, 8, false, false, 1, 1, 1)
#define INSTANCE_f16(T) INSTANCE_16(T)
#define INSTANCE_bf16(T) INSTANCE_16(T)
#define INSTANCE(T) INSTANCE_##T(T)
NIBBLE_FOR_TYPES(INSTANCE)
