// What CuPy's own kernels need to run on the CPU: CUDA's headers, the shim's threads, CuPy's headers.
#define __NV_NO_HOST_COMPILER_CHECK 1
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>

#define __CUDACC_VER_MAJOR__ 13
#define SHIM_CUDA_HEADERS
#include "shim.h"

#define __shared__ static  // blocks run one after the other

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline double __longlong_as_double(long long bits) { return shim::from_slot<double>(bits); }
template <class To, class From>
To shim_bits(From from) {
    To to;
    static_assert(sizeof to == sizeof from);
    memcpy(&to, &from, sizeof to);
    return to;
}
inline unsigned __float_as_uint(float x) { return shim_bits<unsigned>(x); }
inline int __float_as_int(float x) { return shim_bits<int>(x); }
inline long long __double_as_longlong(double x) { return shim_bits<long long>(x); }
template <class V> V __ldg(const V* from) { return *from; }

// Threads do not interrupt each other.
template <class V, class F>
V shim_exchange(V* at, F change) {
    V before = *at;
    *at = change(before);
    return before;
}
template <class V, class W> V atomicAdd(V* p, W v) {
    return shim_exchange(p, [=](V o) { return V(o + (V)v); });
}
template <class V> V atomicMax(V* p, V v) {
    return shim_exchange(p, [=](V o) { return v > o ? v : o; });
}
template <class V> V atomicMin(V* p, V v) {
    return shim_exchange(p, [=](V o) { return v < o ? v : o; });
}
template <class V> V atomicExch(V* p, V v) {
    return shim_exchange(p, [=](V) { return v; });
}
template <class V> V atomicCAS(V* p, V expected, V v) {
    return shim_exchange(p, [=](V o) { return o == expected ? v : o; });
}
inline void __syncwarp(unsigned = 0) {}
inline void __threadfence() {}
inline float rsqrt(float x) { return 1 / sqrtf(x); }
inline double rsqrt(double x) { return 1 / sqrt(x); }
using std::isfinite, std::isinf, std::isnan, std::max, std::min, std::signbit;

namespace shim {
// Arguments are structures: a slot is the address of one.
template <auto F> struct ByAddress;
template <class... P, void (*F)(P...)>
struct ByAddress<F> {
    template <size_t... I>
    static void unpack(const unsigned long long* slots, std::index_sequence<I...>) {
        F(*(std::remove_cv_t<std::remove_reference_t<P>>*)(slots[I])...);
    }
    static void call(const unsigned long long* slots) {
        unpack(slots, std::index_sequence_for<P...>());
    }
};
}  // namespace shim
#define CUPY_KERNEL(name) {#name, "", &shim::ByAddress<&name>::call},

#include <cupy/complex.cuh>
#include <cupy/carray.cuh>
#include <cupy/atomics.cuh>
#include <cupy/math_constants.h>
