// Lets a product run beside the shrink kernel before it (low_rank.cu, shrink_wide.cu), whose sums it needs only at its end. The
// product reads its input before `griddepcontrol.wait`, which waits for the shrink kernel too, so the input is announced:
// turns[0] counts the tokens of products whose shrink kernels have begun, turns[1] those of their tokens that are there.
//
// A product begins after all blocks of its shrink kernel have, and the next shrink kernel after all blocks of the product have
// read turns[0]. All blocks that a product may wait for are therefore resident, and turns[0] is the count with its own tokens.
// Whoever makes a token, or knows it to be complete, releases turns[1]; the product acquires it.
#pragma once
#include "common.cuh"

// By all threads of a block: `count` tokens, which they have stored or seen, are there.
__device__ __forceinline__ void announceTokens(u32 *turns, u32 count) {
#if __CUDA_ARCH__ >= 900
    if (!turns) return;
    __syncthreads();
    if (threadIdx.x == 0) asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(turns + 1), "r"(count) : "memory");
#endif
}

// The first call of a shrink kernel; lets the product begin.
__device__ __forceinline__ void beginShrink(u32 *turns, u32 tokens) {
    if (turns && blockIdx.x == 0 && blockIdx.y == 0) {
        // One thread's release counts for its block.
        if (threadIdx.x > 0) return;
        atomicAdd(turns, tokens);
        __threadfence();
    }
    releaseDependents();
}

// For a product. Without NIBBLE_ADAPTERS it does what other kernels do.
struct InputTurn {
#ifdef NIBBLE_ADAPTERS
    u32 *turns;
    u32 own = 0;
#endif

    // The first call of the kernel; it lets the next kernel begin.
    __device__ __forceinline__ InputTurn(const NibbleLinearArguments &a, bool canRunBeside = true) {
#ifdef NIBBLE_ADAPTERS
        turns = canRunBeside ? a.turns : nullptr;
        if (turns) {
            if (threadIdx.x > 0) return;
            asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(own) : "l"(turns) : "memory");
#if __CUDA_ARCH__ >= 900
            // The next kernel may count only after this one has read the count.
            asm volatile("{ .reg .pred p; setp.ne.u32 p, %0, 0xffffffff; @p griddepcontrol.launch_dependents; }" ::"r"(own)
                         : "memory");
#endif
            return;
        }
#endif
        releaseDependents();
    }

    // Waits for the input. Given turns, thread 0 alone has waited; others need a barrier.
    __device__ __forceinline__ void waitForInput() const {
#ifdef NIBBLE_ADAPTERS
        if (turns) {
            if (threadIdx.x > 0) return;
            u32 ready;
            do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(ready) : "l"(turns + 1) : "memory");
            while ((int)(ready - own) < 0);
            return;
        }
#endif
        waitForPredecessors();
    }

    __device__ __forceinline__ void waitForInputOfBlock() const {
        waitForInput();
#ifdef NIBBLE_ADAPTERS
        if (turns) __syncthreads();
#endif
    }

    // Waits for the sums of adapters; called before outputs are stored.
    __device__ __forceinline__ void waitForSums() const {
#ifdef NIBBLE_ADAPTERS
        if (turns) waitForPredecessors();
#endif
    }
};
