// Any width: the row is read twice, maximum and sums found together in the first.
#ifndef XPMLP_CROSS_ENTROPY_BY_TWO_READS_CUH
#define XPMLP_CROSS_ENTROPY_BY_TWO_READS_CUH

#include "cross_entropy_row.cuh"
#include "reductions.cuh"
#include "vectors.cuh"

// Sums relative to a maximum that is still growing.
struct OnlineSums {
    A peak = minus_infinity();
    Index first = 0;  // the class of the peak, the first if there are several
    A total = 0, mass = 0, along = 0;

    // Makes `to` the point from which logits are measured.
    __device__ void raise(A to) {
        if (!(to > peak)) return;
        if (peak > minus_infinity()) {
            A fall = peak - to;
            total *= exponential(fall);
            along += mass * fall;
        } else if (mass > 0) {
            along = minus_infinity();  // a class with probability had a logit of −inf
        }
        peak = to;
    }

    template <bool PROBABILITIES>
    __device__ void add(const Target<PROBABILITIES>& target, Index c, A x) {
        if (x > peak) {
            raise(x);
            first = c;
        }
        A shifted = x > minus_infinity() ? x - peak : x;
        total += exponential(shifted);
        if (target.is_dense || c == target.number) {
            A q = target.of(c);
            if (q > 0) {
                // While all logits are −inf there is nothing to measure from: see raise.
                if (peak > minus_infinity()) along += q * shifted;
                mass += q;
            }
        }
    }
};

template <bool PROBABILITIES>
__device__ inline void row_by_two_reads(const Arguments& a) {
    SHARED_ARRAY(A, scratch, MOST_WARPS);
    Index row = blockIdx.x;
    int classes = a.classes;
    const T* logits = a.logits + row * a.logit_stride;
    int shift = shift_of(logits), pieces = (classes + shift + VECTOR - 1) / VECTOR;
    Target<PROBABILITIES> target(a, row);
    A values[VECTOR];

    OnlineSums online;
    for (int k = threadIdx.x; k < pieces; k += blockDim.x) {
        Index begin = (Index)k * VECTOR - shift;
        load_piece(logits, begin, classes, minus_infinity(), values);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            Index c = begin + i;
            if (c >= 0 && c < classes) online.add(target, c, values[i]);
        }
    }
    A peak = reduce_block<Maximum>(online.peak, scratch);
    bool holds_peak = online.peak == peak;
    online.raise(peak);
    Sums sums;
    sums.total = reduce_block<Sum>(online.total, scratch);
    sums.mass = reduce_block<Sum>(online.mass, scratch);
    sums.along = reduce_block<Sum>(online.along, scratch);
    sums.total += peak - peak;  // NaN where no maximum is finite, as in the other layouts
    if (a.hits) {
        // Hit: some thread's first largest logit is the true class, nobody's lies before it.
        bool before = holds_peak && online.first < target.number;
        bool reached = holds_peak && online.first == target.number;
        A found = reduce_block<Sum>(reached ? 1 : 0, scratch);
        sums.blocked = reduce_block<Sum>(before ? 1 : 0, scratch) + (found > 0 ? 0 : 1);
    }
    RowResult result(a, target, row, sums, peak);
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
            values[i] = result.gradient(target, c, exponential(values[i] - peak));
        }
        store_piece(gradient, begin, classes, aligned, values);
    }
}

#endif
