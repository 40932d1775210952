// C ≤ 1024, in float64 512: some lanes of a warp hold a row in registers.
#ifndef XPMLP_CROSS_ENTROPY_BY_LANES_CUH
#define XPMLP_CROSS_ENTROPY_BY_LANES_CUH

#include "cross_entropy_row.cuh"
#include "reductions.cuh"
#include "vectors.cuh"

template <Targets KIND, int LANES, int PIECES>
__device__ inline void rows_by_lanes(const Arguments& a) {
    constexpr int STEP = LANES * VECTOR;
    Index row = ((Index)blockIdx.x * blockDim.x + threadIdx.x) / LANES;
    // Lanes beyond the last row repeat it, so that whole warps shuffle, and write nothing.
    bool writes = row < a.rows;
    if (!writes) row = a.rows - 1;
    int classes = a.classes, lane = threadIdx.x % LANES;
    const T* logits = a.logits + row * a.logit_stride;
    int shift = shift_of(logits), begin = lane * VECTOR - shift;
    Target<KIND> target(a, row);
    A true_logit = target.logit(logits);

    // Columns beside the row are −∞, whose exponentials are 0. An ignored row is taken as zeros, so
    // that its gradient, 0 times an exponential, is a number.
    A x[PIECES][VECTOR] = {};
    A peak = 0;
    if (target.counted) {
        peak = minus_infinity();
#pragma unroll
        for (int k = 0; k < PIECES; k++) {
            load_piece(logits, begin + k * STEP, classes, minus_infinity(), x[k]);
#pragma unroll
            for (int i = 0; i < VECTOR; i++) peak = larger(peak, x[k][i]);
        }
    }
    peak = reduce_lanes<Maximum, LANES>(peak);
    int first = NO_CLASS;
    if (KIND != PROBABILITIES && a.hits) {
#pragma unroll
        for (int k = PIECES - 1; k >= 0; k--) {
#pragma unroll
            for (int i = VECTOR - 1; i >= 0; i--) {
                if (x[k][i] == peak) first = begin + k * STEP + i;
            }
        }
        first = reduce_lanes<Minimum, LANES>(first);
    }

    Sums sums;
#pragma unroll
    for (int k = 0; k < PIECES; k++) {
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            int c = begin + k * STEP + i;
            A shifted = x[k][i] - peak;
            x[k][i] = exponential_below(shifted);
            sums.total += x[k][i];
            if (target.is_dense() && c >= 0 && c < classes) sums.add_beside(target, c, shifted);
        }
    }
    sums.total = reduce_lanes<Sum, LANES>(sums.total);
    if constexpr (KIND != NUMBERS) {
        sums.mass = reduce_lanes<Sum, LANES>(sums.mass);
        sums.along = reduce_lanes<Sum, LANES>(sums.along);
    }
    RowResult result(a, target, row, sums, peak, true_logit, first);
    if (!writes) return;
    if (lane == 0) result.report(a, row);
    if (!a.dlogits) return;

    T* gradient = a.dlogits + row * a.gradient_stride;
    bool aligned = shift_of(gradient) == shift;
#pragma unroll
    for (int k = 0; k < PIECES; k++) {
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            x[k][i] = result.gradient(target, inside(begin + k * STEP + i, classes), x[k][i]);
        }
        store_piece(gradient, begin + k * STEP, classes, aligned, x[k]);
    }
    // By the lane that has just written this class.
    Index number = target.number;
    if (number >= 0 && (number + shift) / VECTOR % LANES == lane) {
        gradient[number] = to_element(result.true_class);
    }
}

#endif
