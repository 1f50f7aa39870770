// The products of LLM.int8()'s outlier columns in a mixture's experts, for up to 64 positions of an expert.
#define NIBBLE_EXPERTS
#include "sum_outliers.cu"
#include "experts.cuh"

#define EXPERTS(T)                                                                      \
    extern "C" __global__ void __launch_bounds__(NIBBLE_OUTLIER_THREADS, 2)             \
        sum_experts_outliers_##T(const __grid_constant__ NibbleExpertsArguments e) {    \
        __shared__ NibbleLinearArguments a;                                             \
        if (loadExpert(a, e)) sumOutliersBody<T, NIBBLE_OUTLIER_TOKENS_PER_WARP, 3>(a); \
    }
NIBBLE_FOR_TYPES(EXPERTS)
