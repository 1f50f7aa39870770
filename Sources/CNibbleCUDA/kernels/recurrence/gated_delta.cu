// The gated delta rule: a block holds NIBBLE_DELTA_COLUMNS value columns of one head's state in registers while it goes through
// a row's tokens, so that the state is read and written once a call.
//
// A warp has 8 columns; 4 lanes share a column, each with every fourth run of four keys.
#include "state_rows.cuh"

#define TILE 16  // tokens that are staged together
#define WARPS (NIBBLE_STATE_THREADS / 32)
#define WARP_TOKENS (TILE / WARPS)

// Keys: K rounded up to 32, 64, 128 or 256.
template <int Keys>
struct DeltaTile {
    float q[TILE][Keys];
    float k[TILE][Keys];
    float v[TILE][NIBBLE_DELTA_COLUMNS];
    float out[TILE][NIBBLE_DELTA_COLUMNS];
    float decay[TILE];
    float beta[TILE];
};

// What a thread loads of the next tile while the one before is computed: WARP_TOKENS tokens a warp.
template <int Keys>
struct DeltaLoads {
    float q[WARP_TOKENS][Keys / 32];
    float k[WARP_TOKENS][Keys / 32];
    float v[WARP_TOKENS];
    float decay[WARP_TOKENS];
    float beta[WARP_TOKENS];
};

struct DeltaHead {
    int head, firstColumn, queryStart, keyStart, valueStart;
    float rate, timeBias;
};

template <int Keys>
__device__ __forceinline__ void load(const NibbleDeltaArguments &a, const DeltaHead &h, const StateRow &row, int begin,
                                     DeltaLoads<Keys> &loads) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < WARP_TOKENS; ++i) {
        const int at = begin + warp * WARP_TOKENS + i;
        if (at >= row.count) return;
        const long long token = row.first + at;
#pragma unroll
        for (int j = 0; j < Keys / 32; ++j) {
            const int e = 32 * j + lane;
            loads.q[i][j] = e < a.keySize ? loadAs(a.mixed, token, h.queryStart + e) : 0.f;
            loads.k[i][j] = e < a.keySize ? loadAs(a.mixed, token, h.keyStart + e) : 0.f;
        }
        loads.v[i] = h.firstColumn + lane < a.valueSize ? loadAs(a.mixed, token, h.valueStart + lane) : 0.f;
        loads.decay[i] = loadAs(a.a, token, h.head);
        loads.beta[i] = loadAs(a.b, token, h.head);
    }
}

// Normalizes what was loaded and puts it into the tile.
template <int Keys>
__device__ __forceinline__ void stage(const NibbleDeltaArguments &a, const DeltaHead &h, int count, const DeltaLoads<Keys> &loads,
                                      DeltaTile<Keys> &tile) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < WARP_TOKENS; ++i) {
        const int t = warp * WARP_TOKENS + i;
        if (t >= count) return;
        float querySquares = 0.f, keySquares = 0.f;
#pragma unroll
        for (int j = 0; j < Keys / 32; ++j) {
            querySquares = fmaf(loads.q[i][j], loads.q[i][j], querySquares);
            keySquares = fmaf(loads.k[i][j], loads.k[i][j], keySquares);
        }
        const float queryFactor = 1.f / (sqrtf(warpSum(querySquares) + 1e-6f) * sqrtf((float)a.keySize));
        const float keyFactor = 1.f / sqrtf(warpSum(keySquares) + 1e-6f);
#pragma unroll
        for (int j = 0; j < Keys / 32; ++j) {
            tile.q[t][32 * j + lane] = loads.q[i][j] * queryFactor;
            tile.k[t][32 * j + lane] = loads.k[i][j] * keyFactor;
        }
        tile.v[t][lane] = loads.v[i];
        if (lane == 0) {
            tile.decay[t] = expf(h.rate * softplus(loads.decay[i] + h.timeBias));
            tile.beta[t] = 1.f / (1.f + expf(-loads.beta[i]));
        }
    }
}

// The sum over the four lanes of a column.
__device__ __forceinline__ float columnSum(float x) {
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}

// Σ state · x over the lane's keys, in two sums, so that fewer additions wait for each other.
template <int Keys>
__device__ __forceinline__ float product(const float (&state)[Keys / 4], const float *x, int part) {
    float even = 0.f, odd = 0.f;
#pragma unroll
    for (int j = 0; j < Keys / 16; ++j) {
        const float4 v = *(const float4 *)(x + 16 * j + 4 * part);
        even = fmaf(state[4 * j], v.x, even);
        odd = fmaf(state[4 * j + 1], v.y, odd);
        even = fmaf(state[4 * j + 2], v.z, even);
        odd = fmaf(state[4 * j + 3], v.w, odd);
    }
    return even + odd;
}

template <int Keys>
__device__ __forceinline__ void step(float (&state)[Keys / 4], DeltaTile<Keys> &tile, int t, int column, int part) {
    const float decay = tile.decay[t];
    const float held = columnSum(product<Keys>(state, tile.k[t], part));
    const float change = tile.beta[t] * (tile.v[t][column] - decay * held);
#pragma unroll
    for (int j = 0; j < Keys / 16; ++j) {
        const float4 k = *(const float4 *)(tile.k[t] + 16 * j + 4 * part);
        state[4 * j] = fmaf(k.x, change, decay * state[4 * j]);
        state[4 * j + 1] = fmaf(k.y, change, decay * state[4 * j + 1]);
        state[4 * j + 2] = fmaf(k.z, change, decay * state[4 * j + 2]);
        state[4 * j + 3] = fmaf(k.w, change, decay * state[4 * j + 3]);
    }
    const float out = columnSum(product<Keys>(state, tile.q[t], part));
    if (part == 0) tile.out[t][column] = out;
}

template <int Keys>
__device__ __forceinline__ void gatedDelta(const NibbleDeltaArguments &a) {
    __shared__ __align__(16) DeltaTile<Keys> tile;
    beginKernel();
    const StateRow row = findRow(a.rows, blockIdx.y);
    if (row.count == 0) return;
    const int slices = (a.valueSize + NIBBLE_DELTA_COLUMNS - 1) / NIBBLE_DELTA_COLUMNS;
    const int lane = threadIdx.x % 32, part = lane % 4, column = threadIdx.x / 32 * 8 + lane / 4;
    DeltaHead h;
    h.head = blockIdx.x / slices;
    h.firstColumn = blockIdx.x % slices * NIBBLE_DELTA_COLUMNS;
    h.queryStart = h.head / (a.valueHeads / a.keyHeads) * a.keySize;
    h.keyStart = h.queryStart + a.keyHeads * a.keySize;
    h.valueStart = 2 * a.keyHeads * a.keySize + h.head * a.valueSize + h.firstColumn;
    h.rate = -expf(a.rate[h.head]);
    h.timeBias = a.timeBias[h.head];

    const long long size = (long long)a.keySize * a.valueSize;
    const bool hasColumn = h.firstColumn + column < a.valueSize;
    const float *from = a.matrix + (row.from * a.valueHeads + h.head) * size + h.firstColumn + column;
    float *to = a.matrix + (row.to * a.valueHeads + h.head) * size + h.firstColumn + column;
    DeltaLoads<Keys> loads;
    load(a, h, row, 0, loads);
    float state[Keys / 4];
#pragma unroll
    for (int i = 0; i < Keys / 4; ++i) {
        const int key = i / 4 * 16 + part * 4 + i % 4;
        state[i] = hasColumn && key < a.keySize && !row.begins ? from[(long long)key * a.valueSize] : 0.f;
    }
    for (int begin = 0; begin < row.count; begin += TILE) {
        const int count = min(TILE, row.count - begin);
        stage(a, h, count, loads, tile);
        __syncthreads();
        load(a, h, row, begin + TILE, loads);
        for (int t = 0; t < count; ++t) step<Keys>(state, tile, t, column, part);
        __syncthreads();
        for (int i = threadIdx.x; i < count * NIBBLE_DELTA_COLUMNS; i += NIBBLE_STATE_THREADS) {
            const int t = i / NIBBLE_DELTA_COLUMNS, c = i % NIBBLE_DELTA_COLUMNS;
            if (h.firstColumn + c >= a.valueSize) continue;
            const long long at = ((row.first + begin + t) * a.valueHeads + h.head) * a.valueSize + h.firstColumn + c;
            storeAs(a.output, at, a.outputType, tile.out[t][c]);
        }
    }
#pragma unroll
    for (int i = 0; i < Keys / 4; ++i) {
        const int key = i / 4 * 16 + part * 4 + i % 4;
        if (hasColumn && key < a.keySize) to[(long long)key * a.valueSize] = state[i];
    }
}

// grid (Hv * (V / NIBBLE_DELTA_COLUMNS rounded up), R)
#define NIBBLE_DEFINE(Keys)                                                  \
    extern "C" __global__ void __launch_bounds__(NIBBLE_STATE_THREADS)       \
        gated_delta_##Keys(const __grid_constant__ NibbleDeltaArguments a) { \
        if constexpr (IS_WANTED(gated_delta_##Keys)) gatedDelta<Keys>(a);    \
    }
NIBBLE_DEFINE(32)
NIBBLE_DEFINE(64)
NIBBLE_DEFINE(128)
NIBBLE_DEFINE(256)
