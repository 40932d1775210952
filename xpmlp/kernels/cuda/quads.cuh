// Four elements at a time: what one block of Philox words masks, and at most 32 bytes.
#ifndef XPMLP_QUADS_CUH
#define XPMLP_QUADS_CUH

#include "types.cuh"

template <class E>
struct alignas(4 * sizeof(E) < 16 ? 4 * sizeof(E) : 16) Quad {
    E at[4];
};

template <class E>
__device__ inline bool is_quad(const E* x, Index first, Index size) {
    return first + 4 <= size && (unsigned long long)(x + first) % alignof(Quad<E>) == 0;
}

// x[first … first+3] widened; elements from `size` on give 0.
template <class E>
__device__ inline void load_quad(const E* x, Index first, Index size, A (&values)[4]) {
    if (is_quad(x, first, size)) {
        Quad<E> quad = *reinterpret_cast<const Quad<E>*>(x + first);
#pragma unroll
        for (int i = 0; i < 4; i++) values[i] = widen(quad.at[i]);
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) values[i] = first + i < size ? widen(x[first + i]) : 0;
}

template <class E>
__device__ inline void store_quad(E* x, Index first, Index size, const A (&values)[4]) {
    if (is_quad(x, first, size)) {
        Quad<E> quad;
#pragma unroll
        for (int i = 0; i < 4; i++) narrow(values[i], quad.at[i]);
        *reinterpret_cast<Quad<E>*>(x + first) = quad;
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (first + i < size) narrow(values[i], x[first + i]);
    }
}

// 32-bit division, where it is enough, is several times as fast. (Tests lower the border.)
#ifndef XPMLP_NARROW
#define XPMLP_NARROW 0xffffffff
#endif

// The column of an element of a matrix.
__device__ inline int column_of(Index element, int columns) {
    if (element <= XPMLP_NARROW) return (unsigned)element % (unsigned)columns;
    return (int)(element % columns);
}

// Calls each(member, first) for every quad of every member, `size` elements each. A member's quads
// begin with it, so that its random numbers are those it would get alone.
template <class Each>
__device__ inline void for_each_quad(Index size, int members, Each each) {
    Index stride = (Index)gridDim.x * blockDim.x * 4;
    Index begin = ((Index)blockIdx.x * blockDim.x + threadIdx.x) * 4;
    for (int member = blockIdx.y; member < members; member += gridDim.y) {
        for (Index first = begin; first < size; first += stride) each(member, first);
    }
}

#endif
