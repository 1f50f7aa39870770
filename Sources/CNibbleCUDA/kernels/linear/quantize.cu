// Quantizes weights to FP4, NF4 and int8, and scales to nested scales. The arithmetic is that of bitsandbytes' CUDA kernels,
// approximate reciprocals and flushed denormals included, so that the bytes are identical.
#include "codebooks.cuh"

__device__ __forceinline__ float reciprocalFlushing(float x) {
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

__device__ __forceinline__ float multiplyFlushing(float a, float b) {
    float r;
    asm("mul.rn.ftz.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
    return r;
}

__device__ __forceinline__ bool isFinite(float x) { return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u; }

// Two neighbouring elements; zero past the end.
template <typename T>
__device__ __forceinline__ float2 pairAt(const T *p, long long i, long long count) {
    float2 v;
    v.x = i < count ? toFloat(p[i]) : 0.f;
    v.y = i + 1 < count ? toFloat(p[i + 1]) : 0.f;
    return v;
}

// A warp takes one quantization block at a time; a lane takes pairs of elements, which share a byte of codes.
template <typename S>
__device__ __forceinline__ void quantize4Body(const NibbleQuantize4Arguments &a) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const long long size = 1LL << a.blockSizeLog2;
    const long long blocks = (a.count + size - 1) >> a.blockSizeLog2;
    const S *input = (const S *)a.input;
    const u32 zeroCode = a.codebook == NIBBLE_NF4 ? 7 : 0;
    for (int j = warp; j < NIBBLE_QUANTIZE4_BLOCKS; j += 8) {
        const long long block = (long long)blockIdx.x * NIBBLE_QUANTIZE4_BLOCKS + j;
        if (block >= blocks) break;
        const long long start = block << a.blockSizeLog2;
        const long long end = start + size < a.count ? start + size : a.count;
        float absmax = 0.f;
        for (long long i = start + 2 * lane; i < end; i += 64) {
            float2 v = pairAt(input, i, a.count);
            absmax = fmaxf(absmax, fmaxf(fabsf(v.x), fabsf(v.y)));
            if (!isFinite(v.x)) atomicMin((u64 *)a.firstNonFinite, (u64)i);
            if (!isFinite(v.y)) atomicMin((u64 *)a.firstNonFinite, (u64)(i + 1));
        }
        absmax = multiplyFlushing(warpMax(absmax), 1.f);
        const float inverse = reciprocalFlushing(absmax);
        for (long long i = start + 2 * lane; i < end; i += 64) {
            float2 v = pairAt(input, i, a.count);
            float x = multiplyFlushing(v.x, inverse), y = multiplyFlushing(v.y, inverse);
            u32 high, low;
            if (absmax == 0.f)
                high = low = zeroCode;
            else if (a.codebook == NIBBLE_NF4) {
                high = encodeNF4(x);
                low = encodeNF4(y);
            } else {
                high = encodeFP4(x);
                low = encodeFP4(y);
            }
            if (i + 1 >= a.count) low = zeroCode;
            a.codes[i >> 1] = (u8)(high << 4 | low);
        }
        if (lane == 0) a.absmax[block] = absmax;
    }
}

#define INSTANCE(S)                                                                                                           \
    extern "C" __global__ void __launch_bounds__(256) quantize_4bit_##S(const __grid_constant__ NibbleQuantize4Arguments a) { \
        quantize4Body<S>(a);                                                                                                  \
    }
NIBBLE_FOR_TYPES(INSTANCE)
#undef INSTANCE

// One block of 1024 threads. Sums in double, in an order that depends on the count alone.
extern "C" __global__ void __launch_bounds__(1024) nested_mean(const __grid_constant__ NibbleNestedArguments a) {
    __shared__ double partial[1024];
    double sum = 0;
    for (long long i = threadIdx.x; i < a.count; i += 1024) sum += a.absmax[i];
    partial[threadIdx.x] = sum;
    __syncthreads();
    for (int half = 512; half > 0; half >>= 1) {
        if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) a.offset[0] = a.count > 0 ? (float)(partial[0] / (double)a.count) : 0.f;
}

// The nearest entry of the dynamic map; halfway between two, the even index.
__device__ __forceinline__ u32 encodeDynamic(float x) {
    if (!(x > dynamicMapValue(0))) return 0;
    if (x >= dynamicMapValue(255)) return 255;
    u32 low = 0, high = 255;  // map[low] < x < map[high]
    while (high - low > 1) {
        u32 middle = (low + high) >> 1;
        if (dynamicMapValue(middle) <= x)
            low = middle;
        else
            high = middle;
    }
    float halfway = __fmul_rn(__fadd_rn(dynamicMapValue(low), dynamicMapValue(high)), 0.5f);
    if (x == halfway) return low & 1 ? high : low;
    return x > halfway ? high : low;
}

extern "C" __global__ void __launch_bounds__(256) nested_quantize(const __grid_constant__ NibbleNestedArguments a) {
    const long long i = (long long)blockIdx.x * 256 + threadIdx.x;
    const float d = i < a.count ? __fsub_rn(a.absmax[i], a.offset[0]) : 0.f;
    const float maximum = multiplyFlushing(blockMax(fabsf(d)), 1.f);
    const float x = multiplyFlushing(d, reciprocalFlushing(maximum));
    if (i < a.count) a.codes[i] = maximum == 0.f ? 0 : (u8)encodeDynamic(x);
    if (threadIdx.x == 0) a.nestedAbsmax[blockIdx.x] = maximum;
}

// A block takes one row [K]; every value passes through float16.
template <typename S>
__device__ __forceinline__ void quantize8Body(const NibbleQuantize8Arguments &a) {
    const long long K = a.inFeatures, start = (long long)blockIdx.x * K;
    const S *row = (const S *)a.input + start;
    float absmax = 0.f;
    for (long long k = threadIdx.x; k < K; k += 256) {
        float v = toFloat(row[k]);
        if (!isFinite(v)) atomicMin((u64 *)a.firstNonFinite, (u64)(start + k));
        absmax = fmaxf(absmax, fabsf(toFloat(fromFloat<f16>(v))));
    }
    absmax = blockMax(absmax);
    const float scale = __fdividef(127.f, absmax);
    for (long long k = threadIdx.x; k < K; k += 256) {
        float v = toFloat(fromFloat<f16>(toFloat(row[k])));
        a.values[start + k] = absmax == 0.f ? 0 : (i8)__float2int_rn(multiplyFlushing(v, scale));
    }
    if (threadIdx.x == 0) a.scales[blockIdx.x] = absmax;
}

#define INSTANCE(S)                                                                                                           \
    extern "C" __global__ void __launch_bounds__(256) quantize_int8_##S(const __grid_constant__ NibbleQuantize8Arguments a) { \
        quantize8Body<S>(a);                                                                                                  \
    }
NIBBLE_FOR_TYPES(INSTANCE)
