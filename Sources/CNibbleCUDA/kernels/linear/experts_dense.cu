// Dense products of a mixture's experts.
#define NIBBLE_EXPERTS
#include "linear_dense.cu"
#include "experts.cuh"

#define EXPERTS_16(T)                                                                                     \
    extern "C" __global__ void __launch_bounds__(NIBBLE_GEMV_SINGLE_THREADS, NIBBLE_GEMV_SINGLE_RESIDENT) \
        gemv_experts_single_##T(const __grid_constant__ NibbleExpertsArguments e) {                       \
        __shared__ NibbleLinearArguments a;                                                               \
        if (loadExpert(a, e)) gemvSingleBody<T, 8>(a);                                                    \
    }
#define EXPERTS_f32(T)
#define EXPERTS_f16(T) EXPERTS_16(T)
#define EXPERTS_bf16(T) EXPERTS_16(T)
#define EXPERTS(T)                                                                   \
    EXPERTS_##T(T) extern "C" __global__ void __launch_bounds__(NIBBLE_GEMV_THREADS) \
        gemv_experts_##T(const __grid_constant__ NibbleExpertsArguments e) {         \
        __shared__ NibbleLinearArguments a;                                          \
        if (loadExpert(a, e)) gemvBody<T>(a);                                        \
    }                                                                                \
    extern "C" __global__ void __launch_bounds__(NIBBLE_GEMM_THREADS)                \
        gemm_experts_##T(const __grid_constant__ NibbleExpertsArguments e) {         \
        NibbleLinearArguments a;                                                     \
        if (loadOwnExpert(a, e)) gemmBody<T>(a);                                     \
    }
NIBBLE_FOR_TYPES(EXPERTS)
