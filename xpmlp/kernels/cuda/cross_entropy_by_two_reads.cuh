// Any width: the row is read twice, maximum and sums found together in the first.
#ifndef XPMLP_CROSS_ENTROPY_BY_TWO_READS_CUH
#define XPMLP_CROSS_ENTROPY_BY_TWO_READS_CUH

#include "cross_entropy_row.cuh"
#include "reductions.cuh"
#include "vectors.cuh"

// Sums relative to a maximum that is still growing.
struct OnlineSums : Sums {
    A peak = minus_infinity();
    int first = NO_CLASS;  // the class of the peak, the first if there are several

    // Makes `to` the point from which logits are measured.
    __device__ void raise(A to) {
        if (!(to > peak)) return;
        if (peak > minus_infinity()) {
            A fall = peak - to;
            total *= exponential_below(fall);
            along += mass * fall;
        } else if (mass > 0) {
            along = minus_infinity();  // a class with probability had a logit of −inf
        }
        peak = to;
    }

    template <Targets KIND>
    __device__ void add(const Target<KIND>& target, int c, A x) {
        if (x > peak) {
            raise(x);
            first = c;
        }
        // While all logits are −inf there is nothing to measure from: see raise.
        A shifted = x > minus_infinity() ? x - peak : x;
        total += exponential_below(shifted);
        if (!target.is_dense()) return;
        if (peak > minus_infinity()) add_beside(target, c, shifted);
        else mass += target.beside(c);
    }
};

template <Targets KIND>
__device__ inline void row_by_two_reads(const Arguments& a) {
    SHARED_ARRAY(A, scratch, MOST_WARPS);
    SHARED_ARRAY(int, classes_found, MOST_WARPS);
    Index row = blockIdx.x;
    int classes = a.classes;
    const T* logits = a.logits + row * a.logit_stride;
    int shift = shift_of(logits), pieces = (classes + shift + VECTOR - 1) / VECTOR;
    Target<KIND> target(a, row);
    A true_logit = target.logit(logits);
    A values[VECTOR];

    OnlineSums online;
    for (int k = threadIdx.x; k < pieces; k += blockDim.x) {
        Index begin = (Index)k * VECTOR - shift;
        load_piece(logits, begin, classes, minus_infinity(), values);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            Index c = begin + i;
            if (c >= 0 && c < classes) online.add(target, (int)c, values[i]);
        }
    }
    A peak = reduce_block<Maximum>(online.peak, scratch);
    int first = reduce_block<Minimum>(online.peak == peak ? online.first : NO_CLASS, classes_found);
    online.raise(peak);
    Sums sums;
    sums.total = reduce_block<Sum>(online.total, scratch);
    sums.mass = reduce_block<Sum>(online.mass, scratch);
    sums.along = reduce_block<Sum>(online.along, scratch);
    RowResult result(a, target, row, sums, peak, true_logit, first);
    if (threadIdx.x == 0) result.report(a, row);
    if (!a.dlogits) return;

    T* gradient = a.dlogits + row * a.gradient_stride;
    bool aligned = shift_of(gradient) == shift;
    // Backwards: what was read last is still in the cache.
    for (int k = pieces - 1 - (int)threadIdx.x; k >= 0; k -= blockDim.x) {
        Index begin = (Index)k * VECTOR - shift;
        load_piece(logits, begin, classes, minus_infinity(), values);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            int c = inside(begin + i, classes);
            A e = exponential_below(values[i] - peak);
            values[i] = target.counted ? result.gradient(target, c, e) : 0;
            if (begin + i == target.number) values[i] = result.true_class;
        }
        store_piece(gradient, begin, classes, aligned, values);
    }
}

#endif
