// LayerNorm and RMSNorm over rows, with an optional residual added after.
#include "common.cuh"

template <typename T>
struct Typed {
    static __device__ __forceinline__ float load(const void *p, long long i, int) { return toFloat(((const T *)p)[i]); }
    static __device__ __forceinline__ void store(void *p, long long i, int, float x) { ((T *)p)[i] = fromFloat<T>(x); }
};

struct AnyType {
    static __device__ __forceinline__ float load(const void *p, long long i, int type) { return loadAs(p, i, type); }
    static __device__ __forceinline__ void store(void *p, long long i, int type, float x) { storeAs(p, i, type, x); }
};

// Every thread's loop is over the same columns in each pass, so the output may be the input or the residual.
template <typename Input, typename Output, typename Residual>
__device__ __forceinline__ void normRow(const NibbleNormArguments &a) {
    const long long row = (long long)blockIdx.x * a.width;
    const float count = (float)a.width;
    float mean = 0.f;
    if (a.isLayerNorm) {
        float sum = 0.f;
        for (int e = threadIdx.x; e < a.width; e += blockDim.x) sum += Input::load(a.input, row + e, a.inputType);
        mean = blockSum(sum) / count;
    }
    float squares = 0.f;
    for (int e = threadIdx.x; e < a.width; e += blockDim.x) {
        const float x = Input::load(a.input, row + e, a.inputType) - mean;
        squares += x * x;
    }
    const float scale = 1.f / sqrtf(blockSum(squares) / count + a.epsilon);
    for (int e = threadIdx.x; e < a.width; e += blockDim.x) {
        float x = (Input::load(a.input, row + e, a.inputType) - mean) * scale;
        if (a.weight) x *= a.weight[e];
        if (a.bias) x += a.bias[e];
        if (a.residual) x += Residual::load(a.residual, row + e, a.residualType);
        Output::store(a.output, row + e, a.outputType, x);
    }
}

// grid rows; the block's size depends on the width alone, so that a row's sums are always taken in the same order.
extern "C" __global__ void normalize(const __grid_constant__ NibbleNormArguments a) {
    beginKernel();
    // The usual ways: out of the residual stream, and into it.
    const int in = a.inputType, out = a.outputType;
    const bool reads = in == NIBBLE_F32 && !a.residual,
               joins = out == NIBBLE_F32 && (!a.residual || a.residualType == NIBBLE_F32);
    if (reads && out == NIBBLE_BF16)
        normRow<Typed<f32>, Typed<bf16>, AnyType>(a);
    else if (reads && out == NIBBLE_F16)
        normRow<Typed<f32>, Typed<f16>, AnyType>(a);
    else if (joins && in == NIBBLE_BF16)
        normRow<Typed<bf16>, Typed<f32>, Typed<f32>>(a);
    else if (joins && in == NIBBLE_F16)
        normRow<Typed<f16>, Typed<f32>, Typed<f32>>(a);
    else if (joins && in == NIBBLE_F32)
        normRow<Typed<f32>, Typed<f32>, Typed<f32>>(a);
    else
        normRow<AnyType, AnyType, AnyType>(a);
}
