// The element type T of this compilation, its accumulator A, and how memory holds them.
//
// A file is compiled once for every type, with one of XPMLP_F32, XPMLP_F64, XPMLP_F16, XPMLP_BF16
// defined; the kernels' names end accordingly. Sums and exponentials are always made in A. The two
// 16-bit types are plain bits here, so that no header of the CUDA toolkit is needed.
#ifndef XPMLP_TYPES_CUH
#define XPMLP_TYPES_CUH

#include "intrinsics.cuh"

struct Half {
    unsigned short bits;
};
struct BFloat16 {
    unsigned short bits;
};

#if defined(XPMLP_F32)
typedef float T;
typedef float A;
#define WITH_SUFFIX(name) name##_f32
#elif defined(XPMLP_F64)
typedef double T;
typedef double A;
#define WITH_SUFFIX(name) name##_f64
#elif defined(XPMLP_F16)
typedef Half T;
typedef float A;
#define WITH_SUFFIX(name) name##_f16
#elif defined(XPMLP_BF16)
typedef BFloat16 T;
typedef float A;
#define WITH_SUFFIX(name) name##_bf16
#else
#error "define XPMLP_F32, XPMLP_F64, XPMLP_F16 or XPMLP_BF16"
#endif

// `threads` is the largest block it is launched with; the compiler shares out registers by it.
// CLUSTER says how many blocks share their memory, CLUSTER_OF(4), or nothing.
#define ENTRY(name, threads, CLUSTER) \
    extern "C" __global__ void CLUSTER __launch_bounds__(threads, 1) WITH_SUFFIX(name)

// All kernels of a source take long to compile. Where XPMLP_ONE is defined, one is made, whose
// XPMLP_ONE_<name> is defined as ", ENTRY"; the others become functions that nobody calls.
#ifdef XPMLP_ONE
#define UNUSED(name, threads, CLUSTER) template <int> __device__ inline void WITH_SUFFIX(name)
#define SECOND(first, second, ...) second
#define CHOICE(...) SECOND(__VA_ARGS__, UNUSED, )
#define KERNEL_OF(CLUSTER, name, threads) CHOICE(XPMLP_ONE_##name)(name, threads, CLUSTER)
#else
#define KERNEL_OF(CLUSTER, name, threads) ENTRY(name, threads, CLUSTER)
#endif
#define KERNEL(name, threads) KERNEL_OF(, name, threads)

template <class E>
constexpr bool is_bfloat16 = false;
template <>
constexpr bool is_bfloat16<BFloat16> = true;

typedef long long Index;  // rows times columns may pass 2^31

__device__ inline float widen(float x) { return x; }
__device__ inline double widen(double x) { return x; }
__device__ inline float widen(unsigned char x) { return x; }
__device__ inline float widen(signed char x) { return x; }
__device__ inline float widen(unsigned short x) { return x; }
__device__ inline float widen(short x) { return x; }
__device__ inline float widen(Half x) { return float_from_half(x.bits); }
__device__ inline float widen(BFloat16 x) { return float_from_bfloat16(x.bits); }

__device__ inline void narrow(float x, float& to) { to = x; }
__device__ inline void narrow(double x, double& to) { to = x; }
__device__ inline void narrow(float x, Half& to) { to.bits = half_from_float(x); }
__device__ inline void narrow(float x, BFloat16& to) { to.bits = bfloat16_from_float(x); }

__device__ inline void narrow(double x, Half& to) { to.bits = half_from_float((float)x); }
__device__ inline void narrow(double x, BFloat16& to) { to.bits = bfloat16_from_float((float)x); }

// Two 16-bit elements in one word, the first in its low half.
template <class E>
__device__ inline void widen_pair(unsigned word, A& first, A& second) {
    if constexpr (is_bfloat16<E>) {
        first = __uint_as_float(word << 16);
        second = __uint_as_float(word & 0xffff0000u);
    } else {
        first = float_from_half((unsigned short)word);
        second = float_from_half((unsigned short)(word >> 16));
    }
}
template <class E>
__device__ inline unsigned narrow_pair(A first, A second) {
    if constexpr (is_bfloat16<E>) return bfloat16s_from_floats(first, second);
    else return halves_from_floats(first, second);
}

__device__ inline T to_element(A x) {
    T element;
    narrow(x, element);
    return element;
}

// Elementary functions of A. Results that end in 16 bits may use the fast exponential, whose error
// (a few float32 ulp) is far below their rounding.
__device__ inline double exponential(double x) { return exp(x); }
__device__ inline float exponential(float x) { return sizeof(T) == 2 ? __expf(x) : expf(x); }
__device__ inline double logarithm(double x) { return log(x); }
__device__ inline float logarithm(float x) { return logf(x); }
__device__ inline double square_root(double x) { return sqrt(x); }
__device__ inline float square_root(float x) { return sqrtf(x); }
__device__ inline double tangent(double x) { return tanh(x); }
__device__ inline float tangent(float x) { return tanhf(x); }

// What is not a number loses to what is.
__device__ inline float larger(float a, float b) { return fmaxf(a, b); }
__device__ inline double larger(double a, double b) { return fmax(a, b); }
__device__ inline A minus_infinity() { return -(A)__int_as_float(0x7f800000); }

#endif
