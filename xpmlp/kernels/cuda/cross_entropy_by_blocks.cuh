// Wider rows: one block, or a cluster of them, keeps the row in shared memory.
#ifndef XPMLP_CROSS_ENTROPY_BY_BLOCKS_CUH
#define XPMLP_CROSS_ENTROPY_BY_BLOCKS_CUH

#include "cross_entropy_row.cuh"
#include "reductions.cuh"
#include "vectors.cuh"

template <bool PROBABILITIES, int BLOCKS>
__device__ inline void row_by_blocks(const Arguments& a) {
    // Where T is A, the place of a logit takes its exponential. In 16 bits that would lose digits:
    // the logit stays, and its exponential is made again.
    constexpr bool KEEPS_EXPONENTIALS = sizeof(T) == sizeof(A);
    SHARED_BYTES(bytes);
    SHARED_ARRAY(A, scratch, MOST_WARPS);
    SHARED_ARRAY(A, places, 5);
    Vector* kept = reinterpret_cast<Vector*>(bytes);

    unsigned rank = 0;
#ifdef XPMLP_CLUSTERS
    if constexpr (BLOCKS > 1) rank = cluster_rank();
#endif
    Index row = blockIdx.x / BLOCKS;
    int classes = a.classes;
    const T* logits = a.logits + row * a.logit_stride;
    int shift = shift_of(logits);
    int pieces = (classes + shift + VECTOR - 1) / VECTOR, share = (pieces + BLOCKS - 1) / BLOCKS;
    int begin = rank * share, end = begin + share < pieces ? begin + share : pieces;
    // Every thread reads back only what it kept itself: no barrier but those of the sums.

    A peak = minus_infinity(), values[VECTOR];
    for (int k = begin + threadIdx.x; k < end; k += blockDim.x) {
        load_piece(logits, (Index)k * VECTOR - shift, classes, minus_infinity(), values);
        Vector vector;
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            peak = larger(peak, values[i]);
            vector.at[i] = to_element(values[i]);
        }
        kept[k - begin] = vector;
    }
    peak = reduce_cluster<Maximum, BLOCKS>(peak, scratch, &places[4]);

    Target<PROBABILITIES> target(a, row);
    Sums sums;
    for (int k = begin + threadIdx.x; k < end; k += blockDim.x) {
        Vector vector = kept[k - begin];
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            int c = k * VECTOR - shift + i;
            if (c < 0 || c >= classes) continue;
            A e = add_class(sums, target, c, widen(vector.at[i]), peak);
            if constexpr (KEEPS_EXPONENTIALS) vector.at[i] = to_element(e);
        }
        if constexpr (KEEPS_EXPONENTIALS) kept[k - begin] = vector;
    }
    reduce_sums(sums, a.hits, [&](A value, int which) {
        return reduce_cluster<Sum, BLOCKS>(value, scratch, &places[which]);
    });
    RowResult result(a, target, row, sums, peak);
    if (threadIdx.x == 0 && rank == 0) result.report(a, row);

    if (a.dlogits) {
        T* gradient = a.dlogits + row * a.gradient_stride;
        bool aligned = shift_of(gradient) == shift;
        for (int k = begin + threadIdx.x; k < end; k += blockDim.x) {
            Vector vector = kept[k - begin];
#pragma unroll
            for (int i = 0; i < VECTOR; i++) {
                A e = widen(vector.at[i]);
                if constexpr (!KEEPS_EXPONENTIALS) e = exponential(e - peak);
                int c = inside(k * VECTOR - shift + i, classes);
                values[i] = result.gradient(target, c, e);
            }
            store_piece(gradient, (Index)k * VECTOR - shift, classes, aligned, values);
        }
    }
#ifdef XPMLP_CLUSTERS
    if constexpr (BLOCKS > 1) cluster_barrier();
#endif
}

#endif
