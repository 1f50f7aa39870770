// Mamba 2: a block holds NIBBLE_SCAN_ROWS rows of one head's state in registers while it goes through a row's tokens, so that
// the state is read and written once a call.
//
// A warp has 4 rows of the state; 8 lanes share one, each with every eighth run of four elements.
#include "state_rows.cuh"

#define TILE 16  // tokens that are staged together

// Size: N rounded up to 32, 64, 128 or 256.
template <int Size>
struct ScanTile {
    float b[TILE][Size];
    float c[TILE][Size];
    float x[TILE][NIBBLE_SCAN_ROWS];
    float out[TILE][NIBBLE_SCAN_ROWS];
    float decay[TILE];
    float dt[TILE];
};

struct ScanHead {
    int head, firstRow, inputStart, bStart, cStart;
    float rate, timeBias, skip;
};

template <int Size>
__device__ __forceinline__ void stage(const NibbleScanArguments &a, const ScanHead &h, const StateRow &row, int begin, int count,
                                      ScanTile<Size> &tile) {
    for (int i = threadIdx.x; i < count * Size; i += NIBBLE_STATE_THREADS) {
        const int t = i / Size, n = i % Size;
        const long long token = row.first + begin + t;
        tile.b[t][n] = n < a.stateSize ? loadAs(a.mixed, token, h.bStart + n) : 0.f;
        tile.c[t][n] = n < a.stateSize ? loadAs(a.mixed, token, h.cStart + n) : 0.f;
    }
    for (int i = threadIdx.x; i < count * NIBBLE_SCAN_ROWS; i += NIBBLE_STATE_THREADS) {
        const int t = i / NIBBLE_SCAN_ROWS, p = i % NIBBLE_SCAN_ROWS;
        tile.x[t][p] = h.firstRow + p < a.headSize ? loadAs(a.mixed, row.first + begin + t, h.inputStart + p) : 0.f;
    }
    if (threadIdx.x < count) {
        float dt = softplus(a.timeScale * loadAs(a.dt, row.first + begin + threadIdx.x, h.head) + h.timeBias);
        dt = fminf(fmaxf(dt, a.leastTime), a.largestTime);
        tile.dt[threadIdx.x] = dt;
        tile.decay[threadIdx.x] = expf(dt * h.rate);
    }
}

template <int Size>
__device__ __forceinline__ void step(float4 (&state)[Size / 32], ScanTile<Size> &tile, int t, int p, int part, float skip) {
    const float decay = tile.decay[t], x = tile.x[t][p], input = tile.dt[t] * x;
    float even = 0.f, odd = 0.f;
#pragma unroll
    for (int j = 0; j < Size / 32; ++j) {
        const float4 b = *(const float4 *)(tile.b[t] + 32 * j + 4 * part), c = *(const float4 *)(tile.c[t] + 32 * j + 4 * part);
        float4 &s = state[j];
        s.x = fmaf(input, b.x, decay * s.x);
        s.y = fmaf(input, b.y, decay * s.y);
        s.z = fmaf(input, b.z, decay * s.z);
        s.w = fmaf(input, b.w, decay * s.w);
        even = fmaf(s.x, c.x, even);
        odd = fmaf(s.y, c.y, odd);
        even = fmaf(s.z, c.z, even);
        odd = fmaf(s.w, c.w, odd);
    }
    float out = even + odd;
    out += __shfl_xor_sync(~0u, out, 1);
    out += __shfl_xor_sync(~0u, out, 2);
    out += __shfl_xor_sync(~0u, out, 4);
    if (part == 0) tile.out[t][p] = fmaf(skip, x, out);
}

template <int Size>
__device__ __forceinline__ void stateSpace(const NibbleScanArguments &a) {
    __shared__ __align__(16) ScanTile<Size> tile;
    beginKernel();
    const StateRow row = findRow(a.rows, blockIdx.y);
    if (row.count == 0) return;
    const int slices = (a.headSize + NIBBLE_SCAN_ROWS - 1) / NIBBLE_SCAN_ROWS;
    const int lane = threadIdx.x % 32, part = lane % 8, p = threadIdx.x / 32 * 4 + lane / 8;
    ScanHead h;
    h.head = blockIdx.x / slices;
    h.firstRow = blockIdx.x % slices * NIBBLE_SCAN_ROWS;
    h.inputStart = h.head * a.headSize + h.firstRow;
    h.bStart = a.heads * a.headSize + h.head / (a.heads / a.groups) * a.stateSize;
    h.cStart = h.bStart + a.groups * a.stateSize;
    h.rate = -expf(a.rate[h.head]);
    h.timeBias = a.timeBias[h.head];
    h.skip = a.skip[h.head];

    const bool hasRow = h.firstRow + p < a.headSize;
    const long long at = ((long long)h.head * a.headSize + h.firstRow + p) * a.stateSize;
    const long long block = (long long)a.heads * a.headSize * a.stateSize;
    const float *from = a.matrix + row.from * block + at;
    float *to = a.matrix + row.to * block + at;
    float4 state[Size / 32];
#pragma unroll
    for (int j = 0; j < Size / 32; ++j)
        state[j] = hasRow && !row.begins ? loadFour(from, 32 * j + 4 * part, a.stateSize) : make_float4(0.f, 0.f, 0.f, 0.f);
    for (int begin = 0; begin < row.count; begin += TILE) {
        const int count = min(TILE, row.count - begin);
        stage(a, h, row, begin, count, tile);
        __syncthreads();
        for (int t = 0; t < count; ++t) step<Size>(state, tile, t, p, part, h.skip);
        __syncthreads();
        for (int i = threadIdx.x; i < count * NIBBLE_SCAN_ROWS; i += NIBBLE_STATE_THREADS) {
            const int t = i / NIBBLE_SCAN_ROWS, q = i % NIBBLE_SCAN_ROWS;
            const long long element = (row.first + begin + t) * a.heads * a.headSize + h.inputStart + q;
            if (h.firstRow + q < a.headSize) storeAs(a.output, element, a.outputType, tile.out[t][q]);
        }
    }
#pragma unroll
    for (int j = 0; j < Size / 32; ++j)
        if (hasRow) storeFour(to, 32 * j + 4 * part, a.stateSize, state[j]);
}

// grid (H * (P / NIBBLE_SCAN_ROWS rounded up), R)
#define NIBBLE_DEFINE(Size)                                                 \
    extern "C" __global__ void __launch_bounds__(NIBBLE_STATE_THREADS)      \
        state_space_##Size(const __grid_constant__ NibbleScanArguments a) { \
        if constexpr (IS_WANTED(state_space_##Size)) stateSpace<Size>(a);   \
    }
NIBBLE_DEFINE(32)
NIBBLE_DEFINE(64)
NIBBLE_DEFINE(128)
NIBBLE_DEFINE(256)
