// Compute capability 9.0: products of a warpgroup, barriers in shared memory with bulk copies, and clusters of blocks.
#pragma once
#include "mma.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define NIBBLE_HAS_WARPGROUPS 1

// MARK: Barriers in shared memory. A phase ends when all arrivals and all announced bytes are in.

__device__ __forceinline__ void initBarrier(u32 barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// Makes initialized barriers known to the copy engine.
__device__ __forceinline__ void fenceBarriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

__device__ __forceinline__ void arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// An arrival that announces `bytes`.
__device__ __forceinline__ void arriveExpecting(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

// Waits for the end of phase i, given i & 1.
__device__ __forceinline__ void waitBarrier(u32 barrier, u32 parity) {
    u32 done;
    do
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                     : "=r"(done)
                     : "r"(barrier), "r"(parity)
                     : "memory");
    while (!done);
}

// Copies `bytes`, a multiple of 16, to shared memory; they count for the barrier.
__device__ __forceinline__ void copyBulk(u32 to, const void *from, u32 bytes, u32 barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from),
                 "r"(bytes), "r"(barrier)
                 : "memory");
}

// For what is read once: it leaves the second-level cache first.
__device__ __forceinline__ u64 readOnce() {
    u64 policy;
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}

__device__ __forceinline__ void copyBulk(u32 to, const void *from, u32 bytes, u32 barrier, u64 policy) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(to),
        "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
        : "memory");
}

// True in one lane, as the compiler knows: a copy needs no loop over lanes then.
__device__ __forceinline__ bool elected() {
    u32 mine;
    asm volatile("{ .reg .pred p; elect.sync _|p, 0xffffffff; selp.u32 %0, 1, 0, p; }" : "=r"(mine)::"memory");
    return mine;
}

// MARK: Clusters

__device__ __forceinline__ u32 clusterRank() {
    u32 r;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
    return r;
}

__device__ __forceinline__ u32 clusterSize() {
    u32 r;
    asm("mov.u32 %0, %%cluster_nctaid.x;" : "=r"(r));
    return r;
}

// Orders shared-memory accesses of all threads of the cluster before and after it.
__device__ __forceinline__ void syncCluster() {
    __syncwarp();
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// A barrier that orders nothing.
__device__ __forceinline__ void meetCluster() {
    __syncwarp();
    asm volatile("barrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
}

// A float at `address` of this block's shared memory, in the block of that rank.
__device__ __forceinline__ float loadFromCluster(u32 address, u32 rank) {
    u32 there;
    float v;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
    asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(v) : "r"(there) : "memory");
    return v;
}

// MARK: Products of a warpgroup

// Makes what this thread wrote to shared memory visible to products.
__device__ __forceinline__ void fenceForProducts() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Begins the products that follow: registers and shared memory written before are seen by them.
__device__ __forceinline__ void beginProducts() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void commitProducts() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until at most `pending` of the committed groups run.
template <int pending = 0>
__device__ __forceinline__ void waitProducts() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

// Keeps the compiler from moving accesses to the sums of products in flight.
template <int count>
__device__ __forceinline__ void fenceSums(float (&c)[count]) {
#pragma unroll
    for (int i = 0; i < count; ++i) asm volatile("" : "+f"(c[i])::"memory");
}

// Describes 8 x 8 matrices of 128 consecutive bytes: `alongK` bytes from one to the next along K, `alongN` along N.
__device__ __forceinline__ u64 describeMatrices(u32 address, u32 alongK, u32 alongN) {
    return (u64)((address & 0x3ffff) >> 4) | (u64)(alongK >> 4) << 16 | (u64)(alongN >> 4) << 32;
}

#define NIBBLE_LIST_4 "%0,%1,%2,%3"
#define NIBBLE_LIST_8 NIBBLE_LIST_4 ",%4,%5,%6,%7"
#define NIBBLE_LIST_16 NIBBLE_LIST_8 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define NIBBLE_LIST_32 NIBBLE_LIST_16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define NIBBLE_LIST_48 NIBBLE_LIST_32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define NIBBLE_LIST_64 NIBBLE_LIST_48 ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define NIBBLE_SUMS_4(i) "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3])
#define NIBBLE_SUMS_8(i) NIBBLE_SUMS_4(i), NIBBLE_SUMS_4(i + 4)
#define NIBBLE_SUMS_16(i) NIBBLE_SUMS_8(i), NIBBLE_SUMS_8(i + 8)
#define NIBBLE_SUMS_32(i) NIBBLE_SUMS_16(i), NIBBLE_SUMS_16(i + 16)
#define NIBBLE_SUMS_48(i) NIBBLE_SUMS_32(i), NIBBLE_SUMS_16(i + 32)
#define NIBBLE_SUMS_64(i) NIBBLE_SUMS_32(i), NIBBLE_SUMS_32(i + 32)

// c = a b, plus c if `adds`: a are 64 x 16 float16 values in the warps' registers (16 rows a warp, ordered as by mma), b those of
// N columns. Lane 4 g + t holds for columns 8 j + 2 t, + 1 row g in c[4 j], c[4 j + 1] and row g + 8 in the next two.
#define NIBBLE_MULTIPLY(N, COUNT, A, DESCRIPTION, ADDS)                                                       \
    __device__ __forceinline__ void multiplyWarpgroup(float (&c)[COUNT], const u32(&a)[4], u64 b, int adds) { \
        asm volatile("{ .reg .pred p; setp.ne.b32 p, " ADDS ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N      \
                     "k16.f32.f16.f16 {" NIBBLE_LIST_##COUNT "}, {" A "}, " DESCRIPTION ", p, 1, 1, 0; }"     \
                     : NIBBLE_SUMS_##COUNT(0)                                                                 \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(adds)                          \
                     : "memory");                                                                             \
    }
NIBBLE_MULTIPLY(8, 4, "%4,%5,%6,%7", "%8", "%9")
NIBBLE_MULTIPLY(16, 8, "%8,%9,%10,%11", "%12", "%13")
NIBBLE_MULTIPLY(32, 16, "%16,%17,%18,%19", "%20", "%21")
NIBBLE_MULTIPLY(64, 32, "%32,%33,%34,%35", "%36", "%37")
NIBBLE_MULTIPLY(96, 48, "%48,%49,%50,%51", "%52", "%53")
NIBBLE_MULTIPLY(128, 64, "%64,%65,%66,%67", "%68", "%69")
#endif
