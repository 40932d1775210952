// What C++ cannot say, in PTX: conversions to 16-bit floats, a vector store, a cluster's shared
// memory.
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

// Every thread of every block of the cluster waits; writes before it are seen after it.
__device__ inline void cluster_barrier() {
    asm volatile("barrier.cluster.arrive;\n\tbarrier.cluster.wait;" ::: "memory");
}

__device__ inline unsigned cluster_address(const void* own, unsigned rank) {
    unsigned address;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
                 : "=r"(address)
                 : "r"((unsigned)__cvta_generic_to_shared(own)), "r"(rank));
    return address;
}

// What the block `rank` holds where this block holds *own.
__device__ inline float cluster_load(const float* own, unsigned rank) {
    float value;
    asm volatile("ld.shared::cluster.f32 %0, [%1];"
                 : "=f"(value)
                 : "r"(cluster_address(own, rank))
                 : "memory");
    return value;
}

__device__ inline double cluster_load(const double* own, unsigned rank) {
    double value;
    asm volatile("ld.shared::cluster.f64 %0, [%1];"
                 : "=d"(value)
                 : "r"(cluster_address(own, rank))
                 : "memory");
    return value;
}
#endif

#endif
