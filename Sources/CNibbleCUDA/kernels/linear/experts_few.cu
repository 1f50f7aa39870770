// 4-bit products of the experts of a few tokens, over the tiled layout (tiles4.cuh). Bound by reading the weights.
//
// A block serves a slot: an expert with one token, or with up to eight. Its eight warps form teams; a team takes tiles of 16
// outputs in turn, and its warps divide K. Most experts are too small for more than one or two tiles a team, so that loads must
// be under way soon and warps should rarely meet.
//
// The gated kernels compute the same tile of gate and up and store their activation.
#include "staging4.cuh"
#include "experts.cuh"

#define WARPS (NIBBLE_FEW_EXPERTS_THREADS / 32)
// The table has an entry of 128 bytes every 256 bytes, so that a byte of codes, put into bits 8 to 15 of an address, selects an
// entry. Between the entries lie the fragments of a single token, 128 bytes for each 64 columns, or the warps' sums for several.
#define TABLE_STRIDE 256

// Codes and scales of a pair of column tiles, as loaded. Nested: scales.x and .y hold code and absmax; powers of two: the
// exponents of row g and of row g + 8.
struct CodePair {
    uint4 codes[2];
    float4 scales;
};

// Where the parts of a layer lie.
struct FewLayer {
    const uint4 *codes;
    const u8 *scales;
    const float *nestedAbsmax, *bias;

    __device__ __forceinline__ FewLayer() {}
    __device__ __forceinline__ FewLayer(const NibbleLinearLayer &layer)
        : codes((const uint4 *)layer.weight),
          scales(layer.nestedCodes ? layer.nestedCodes : (const u8 *)layer.scales),
          nestedAbsmax(layer.nestedAbsmax),
          bias(layer.bias) {}
};

// A tile of 16 rows of one layer, from this lane's point of view.
template <ScaleKind Scales>
struct FewTile {
    const uint4 *codes;
    const u8 *scales;
    const float *nestedAbsmax;
    int firstBlock, lastBlock;  // nested: canonical blocks of this lane's scale in the first column tile, and of the last scale

    __device__ __forceinline__ void select(const FewLayer &layer, int outFeatures, int tile, int K, int lane) {
        const int pairs = (K + 127) / 128, index = min(tile, (outFeatures - 1) / 16);
        const long long pair = (long long)index * pairs;
        codes = layer.codes + pair * 64 + lane;
        if constexpr (Scales == plainScales) {
            scales = layer.scales + pair * 128 + (lane >> 2) * 16;
        } else if constexpr (Scales == powersOfTwo) {
            scales = layer.scales + pair * 64 + (lane >> 2) * 8;
        } else {
            scales = layer.scales + pair * 32 + lane;
            nestedAbsmax = layer.nestedAbsmax;
            const int row = min(index * 16 + (lane >> 2) + 4 * (lane & 2), outFeatures - 1);
            firstBlock = row * (K / 64) + (lane & 1);
            lastBlock = outFeatures * (K / 64) - 1;
        }
    }

    __device__ __forceinline__ void load(CodePair &q, int pair) const {
        q.codes[0] = loadStreaming(codes + pair * 64);
        q.codes[1] = loadStreaming(codes + pair * 64 + 32);
        if constexpr (Scales == plainScales) {
            q.scales = *(const float4 *)(scales + pair * 128);
        } else if constexpr (Scales == powersOfTwo) {
            const uint2 exponents = *(const uint2 *)(scales + pair * 64);
            q.scales.x = __uint_as_float(exponents.x);
            q.scales.y = __uint_as_float(exponents.y);
        } else {
            q.scales.x = __uint_as_float((u32)scales[pair * 32]);
            // For an odd number of column tiles the last block index can be out of range; its code is padding.
            q.scales.y = nestedAbsmax[min(firstBlock + 2 * pair, lastBlock) >> 8];
        }
    }
};

// The scales of column tile `half` of a pair: of row g and row g + 8, of each block.
template <ScaleKind Scales>
__device__ __forceinline__ void tileScales(float (&scale)[2][blocksOfTile(Scales)], const float4 &loaded, int half,
                                           const float *map, float nestedOffset) {
    if constexpr (Scales == powersOfTwo) {
        const u32 words[2] = {__float_as_uint(loaded.x), __float_as_uint(loaded.y)};
#pragma unroll
        for (int i = 0; i < 4; ++i) scale[i >> 1][i & 1] = powerOfWord(words[i >> 1], 2 * half + (i & 1));
    } else if constexpr (Scales == nestedScales) {
        const float mine = __fadd_rn(__fmul_rn(map[__float_as_uint(loaded.x)], loaded.y), nestedOffset);
        scale[0][0] = __shfl_sync(~0u, mine, half, 4);
        scale[1][0] = __shfl_sync(~0u, mine, half + 2, 4);
    } else {
        scale[0][0] = half ? loaded.y : loaded.x;
        scale[1][0] = half ? loaded.w : loaded.z;
    }
}

#define CACHED_LAYERS 64

// What warps share.
struct FewShared {
    float map[256];
    float factors[256];           // of each column tile of a single token
    float sums[2][WARPS][2][16];  // of a single token, of two rounds of tiles: by warp, layer and row
    FewLayer layers[CACHED_LAYERS];
};

template <ScaleKind Scales, int Tokens>
struct FewProduct {
    static constexpr int Blocks = blocksOfTile(Scales);
    static constexpr int count = Tokens == 1 ? 2 : 4;  // of the sums of a fragment
    u32 table;                                         // shared address
    u32 laneOffset;
    FewShared &shared;
    const uint4 *fragments;  // of several tokens: of this lane

    // Activations of a column tile. A single token is column 0 of the fragment, in lanes 0 to 3; the others hold zeros.
    __device__ __forceinline__ void loadInput(u32 (&b)[8], int tile) const {
        const int lane = threadIdx.x & 31;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            uint4 v = make_uint4(0, 0, 0, 0);
            if constexpr (Tokens > 1)
                v = fragments[tile * 64 + i];
            else if (lane < 4)
                v = loadSharedQuad(table + tile * TABLE_STRIDE + 128 + lane * 32 + 16 * i);
            b[4 * i] = v.x;
            b[4 * i + 1] = v.y;
            b[4 * i + 2] = v.z;
            b[4 * i + 3] = v.w;
        }
    }

    // Adds the products of a pair of column tiles, as fragments of sums; a single token has column 0 alone.
    __device__ __forceinline__ void add(float (&sums)[count], const CodePair &q, int pair, float nestedOffset) const {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int tile = 2 * pair + half;
            const u32 words[4] = {q.codes[half].x, q.codes[half].y, q.codes[half].z, q.codes[half].w};
            const float factor = Tokens == 1 ? shared.factors[tile] : 1.f;
            float scale[2][Blocks];
            tileScales<Scales>(scale, q.scales, half, shared.map, nestedOffset);
            u32 b[8];
            loadInput(b, tile);
#pragma unroll
            for (int block = 0; block < Blocks; ++block) {
                float c[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
                for (int i = 0; i < 4 / Blocks; ++i) {
                    const int s = block * (4 / Blocks) + i;
                    u32 w[4];
#pragma unroll
                    for (int j = 0; j < 4; ++j) w[j] = spreadEntry(table, laneOffset, words[s], j);
                    mmaK16(f16(), c, w, b[2 * s], b[2 * s + 1]);
                }
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    const float value = scale[h][block] * factor;
#pragma unroll
                    for (int i = 0; i < count / 2; ++i)
                        sums[h * (count / 2) + i] = fmaf(c[2 * h + i], value, sums[h * (count / 2) + i]);
                }
            }
        }
    }
};

// The layers of a block's expert. The table of all experts is in shared memory if it is small: nothing waits for it then.
template <int Layers>
struct ExpertLayers {
    const NibbleExpertsArguments &e;
    const FewShared &shared;
    int first;
    int firstTile[Layers];  // gate and up may be one layer

    static __device__ __forceinline__ int count(const NibbleExpertsArguments &e) { return e.expertCount * e.linear.layerCount; }

    // Reads the table, or asks for it; by all threads, ahead of the kernels before.
    static __device__ __forceinline__ void prepare(const NibbleExpertsArguments &e, FewShared &shared) {
        if (count(e) <= CACHED_LAYERS) {
            if (threadIdx.x < count(e)) shared.layers[threadIdx.x] = FewLayer(e.layers[threadIdx.x]);
        } else if (blockIdx.x == 0 && blockIdx.z == 0) {
            for (int i = threadIdx.x; i < count(e); i += NIBBLE_FEW_EXPERTS_THREADS)
                asm volatile("prefetch.global.L2 [%0];" ::"l"(e.layers + i));
        }
    }

    __device__ __forceinline__ ExpertLayers(const NibbleExpertsArguments &e, const FewShared &shared, int expert, int tiles)
        : e(e), shared(shared), first(expert * e.linear.layerCount) {
#pragma unroll
        for (int l = 0; l < Layers; ++l) firstTile[l] = l < e.linear.layerCount ? 0 : tiles;
    }

    __device__ __forceinline__ int index(int l) const { return l < e.linear.layerCount ? l : 0; }
    __device__ __forceinline__ FewLayer layer(int l) const {
        const int i = first + index(l);
        return count(e) <= CACHED_LAYERS ? shared.layers[i] : FewLayer(e.layers[i]);
    }
    __device__ __forceinline__ float nestedOffset(int l) const { return e.layers[first + index(l)].nestedOffset; }
    __device__ __forceinline__ int outFeatures(int l) const { return e.linear.parts[index(l)].outFeatures; }
};

// Stages the token by all threads of a block: fragments as the products read them, and a factor for each column tile.
template <typename T>
__device__ __forceinline__ void stageExpertInput(const T *input, int K, int columnTiles, u8 *table, float *factors) {
#pragma unroll 1
    for (int i = threadIdx.x; (i & ~31) < columnTiles * 8; i += NIBBLE_FEW_EXPERTS_THREADS) {
        float x[8];
        unpack(8 * i < K ? ((const uint4 *)input)[i] : make_uint4(0, 0, 0, 0), x, T());
        float inverse;
        const float factor = factorOfTile(x, inverse);
        if (i >= columnTiles * 8) return;
        u32 *fragments = (u32 *)(table + (i >> 3) * TABLE_STRIDE + 128) + (i & 7);
#pragma unroll
        for (int j = 0; j < 4; ++j) fragments[8 * j] = packPair<f16>(x[2 * j] * factor, x[2 * j + 1] * factor);
        if ((i & 7) == 0) factors[i >> 3] = inverse;
    }
}

// Stores an output of a position.
template <int Layers>
__device__ __forceinline__ void storeOutput(const NibbleEpilogue &e, long long position, int output, const float (&y)[Layers]) {
    const float value = Layers == 2 ? gated(e.activation, y[0], y[Layers - 1], e.activationParameter, e.scale)
                                    : activate(e.activation, y[0], e.activationParameter) * e.scale;
    storeAs(e.output, position * e.outputStride + output, e.outputType, value);
}

// The sums of several tokens between the entries of the table, of two rounds of tiles: 16 rows of two tokens in 128 bytes.
template <int Layers>
__device__ __forceinline__ float *tokenSums(u8 *table, int buffer, int warp, int layer, int token) {
    const int place = ((buffer * WARPS + warp) * Layers + layer) * 4 + (token >> 1);
    return (float *)(table + place * TABLE_STRIDE + 128) + (token & 1) * 16;
}

// Depth pairs of each layer are in flight. Once one is consumed, its registers take the one Depth further on, which may belong to
// the next tile.
template <typename T, ScaleKind Scales, int Tokens, int Layers, int Depth>
__device__ __forceinline__ void fewExpertsBody(const NibbleExpertsArguments &e, FewShared &shared) {
    extern __shared__ __align__(256) u8 fewTable[];
    using Work = FewProduct<Scales, Tokens>;
    using Tile = FewTile<Scales>;
    const NibbleLinearArguments &a = e.linear;
    const int lane = threadIdx.x & 31, warp = __shfl_sync(~0u, threadIdx.x >> 5, 0);
    const int size = e.teamSize, teams = WARPS / size, team = warp / size, member = warp % size;
    const int K = a.inFeatures, pairs = (K + 127) / 128;
    // Gate and up in one layer are a half each.
    const int outputs = Layers == 2 && a.layerCount == 1 ? a.parts[0].outFeatures / 2 : a.parts[0].outFeatures;
    const int tiles = (outputs + 15) / 16, step = gridDim.x * teams;
    releaseDependents();
    ExpertLayers<Layers>::prepare(e, shared);
    fillSpreadTable<TABLE_STRIDE>(fewTable, a.codebook);
    if (Scales == nestedScales) shared.map[threadIdx.x] = dynamicMapValue(threadIdx.x);
    waitForPredecessors();

    const ExpertSlot slot = expertSlot(e, blockIdx.z);
    if (slot.count == 0) return;
    __syncthreads();
    const ExpertLayers<Layers> expert(e, shared, slot.expert, tiles);
    int base = blockIdx.x * teams;
    Tile loading[Layers];
    auto select = [&](int at) {
#pragma unroll
        for (int l = 0; l < Layers; ++l)
            loading[l].select(expert.layer(l), expert.outFeatures(l), expert.firstTile[l] + min(at + team, tiles - 1), K, lane);
    };
    CodePair q[Depth][Layers];
    select(base);
#pragma unroll
    for (int d = 0; d < Depth; ++d)
#pragma unroll
        for (int l = 0; l < Layers; ++l)
            if (member + d * size < pairs) loading[l].load(q[d][l], member + d * size);
    float offsets[Layers];
#pragma unroll
    for (int l = 0; l < Layers; ++l) offsets[l] = Scales == nestedScales ? expert.nestedOffset(l) : 0.f;
    const Staged staged = stagedLayout<T>(stagedRows(e, slot), slot.count, 2 * pairs);
    if constexpr (Tokens == 1) {
        const u8 *input = (const u8 *)a.input + inputRow(e, blockIdx.z) * e.inputRowBytes;
        stageExpertInput<T>((const T *)input, K, 2 * pairs, fewTable, shared.factors);
    }
    __syncthreads();

    const u32 table = __shfl_sync(~0u, sharedAddress(fewTable), 0);
    const Work work = {table, (u32)lane * 4, shared, staged.fragments + 2 * lane};
    const int perTeam = Tokens == 1 ? 16 : 16 * slot.count;
    for (int buffer = 0; base < tiles; base += step, buffer ^= 1) {
        // Asked for here, a bias is near when the sums are there.
        if (threadIdx.x < teams * Layers) {
            const int l = threadIdx.x / teams;
            const float *bias = expert.layer(l).bias;
            const int row = ((l < a.layerCount ? 0 : tiles) + min(base + (int)threadIdx.x % teams, tiles - 1)) * 16;
            if (bias) asm volatile("prefetch.global.L2 [%0];" ::"l"(bias + row));
        }
        float sums[Layers][Work::count] = {};
        const bool hasNext = base + step < tiles;
        for (int first = member; first < pairs; first += Depth * size) {
            const bool isLast = first + Depth * size >= pairs;
            if (isLast && hasNext) select(base + step);
#pragma unroll
            for (int d = 0; d < Depth; ++d) {
                const int pair = first + d * size, next = isLast ? member + d * size : pair + Depth * size;
#pragma unroll
                for (int l = 0; l < Layers; ++l) {
                    if (pair < pairs) work.add(sums[l], q[d][l], pair, offsets[l]);
                    if (next < pairs && (!isLast || hasNext)) loading[l].load(q[d][l], next);
                }
            }
        }
#pragma unroll
        for (int l = 0; l < Layers; ++l)
#pragma unroll
            for (int i = 0; i < Work::count; ++i) {
                const int row = (lane >> 2) + 8 * (i / (Work::count / 2)), token = 2 * (lane & 3) + i % 2;
                if constexpr (Tokens > 1)
                    tokenSums<Layers>(fewTable, buffer, warp, l, token)[row] = sums[l][i];
                else if ((lane & 3) == 0)
                    shared.sums[buffer][warp][l][row] = sums[l][i];
            }
        __syncthreads();
        for (int i = threadIdx.x; i < teams * perTeam; i += NIBBLE_FEW_EXPERTS_THREADS) {
            const int from = i / perTeam, token = i % perTeam / 16, row = i % 16, output = (base + from) * 16 + row;
            if (output >= outputs) continue;
            float y[Layers];
#pragma unroll
            for (int l = 0; l < Layers; ++l) {
                const float *bias = expert.layer(l).bias;
                y[l] = 0.f;
                for (int w = from * size; w < (from + 1) * size; ++w)
                    y[l] += Tokens == 1 ? shared.sums[buffer][w][l][row] : tokenSums<Layers>(fewTable, buffer, w, l, token)[row];
                if (Tokens > 1) y[l] *= staged.factors[token];
                if (bias) y[l] += bias[expert.firstTile[l] * 16 + output];
            }
            storeOutput<Layers>(a.epilogue, slot.first + token, output, y);
        }
    }
}

#ifdef NIBBLE_POWERS
#define BODY(T, TOKENS, LAYERS, DEPTH) fewExpertsBody<T, powersOfTwo, TOKENS, LAYERS, DEPTH>(e, shared)
#else
#define BODY(T, TOKENS, LAYERS, DEPTH)                                     \
    if (e.hasNestedScales)                                                 \
        fewExpertsBody<T, nestedScales, TOKENS, LAYERS, DEPTH>(e, shared); \
    else                                                                   \
        fewExpertsBody<T, plainScales, TOKENS, LAYERS, DEPTH>(e, shared)
#endif
#define FEW_EXPERTS(NAME, T, TOKENS, LAYERS, DEPTH)                             \
    extern "C" __global__ void __launch_bounds__(NIBBLE_FEW_EXPERTS_THREADS, 3) \
        NAME(const __grid_constant__ NibbleExpertsArguments e) {                \
        __shared__ FewShared shared;                                            \
        if constexpr (IS_WANTED(NAME)) {                                        \
            BODY(T, TOKENS, LAYERS, DEPTH);                                     \
        }                                                                       \
    }
#define INSTANCE_f32(T)
#define INSTANCE_16(T)                                   \
    FEW_EXPERTS(gemv_experts_4bit_##T, T, 1, 1, 4)       \
    FEW_EXPERTS(gemv_experts_4bit_gated_##T, T, 1, 2, 2) \
    FEW_EXPERTS(gemm_experts_4bit_few_##T, T, 8, 1, 3)   \
    FEW_EXPERTS(gemm_experts_4bit_few_gated_##T, T, 8, 2, 2)
#define INSTANCE_f16(T) INSTANCE_16(T)
#define INSTANCE_bf16(T) INSTANCE_16(T)
#define INSTANCE(T) INSTANCE_##T(T)
NIBBLE_FOR_TYPES(INSTANCE)
