// What C++ cannot say, in PTX: conversions, a vector store, tensor cores, a cluster's shared memory.
//
// The tests compile the same kernels for the CPU and put their own definitions in place of this
// file, so nothing else may contain assembly.
#ifndef XPMLP_INTRINSICS_CUH
#define XPMLP_INTRINSICS_CUH

__device__ inline float float_from_half(unsigned short bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}

__device__ inline unsigned short half_from_float(float x) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

__device__ inline float float_from_bfloat16(unsigned short bits) {
    return __uint_as_float((unsigned)bits << 16);
}

__device__ inline unsigned short bfloat16_from_float(float x) {
#if __CUDA_ARCH__ >= 800
    unsigned short bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
#else
    unsigned word = __float_as_uint(x);
    if (x != x) return 0x7fff;
    return (unsigned short)((word + 0x7fff + ((word >> 16) & 1)) >> 16);  // to nearest even
#endif
}

// Two at a time, the first in the low half of the word.
__device__ inline unsigned halves_from_floats(float first, float second) {
#if __CUDA_ARCH__ >= 800
    unsigned word;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
    return word;
#else
    return (unsigned)half_from_float(second) << 16 | half_from_float(first);
#endif
}

__device__ inline unsigned bfloat16s_from_floats(float first, float second) {
#if __CUDA_ARCH__ >= 800
    unsigned word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
    return word;
#else
    return (unsigned)bfloat16_from_float(second) << 16 | bfloat16_from_float(first);
#endif
}

// 2^x to 2 ulp, 0 where that is no normal number.
__device__ inline float power_of_two(float x) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
}

// The larger one; not a number if one of them is none.
__device__ inline float larger_or_nan(float a, float b) {
#if __CUDA_ARCH__ >= 800
    float result;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
    return result;
#else
    return a < b ? b : a;  // b is a number wherever this is called
#endif
}

// One store of 16 bytes. In C++ the compiler takes it apart, where another branch stores the same
// elements one by one, and does not put it together again.
__device__ inline void store_16_bytes(void* to, const void* from) {
    unsigned words[4];
    memcpy(words, from, sizeof words);
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};"
                 :
                 : "l"(__cvta_generic_to_global(to)), "r"(words[0]), "r"(words[1]), "r"(words[2]),
                   "r"(words[3])
                 : "memory");
}

#if __CUDA_ARCH__ >= 800
#define XPMLP_TENSOR_CORES 1

// The bits of x rounded to TF32.
__device__ inline unsigned tensor_float(float x) {
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}

// sums += a b, by all lanes of a warp; who holds what is said in batched_matmul.cu. KIND is the
// operands' type: 0 TF32, 1 float16, 2 bfloat16.
#define TENSOR_MULTIPLY(instruction)                                                            \
    asm("mma.sync.aligned." instruction                                                         \
        " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                      \
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])                            \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
template <int KIND>
__device__ inline void tensor_multiply(float (&sums)[4], const unsigned (&a)[4],
                                       const unsigned (&b)[2]) {
    if constexpr (KIND == 0) TENSOR_MULTIPLY("m16n8k8.row.col.f32.tf32.tf32.f32");
    if constexpr (KIND == 1) TENSOR_MULTIPLY("m16n8k16.row.col.f32.f16.f16.f32");
    if constexpr (KIND == 2) TENSOR_MULTIPLY("m16n8k16.row.col.f32.bf16.bf16.f32");
}
#endif

// The block's dynamic shared memory, and static arrays in it.
#define SHARED_BYTES(name) extern __shared__ __align__(16) unsigned char name[]
#define SHARED_ARRAY(type, name, count) __shared__ type name[count]
#define SHARED_TILE(type, name, rows, columns) __shared__ type name[rows][columns]

#if __CUDA_ARCH__ >= 900
// Clusters: blocks that run together and can read each other's shared memory.
#define XPMLP_CLUSTERS 1
#define CLUSTER_OF(blocks) __cluster_dims__(blocks, 1, 1)

__device__ inline unsigned cluster_rank() {
    unsigned rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

// A barrier in two halves: wait returns when every thread of the cluster has arrived. What was
// written before cluster_arrive is seen after it; cluster_arrive_relaxed promises nothing of memory.
__device__ inline void cluster_arrive() { asm volatile("barrier.cluster.arrive;" ::: "memory"); }
__device__ inline void cluster_arrive_relaxed() {
    asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
}
__device__ inline void cluster_wait() { asm volatile("barrier.cluster.wait;" ::: "memory"); }

__device__ inline unsigned cluster_address(const void* own, unsigned rank) {
    unsigned address;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
                 : "=r"(address)
                 : "r"((unsigned)__cvta_generic_to_shared(own)), "r"(rank));
    return address;
}

// Writes where the block `rank` has what this block has at `own`.
__device__ inline void cluster_store(float* own, unsigned rank, float value) {
    asm volatile("st.shared::cluster.f32 [%0], %1;"
                 :
                 : "r"(cluster_address(own, rank)), "f"(value)
                 : "memory");
}
__device__ inline void cluster_store(double* own, unsigned rank, double value) {
    asm volatile("st.shared::cluster.f64 [%0], %1;"
                 :
                 : "r"(cluster_address(own, rank)), "d"(value)
                 : "memory");
}
__device__ inline void cluster_store(int* own, unsigned rank, int value) {
    asm volatile("st.shared::cluster.s32 [%0], %1;"
                 :
                 : "r"(cluster_address(own, rank)), "r"(value)
                 : "memory");
}
#endif

#endif
