// 4-bit products of a mixture's experts on warpgroups (linear_4bit_wide.cu), for up to 128 positions of an expert.
#define NIBBLE_EXPERTS
#include "linear_4bit_wide.cu"
#include "experts.cuh"

// A block stages one position.
template <typename T>
__device__ __forceinline__ void stageWideExpertsBody(const NibbleExpertsArguments &e) {
    beginKernel();
    const int position = blockIdx.x, z = slotOfPosition(e, position), K = e.linear.inFeatures;
    if (z < 0) return;
    const ExpertSlot slot = expertSlot(e, z);
    const T *token = (const T *)e.linear.input + inputRow(e, position) * K;
    stageWideRow(RowInput<T>(token, e.linear.prologue, K), WideStaged(stagedRows(e, slot), slot.count, (K + 127) / 128),
                 position - slot.first, (K + 127) / 128);
}

#define WIDE_EXPERTS(TOKENS, RESIDENT)                                                 \
    extern "C" __global__ void __launch_bounds__(NIBBLE_WIDE_4BIT_THREADS, RESIDENT)   \
        gemm_experts_wide_##TOKENS(const __grid_constant__ NibbleExpertsArguments e) { \
        __shared__ NibbleLinearArguments a;                                            \
        if constexpr (IS_WANTED(gemm_experts_wide_##TOKENS)) {                         \
            if (loadExpert(a, e)) wideProduct<TOKENS>(a);                              \
        }                                                                              \
    }
#if !defined(NIBBLE_ONLY_F16) && !defined(NIBBLE_ONLY_BF16)
WIDE_EXPERTS(16, 2)
WIDE_EXPERTS(32, 2)
WIDE_EXPERTS(64, 2)
WIDE_EXPERTS(128, 1)
#endif

#define STAGE_WIDE_EXPERTS(T)                                                        \
    extern "C" __global__ void __launch_bounds__(NIBBLE_WIDE_4BIT_STAGE_THREADS)     \
        stage_experts_wide_##T(const __grid_constant__ NibbleExpertsArguments e) {   \
        if constexpr (IS_WANTED(stage_experts_wide_##T)) stageWideExpertsBody<T>(e); \
    }
#define EXPERTS_f32(T)
#define EXPERTS_f16(T) STAGE_WIDE_EXPERTS(T)
#define EXPERTS_bf16(T) STAGE_WIDE_EXPERTS(T)
#define EXPERTS(T) EXPERTS_##T(T)
NIBBLE_FOR_TYPES(EXPERTS)
