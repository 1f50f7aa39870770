// Compute capability 9.0: integer products of a warpgroup, tiles of matrices by tensor maps, and bfloat16 beside float16.
#pragma once
#include "warpgroup.cuh"

#if NIBBLE_HAS_WARPGROUPS
// Announces `bytes` without an arrival.
__device__ __forceinline__ void expectBytes(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

// Copies the box at column x and row y of a matrix; zeros outside of it. All of the box counts for the barrier.
__device__ __forceinline__ void copyBox(u32 to, const NibbleTensorMap &map, int x, int y, u32 barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
        "l"(&map), "r"(x), "r"(y), "r"(barrier)
        : "memory");
}

// The same for memory that is read once in a while: it leaves the second-level cache first.
__device__ __forceinline__ void copyBoxOnce(u32 to, const NibbleTensorMap &map, int x, int y, u32 barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%2, %3}], "
        "[%4], %5;" ::"r"(to),
        "l"(&map), "r"(x), "r"(y), "r"(barrier), "l"(readOnce())
        : "memory");
}

// Describes rows of 128 bytes whose 16-byte chunks are swizzled, as boxes arrive; 8 rows begin at a multiple of 1,024 bytes.
__device__ __forceinline__ u64 describeSwizzled(u32 address) {
    return (u64)((address & 0x3ffff) >> 4) | 1ull << 16 | 64ull << 32 | 1ull << 62;
}

template <int count>
__device__ __forceinline__ void fenceSums(int (&c)[count]) {
#pragma unroll
    for (int i = 0; i < count; ++i) asm volatile("" : "+r"(c[i])::"memory");
}

#define NIBBLE_INTEGERS_4(i) "+r"(c[i]), "+r"(c[i + 1]), "+r"(c[i + 2]), "+r"(c[i + 3])
#define NIBBLE_INTEGERS_8(i) NIBBLE_INTEGERS_4(i), NIBBLE_INTEGERS_4(i + 4)
#define NIBBLE_INTEGERS_16(i) NIBBLE_INTEGERS_8(i), NIBBLE_INTEGERS_8(i + 8)
#define NIBBLE_INTEGERS_32(i) NIBBLE_INTEGERS_16(i), NIBBLE_INTEGERS_16(i + 16)
#define NIBBLE_INTEGERS_64(i) NIBBLE_INTEGERS_32(i), NIBBLE_INTEGERS_32(i + 32)

// c += a b: a are 64 rows of 32 integers, b N rows, both in shared memory. c is ordered as by `multiplyWarpgroup`.
#define NIBBLE_MULTIPLY_INT8(N, COUNT, A, B)                                                                            \
    __device__ __forceinline__ void multiplyWarpgroup(int (&c)[COUNT], u64 a, u64 b) {                                  \
        asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k32.s32.s8.s8 {" NIBBLE_LIST_##COUNT "}, " A ", " B ", 1;" \
                     : NIBBLE_INTEGERS_##COUNT(0)                                                                       \
                     : "l"(a), "l"(b)                                                                                   \
                     : "memory");                                                                                       \
    }
NIBBLE_MULTIPLY_INT8(8, 4, "%4", "%5")
NIBBLE_MULTIPLY_INT8(16, 8, "%8", "%9")
NIBBLE_MULTIPLY_INT8(32, 16, "%16", "%17")
NIBBLE_MULTIPLY_INT8(64, 32, "%32", "%33")
NIBBLE_MULTIPLY_INT8(128, 64, "%64", "%65")

// c += a b as `multiplyWarpgroup` with float16 operands, or with bfloat16 ones.
template <int count>
__device__ __forceinline__ void addProducts(f16, float (&c)[count], const u32 (&a)[4], u64 b) {
    multiplyWarpgroup(c, a, b, 1);
}
#define NIBBLE_MULTIPLY_BF16(N, COUNT, A, B)                                                                           \
    __device__ __forceinline__ void addProducts(bf16, float (&c)[COUNT], const u32(&a)[4], u64 b) {                    \
        asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" NIBBLE_LIST_##COUNT "}, {" A "}, " B \
                                                                                                      ", 1, 1, 1, 0;"  \
                     : NIBBLE_SUMS_##COUNT(0)                                                                          \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)                                              \
                     : "memory");                                                                                      \
    }
NIBBLE_MULTIPLY_BF16(8, 4, "%4,%5,%6,%7", "%8")
NIBBLE_MULTIPLY_BF16(16, 8, "%8,%9,%10,%11", "%12")
NIBBLE_MULTIPLY_BF16(32, 16, "%16,%17,%18,%19", "%20")
NIBBLE_MULTIPLY_BF16(64, 32, "%32,%33,%34,%35", "%36")
NIBBLE_MULTIPLY_BF16(128, 64, "%64,%65,%66,%67", "%68")

// Four integers of a word as two pairs of 16-bit floats, exactly. A byte becomes the low bits of 1024 (float16) or 128.
__device__ __forceinline__ void toPairs(f16, u32 word, u32 &first, u32 &second) {
    const u32 biased = word ^ 0x80808080u, magic = 0x64646464u, offset = 0x64806480u;  // 1024 + 128
    asm("sub.f16x2 %0, %1, %2;" : "=r"(first) : "r"(__byte_perm(biased, magic, 0x4140)), "r"(offset));
    asm("sub.f16x2 %0, %1, %2;" : "=r"(second) : "r"(__byte_perm(biased, magic, 0x4342)), "r"(offset));
}
__device__ __forceinline__ u32 differenceOf(u32 bytes) {  // 128 + low bits - (128 or 256, by the sign)
    u32 pair;
    asm("sub.bf16x2 %0, %1, %2;"
        : "=r"(pair)
        : "r"((bytes & 0x007f007fu) | 0x43004300u), "r"((bytes & 0x00800080u) | 0x43004300u));
    return pair;
}
__device__ __forceinline__ void toPairs(bf16, u32 word, u32 &first, u32 &second) {
    first = differenceOf(__byte_perm(word, 0, 0x4140));
    second = differenceOf(__byte_perm(word, 0, 0x4342));
}
#endif
