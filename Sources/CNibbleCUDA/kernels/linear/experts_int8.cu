// LLM.int8() products of a mixture's experts, over rows that are quantized by position.
#define NIBBLE_EXPERTS
#include "linear_int8.cu"
#include "experts.cuh"

#define EXPERTS(T)                                                                \
    extern "C" __global__ void __launch_bounds__(NIBBLE_GEMV_INT8_THREADS)        \
        gemv_experts_int8_##T(const __grid_constant__ NibbleExpertsArguments e) { \
        __shared__ NibbleLinearArguments a;                                       \
        if (loadExpert(a, e)) gemvInt8Body<T>(a);                                 \
    }                                                                             \
    extern "C" __global__ void __launch_bounds__(NIBBLE_GEMM_INT8_THREADS)        \
        gemm_experts_int8_##T(const __grid_constant__ NibbleExpertsArguments e) { \
        NibbleLinearArguments a;                                                  \
        if (loadOwnExpert(a, e)) gemmInt8Body<T>(a);                              \
    }
NIBBLE_FOR_TYPES(EXPERTS)
