// Enough of CUDA C to run a kernel on the CPU, for tests: every thread of a block is a fiber.
//
// A fiber runs until it waits (for its warp in a shuffle, for its block or cluster at a barrier) or
// ends, then another one runs: always the lowest, the highest or any, as the launch asks. A missing
// barrier shows as results that differ between these orders, every time.
#ifndef SHIM_H
#define SHIM_H

#include <math.h>
#include <string.h>

#include <utility>

#ifndef SHIM_CUDA_HEADERS  // which have it as well
struct uint3 {
    unsigned x, y, z;
};
#endif

namespace shim {

struct Thread {
    uint3 index, block;
    unsigned rank;  // of its block in the cluster
    int number;     // in its block
    int arrivals;   // at barriers of the cluster
};
extern Thread* current;
extern uint3 block_dim, grid_dim;

void wait_for_block();
void arrive_in_cluster();
void wait_for_cluster();
// Every lane of the warp gives 8 bytes and gets what lane (own lane xor `step`) gave.
unsigned long long exchange(unsigned long long bits, unsigned mask, int step);
// Every lane gives some words and gets those of all lanes.
struct Words {
    unsigned at[6];
};
const Words* everybodys(const Words& own);
unsigned char* dynamic_shared();
// Static shared memory: the same for all threads of a block, another for every `site`.
void* shared_array(const void* site, size_t bytes);
// What another block of the cluster has in the place of `own`, a part of a static array.
void* in_block(void* own, unsigned rank);

// --- calling a kernel with arguments that came as eight bytes each

// One letter a type, so that the caller can check what it passes.
template <class P> struct Letter;
template <class P> struct Letter<P*> { static constexpr char value = 'w'; };
template <class P> struct Letter<const P*> { static constexpr char value = 'r'; };
template <> struct Letter<int> { static constexpr char value = 'i'; };
template <> struct Letter<unsigned> { static constexpr char value = 'I'; };
template <> struct Letter<long long> { static constexpr char value = 'q'; };
template <> struct Letter<unsigned long long> { static constexpr char value = 'Q'; };
template <> struct Letter<float> { static constexpr char value = 'f'; };
template <> struct Letter<double> { static constexpr char value = 'd'; };

typedef void (*Call)(const unsigned long long* slots);
struct Kernel {
    const char* name;
    const char* letters;
    Call call;
};
extern const Kernel kernels[];
extern const int kernel_count;

template <class P>
P from_slot(unsigned long long slot) {
    P value;
    memcpy(&value, &slot, sizeof value);
    return value;
}

template <auto F> struct Bound;
template <class... P, void (*F)(P...)>
struct Bound<F> {
    static constexpr char letters[] = {Letter<P>::value..., 0};
    template <size_t... I>
    static void unpack(const unsigned long long* slots, std::index_sequence<I...>) {
        F(from_slot<P>(slots[I])...);
    }
    static void call(const unsigned long long* slots) {
        unpack(slots, std::index_sequence_for<P...>());
    }
};

}  // namespace shim

#define SHIM_KERNEL(name) {#name, shim::Bound<&name>::letters, &shim::Bound<&name>::call},

// --- the language

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define threadIdx (shim::current->index)
#define blockIdx (shim::current->block)
#define blockDim (shim::block_dim)
#define gridDim (shim::grid_dim)

inline void __syncthreads() { shim::wait_for_block(); }

template <class V>
V __shfl_xor_sync(unsigned mask, V value, int step) {
    unsigned long long bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = shim::exchange(bits, mask, step);
    memcpy(&value, &bits, sizeof value);
    return value;
}

inline float __uint_as_float(unsigned bits) { return shim::from_slot<float>(bits); }
inline float __int_as_float(int bits) { return shim::from_slot<float>((unsigned)bits); }
inline float __expf(float x) { return expf(x); }
inline float power_of_two(float x) { return exp2f(x); }
inline float larger_or_nan(float a, float b) { return a < b ? b : a; }
inline int __clzll(long long x) { return __builtin_clzll((unsigned long long)x); }

#define XPMLP_NARROW 200  // see quads.cuh: matrices of four thousand million elements are too large

// --- what intrinsics.cuh says in assembly

#define XPMLP_INTRINSICS_CUH
#define XPMLP_CLUSTERS 1
#define CLUSTER_OF(blocks)
#define SHARED_BYTES(name) unsigned char* const name = shim::dynamic_shared()
#define SHARED_ARRAY(type, name, count) \
    static char name##_site;            \
    type* const name = static_cast<type*>(shim::shared_array(&name##_site, sizeof(type) * (count)))
#define SHARED_TILE(type, name, rows, columns) \
    static char name##_site;                   \
    type(*const name)[columns] = static_cast<type(*)[columns]>(  \
        shim::shared_array(&name##_site, sizeof(type) * (rows) * (columns)))

inline void store_16_bytes(void* to, const void* from) {
    struct alignas(16) Bytes {
        unsigned char at[16];
    };
    *static_cast<Bytes*>(to) = *static_cast<const Bytes*>(from);
}

#define XPMLP_TENSOR_CORES 1

inline unsigned tensor_float(float x) {
    unsigned bits;
    memcpy(&bits, &x, sizeof bits);
    bool is_finite = (bits & 0x7f800000u) != 0x7f800000u;
    return (is_finite ? bits + 0x1000u : bits) & ~0x1fffu;  // to nearest, halves away from zero
}

#include "tensor_cores.h"

inline unsigned cluster_rank() { return shim::current->rank; }
inline void cluster_arrive() { shim::arrive_in_cluster(); }
inline void cluster_arrive_relaxed() { shim::arrive_in_cluster(); }
inline void cluster_wait() { shim::wait_for_cluster(); }
template <class V>
void cluster_store(V* own, unsigned rank, V value) {
    *static_cast<V*>(shim::in_block(own, rank)) = value;
}

inline float float_from_bfloat16(unsigned short bits) {
    return shim::from_slot<float>((unsigned)bits << 16);
}
inline unsigned short bfloat16_from_float(float x) {
    unsigned word;
    memcpy(&word, &x, sizeof word);
    if (x != x) return 0x7fff;
    return (unsigned short)((word + 0x7fff + ((word >> 16) & 1)) >> 16);
}
inline float float_from_half(unsigned short bits) {
    int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    float x = exponent == 31  ? (mantissa ? NAN : INFINITY)
              : exponent == 0 ? ldexpf((float)mantissa, -24)
                              : ldexpf((float)(mantissa + 1024), exponent - 25);
    return bits & 0x8000 ? -x : x;
}
inline unsigned short half_from_float(float x) {
    unsigned short sign = signbit(x) ? 0x8000 : 0;
    if (x != x) return 0x7fff;
    x = fabsf(x);
    if (x >= 65520.0f) return sign | 0x7c00;
    int exponent;
    frexpf(x, &exponent);
    if (x == 0 || exponent < -13) return sign | (unsigned short)lrintf(ldexpf(x, 24));
    int scaled = (int)lrintf(ldexpf(x, 11 - exponent));  // 1024 … 2048, rounded to nearest even
    return (unsigned short)(sign + ((exponent + 13) << 10) + scaled);
}

inline unsigned halves_from_floats(float first, float second) {
    return (unsigned)half_from_float(second) << 16 | half_from_float(first);
}
inline unsigned bfloat16s_from_floats(float first, float second) {
    return (unsigned)bfloat16_from_float(second) << 16 | bfloat16_from_float(first);
}

#endif
