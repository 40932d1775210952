// C ≤ 32: a block stages its rows in shared memory, each thread takes one.
#ifndef XPMLP_CROSS_ENTROPY_BY_THREAD_CUH
#define XPMLP_CROSS_ENTROPY_BY_THREAD_CUH

#include "cross_entropy_row.cuh"
#include "vectors.cuh"

// Moves the block's rows between global memory and the tile, neighbouring threads on neighbouring
// elements. Contiguous rows go 16 bytes at a time; a tile begins at a multiple of 16 bytes because
// a block takes a multiple of 16 rows.
template <bool TO_TILE>
__device__ inline void copy_tile(T* rows, Index stride, int count, int columns, A* tile,
                                 int pitch) {
    int size = count * columns, begin = 0;
    if (stride == columns && shift_of(rows) == 0) {
        begin = size / VECTOR * VECTOR;
        for (int at = threadIdx.x * VECTOR; at < begin; at += blockDim.x * VECTOR) {
            int row = (unsigned)at / (unsigned)columns, column = at - row * columns;
            Vector vector;
            if (TO_TILE) vector = *reinterpret_cast<const Vector*>(rows + at);
#pragma unroll
            for (int i = 0; i < VECTOR; i++) {
                A& staged = tile[row * pitch + column];
                if (TO_TILE) staged = widen(vector.at[i]);
                else vector.at[i] = to_element(staged);
                if (++column == columns) {
                    column = 0;
                    row++;
                }
            }
            if (!TO_TILE) *reinterpret_cast<Vector*>(rows + at) = vector;
        }
    }
    for (int at = begin + threadIdx.x; at < size; at += blockDim.x) {
        int row = (unsigned)at / (unsigned)columns, column = at - row * columns;
        T& element = rows[row * stride + column];
        A& staged = tile[row * pitch + column];
        if (TO_TILE) staged = widen(element);
        else element = to_element(staged);
    }
}

template <Targets KIND>
__device__ inline void rows_by_threads(const Arguments& a) {
    SHARED_BYTES(bytes);
    A* tile = reinterpret_cast<A*>(bytes);
    // An odd pitch: the threads of a warp, a pitch apart, then meet 32 different banks.
    int classes = a.classes, pitch = classes | 1;
    Index first_row = (Index)blockIdx.x * blockDim.x;
    int count = (int)(a.rows - first_row < blockDim.x ? a.rows - first_row : blockDim.x);

    T* logits = const_cast<T*>(a.logits) + first_row * a.logit_stride;
    copy_tile<true>(logits, a.logit_stride, count, classes, tile, pitch);
    __syncthreads();
    if ((int)threadIdx.x < count) {
        Index row = first_row + threadIdx.x;
        A* x = tile + threadIdx.x * pitch;
        Target<KIND> target(a, row);
        A peak = x[0];
        int first = 0;
        for (int c = 1; c < classes; c++) {
            if (x[c] > peak) {
                peak = x[c];
                first = c;
            }
        }
        A true_logit = target.number < 0 ? 0 : x[target.number];
        Sums sums;
        for (int c = 0; c < classes; c++) {
            A shifted = x[c] - peak;
            x[c] = exponential_below(shifted);
            sums.total += x[c];
            if (target.is_dense()) sums.add_beside(target, c, shifted);
        }
        RowResult result(a, target, row, sums, peak, true_logit, first);
        for (int c = 0; c < classes; c++) {
            x[c] = target.counted ? result.gradient(target, c, x[c]) : 0;
        }
        if (target.number >= 0) x[target.number] = result.true_class;
        result.report(a, row);
    }
    __syncthreads();
    if (!a.dlogits) return;
    T* gradient = a.dlogits + first_row * a.gradient_stride;
    copy_tile<false>(gradient, a.gradient_stride, count, classes, tile, pitch);
}

#endif
