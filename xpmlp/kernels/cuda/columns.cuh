// Sums over the batch, one for each feature, in two stages and without atomics: blocks of rows
// write partial sums, and a second kernel adds those in order.
//
// A block is 32 features wide and ROWS_AT_ONCE rows high; the grid is (features / 32, chunks of
// rows, members). x is (members, batch, features).
#ifndef XPMLP_COLUMNS_CUH
#define XPMLP_COLUMNS_CUH

#include "types.cuh"

constexpr int COLUMNS = 32;
constexpr int ROWS_AT_ONCE = 8;

// Calls each(member, column, begin, end) for the part of every member that this block sums: its
// thread takes rows begin + threadIdx.y, begin + threadIdx.y + ROWS_AT_ONCE, … of that column.
template <class Each>
__device__ inline void for_each_column(Index batch, int members, Each each) {
    int column = blockIdx.x * COLUMNS + threadIdx.x;
    Index rows = (batch + gridDim.y - 1) / gridDim.y, begin = blockIdx.y * rows;
    Index end = begin + rows < batch ? begin + rows : batch;
    for (int member = blockIdx.z; member < members; member += gridDim.z) {
        each(member, column, begin, end);
    }
}

// The block's sum of `value` for each column, known to the threads with threadIdx.y = 0.
__device__ inline A sum_rows(A value, A (*scratch)[COLUMNS]) {
    scratch[threadIdx.y][threadIdx.x] = value;
    __syncthreads();
    if (threadIdx.y == 0) {
        for (int row = 1; row < ROWS_AT_ONCE; row++) value += scratch[row][threadIdx.x];
    }
    __syncthreads();
    return value;
}

// For each column SUMS sums, of what add(member, row, column, sums) adds for every element; they are
// written to partial[chunk][which][member · features + column].
template <int SUMS, class Add>
__device__ inline void partial_sums(Index batch, int features, int members, A* partial, Add add) {
    SHARED_TILE(A, scratch, ROWS_AT_ONCE, COLUMNS);
    for_each_column(batch, members, [&](int member, int column, Index begin, Index end) {
        A sums[SUMS] = {};
        if (column < features) {
#pragma unroll 2
            for (Index row = begin + threadIdx.y; row < end; row += ROWS_AT_ONCE) {
                add(member, row, column, sums);
            }
        }
        Index columns = (Index)members * features;
#pragma unroll
        for (int i = 0; i < SUMS; i++) {
            A sum = sum_rows(sums[i], scratch);
            if (!partial || threadIdx.y > 0 || column >= features) continue;
            partial[((Index)blockIdx.y * SUMS + i) * columns + (Index)member * features + column] =
                sum;
        }
    });
}

// The sum of partial[0 … chunks−1][which][column], in that order.
template <int SUMS>
__device__ inline A finish_sum(const A* partial, int chunks, Index columns, int which,
                               Index column) {
    A sum = 0;
    for (int chunk = 0; chunk < chunks; chunk++) {
        sum += partial[((Index)chunk * SUMS + which) * columns + column];
    }
    return sum;
}

__device__ inline Index flat_column() { return (Index)blockIdx.x * blockDim.x + threadIdx.x; }

#endif
