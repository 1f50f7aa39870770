// 4-bit products of a mixture's experts over the tiled layout, for up to 64 positions of an expert.
#define NIBBLE_EXPERTS
#include "linear_4bit_tiled.cu"
#include "experts.cuh"

// A block stages one position.
template <typename T>
__device__ __forceinline__ void stageExpertsBody(const NibbleExpertsArguments &e) {
    beginKernel();
    const int position = blockIdx.x, z = slotOfPosition(e, position), K = e.linear.inFeatures;
    if (z < 0) return;
    const ExpertSlot slot = expertSlot(e, z);
    const int m = position - slot.first, columnTiles = (K + 127) / 128 * 2;
    const Staged staged = stagedLayout<T>(stagedRows(e, slot), slot.count, columnTiles);
    u32 *fragments = (u32 *)staged.fragments + (long long)(m >> 3) * columnTiles * 256 + (m & 7) * 32;
    const T *token = (const T *)e.linear.input + inputRow(e, position) * K;
    float inverse;
    if constexpr (sizeof(T) == 4)
        inverse = stageToken((const float *)token, K, columnTiles, fragments, fragments + staged.lowOffset * 4);
    else
        inverse = stageRow(RowInput<T>(token, e.linear.prologue, K), columnTiles, fragments);
    if (threadIdx.x == 0) staged.factors[m] = inverse;
}

#define EXPERT_PRODUCT(NAME, T, RT, NT, SINGLE, EXACT, DEPTH, RESIDENT)                                                         \
    extern "C" __global__ void __launch_bounds__(WARPS * 32, RESIDENT) NAME(const __grid_constant__ NibbleExpertsArguments e) { \
        __shared__ float map[256], reductions[2 * WARPS * (SINGLE ? 1 : 8) * (RT * 16 + 4)];                                    \
        __shared__ NibbleLinearArguments a;                                                                                     \
        if constexpr (IS_WANTED(NAME)) {                                                                                        \
            if (loadExpert(a, e)) tiledProduct<T, RT, NT, SINGLE, EXACT, DEPTH, 1>(a, map, reductions);                         \
        }                                                                                                                       \
    }

#define STAGE_EXPERTS(T)                                                      \
    extern "C" __global__ void __launch_bounds__(WARPS * 32)                  \
        stage_experts_##T(const __grid_constant__ NibbleExpertsArguments e) { \
        if constexpr (IS_WANTED(stage_experts_##T)) stageExpertsBody<T>(e);   \
    }

#define EXPERTS_f32(T) STAGE_EXPERTS(T) EXPERT_PRODUCT(gemm_experts_4bit_8_##T, T, 1, 1, false, true, 1, 2)
#define EXPERTS_16(T)                                                                        \
    STAGE_EXPERTS(T)                                                                         \
    EXPERT_PRODUCT(gemm_experts_4bit_8_##T, T, 1, 1, false, false, 2, SPREADS_TABLE ? 2 : 3) \
    EXPERT_PRODUCT(gemm_experts_4bit_16_##T, T, 2, 2, false, false, 1, 2)                    \
    EXPERT_PRODUCT(gemm_experts_4bit_32_##T, T, 2, 4, false, false, 1, 1)                    \
    EXPERT_PRODUCT(gemm_experts_4bit_64_##T, T, 2, 8, false, false, 1, 1)
#define EXPERTS_f16(T) EXPERTS_16(T)
#define EXPERTS_bf16(T) EXPERTS_16(T)
#define EXPERTS(T) EXPERTS_##T(T)
NIBBLE_FOR_TYPES(EXPERTS)
