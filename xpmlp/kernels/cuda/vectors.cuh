// Sixteen bytes at a time, also from rows that do not begin at a multiple of sixteen.
//
// A row is cut into pieces at its 16-byte boundaries in memory, so only the first and the last
// piece can be partial. `shift` says how many elements of the first piece lie before the row:
// piece k holds the columns k·VECTOR − shift … (k+1)·VECTOR − shift − 1, as far as they exist.
#ifndef XPMLP_VECTORS_CUH
#define XPMLP_VECTORS_CUH

#include "types.cuh"

constexpr int VECTOR = 16 / sizeof(T);

struct alignas(16) Vector {
    T at[VECTOR];
};

__device__ inline int shift_of(const void* row) {
    return (int)((unsigned long long)row / sizeof(T) % VECTOR);
}

__device__ inline bool is_whole(Index first, Index columns) {
    return first >= 0 && first + VECTOR <= columns;
}

// Elements row[first…] widened; columns that do not exist give `missing`.
__device__ inline void load_piece(const T* row, Index first, Index columns, A missing,
                                  A (&values)[VECTOR]) {
    if (is_whole(first, columns)) {
        Vector vector = *reinterpret_cast<const Vector*>(row + first);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) values[i] = widen(vector.at[i]);
        return;
    }
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
        Index column = first + i;
        values[i] = column >= 0 && column < columns ? widen(row[column]) : missing;
    }
}

// The inverse; `aligned` says whether this row has the shift that the pieces were cut with.
__device__ inline void store_piece(T* row, Index first, Index columns, bool aligned,
                                   const A (&values)[VECTOR]) {
    if (aligned && is_whole(first, columns)) {
        Vector vector;
#pragma unroll
        for (int i = 0; i < VECTOR; i++) vector.at[i] = to_element(values[i]);
        store_16_bytes(row + first, &vector);
        return;
    }
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
        Index column = first + i;
        if (column >= 0 && column < columns) row[column] = to_element(values[i]);
    }
}

#endif
