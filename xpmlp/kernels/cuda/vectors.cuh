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

// All elements of a vector in A, and the inverse. In 16 bits two at a time: one by one, each would
// first be taken out of its word.
__device__ inline void widen_all(const Vector& vector, A (&values)[VECTOR]) {
    if constexpr (sizeof(T) == 2) {
        unsigned words[4];
        memcpy(words, &vector, sizeof words);
#pragma unroll
        for (int i = 0; i < VECTOR; i += 2) widen_pair<T>(words[i / 2], values[i], values[i + 1]);
    } else {
#pragma unroll
        for (int i = 0; i < VECTOR; i++) values[i] = widen(vector.at[i]);
    }
}
__device__ inline Vector to_elements(const A (&values)[VECTOR]) {
    Vector vector;
    if constexpr (sizeof(T) == 2) {
        unsigned words[4];
#pragma unroll
        for (int i = 0; i < VECTOR; i += 2) words[i / 2] = narrow_pair<T>(values[i], values[i + 1]);
        memcpy(&vector, words, sizeof words);
    } else {
#pragma unroll
        for (int i = 0; i < VECTOR; i++) vector.at[i] = to_element(values[i]);
    }
    return vector;
}

__device__ inline Vector load_whole(const T* from) { return *reinterpret_cast<const Vector*>(from); }

// Elements row[first…]; columns that do not exist give `missing`.
__device__ inline Vector load_part(const T* row, Index first, Index columns, A missing) {
    Vector vector;
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
        Index column = first + i;
        vector.at[i] = column >= 0 && column < columns ? row[column] : to_element(missing);
    }
    return vector;
}

__device__ inline void store_whole(T* to, const A (&values)[VECTOR]) {
    Vector vector = to_elements(values);
    store_16_bytes(to, &vector);
}

__device__ inline void store_part(T* row, Index first, Index columns, const A (&values)[VECTOR]) {
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
        Index column = first + i;
        if (column >= 0 && column < columns) row[column] = to_element(values[i]);
    }
}

// Any piece, widened.
__device__ inline void load_piece(const T* row, Index first, Index columns, A missing,
                                  A (&values)[VECTOR]) {
    Vector vector = is_whole(first, columns) ? load_whole(row + first)
                                             : load_part(row, first, columns, missing);
    widen_all(vector, values);
}

// The inverse; `aligned` says whether this row has the shift that the pieces were cut with.
__device__ inline void store_piece(T* row, Index first, Index columns, bool aligned,
                                   const A (&values)[VECTOR]) {
    if (aligned && is_whole(first, columns)) store_whole(row + first, values);
    else store_part(row, first, columns, values);
}

#endif
