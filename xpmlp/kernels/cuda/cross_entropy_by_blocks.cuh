// Wider rows: one block, or a cluster of them, keeps the row in shared memory.
//
// A row is read once. Every warp measures its logits from the largest of its own, so that nobody
// waits for the row's maximum; then all warps tell all blocks what they found, and after the one
// barrier each of them puts the parts together. Whole pieces are gone through without a question
// about their columns.
#ifndef XPMLP_CROSS_ENTROPY_BY_BLOCKS_CUH
#define XPMLP_CROSS_ENTROPY_BY_BLOCKS_CUH

#include "cross_entropy_row.cuh"
#include "reductions.cuh"
#include "vectors.cuh"

constexpr int ROW_WARPS = 16;  // of a block, at most: geometry._row_threads
constexpr int AT_ONCE = sizeof(T) == 8 ? 2 : 4;  // pieces that a thread has on their way

// What a warp found in its part of the row: the sums are measured from its own peak.
struct Part {
    A peak, total, mass, along;
    int first;  // the first class whose logit is the peak
};

// A block's pieces of the row. Of these only the row's first and last can be partial.
struct Share {
    int begin, end, whole_begin, whole_end, rest_begin;

    __device__ Share(int classes, int shift, int rank, int blocks) {
        int pieces = (classes + shift + VECTOR - 1) / VECTOR, size = (pieces + blocks - 1) / blocks;
        int whole = (classes + shift) / VECTOR, round = AT_ONCE * blockDim.x;
        begin = rank * size;
        end = begin + size < pieces ? begin + size : pieces;
        whole_begin = begin == 0 && shift > 0 ? 1 : begin;
        whole_end = end < whole ? end : whole;
        int count = whole_end > whole_begin ? whole_end - whole_begin : 0;
        rest_begin = whole_begin + count / round * round;
    }

    // Calls whole<COUNT>(k) for pieces k, k + WARP, k + 2 WARP …, that is AT_ONCE of them or 1, and
    // partial(k), for all that belong to this thread, in ascending order; the same ones every time.
    template <class Whole, class Partial>
    __device__ void go_through(Whole whole, Partial partial) const {
        int thread = threadIdx.x, threads = blockDim.x, lane = thread % WARP;
        if (thread == 0 && begin < whole_begin) partial(begin);
        int k = whole_begin + (thread - lane) * AT_ONCE + lane;
        for (; k < rest_begin; k += AT_ONCE * threads) whole.template operator()<AT_ONCE>(k);
#pragma unroll 1
        for (k = rest_begin + thread; k < whole_end; k += threads) whole.template operator()<1>(k);
        if (thread == WARP && end > whole_end && end > whole_begin) partial(end - 1);
    }

    // Which thread gets a piece; −1 if it is another block's.
    __device__ int owner(int piece) const {
        if (piece < begin || piece >= end) return -1;
        if (piece < whole_begin) return 0;
        if (piece >= whole_end) return WARP;
        if (piece >= rest_begin) return (piece - rest_begin) % blockDim.x;
        int place = (piece - whole_begin) % (AT_ONCE * blockDim.x);
        return place / (AT_ONCE * WARP) * WARP + place % WARP;
    }
};

// The whole row from the parts of all warps, the same in every thread.
template <Targets KIND, bool HITS>
__device__ inline Sums put_together(const Part* parts, int count, A& peak, int& first) {
    int lane = threadIdx.x % WARP;
    peak = minus_infinity();
#pragma unroll 1
    for (int i = lane; i < count; i += WARP) peak = larger(peak, parts[i].peak);
    peak = reduce_lanes<Maximum, WARP>(peak);
    Sums sums;
    first = NO_CLASS;
#pragma unroll 1
    for (int i = lane; i < count; i += WARP) {
        const Part& part = parts[i];
        // What was measured from −∞ was measured from 0 instead: 0 and −∞, or not a number.
        A fall = part.peak > minus_infinity() ? part.peak - peak : 0;
        sums.total += part.total * exponential_below(fall);
        if constexpr (KIND != NUMBERS) {
            sums.mass += part.mass;
            if (part.mass > 0) sums.along += part.along + part.mass * fall;
        }
        if (HITS && part.peak == peak) first = Minimum::of(first, part.first);
    }
    sums.total = reduce_lanes<Sum, WARP>(sums.total);
    if constexpr (KIND != NUMBERS) {
        sums.mass = reduce_lanes<Sum, WARP>(sums.mass);
        sums.along = reduce_lanes<Sum, WARP>(sums.along);
    }
    if constexpr (HITS) first = reduce_lanes<Minimum, WARP>(first);
    return sums;
}

// The gradient of an ignored row.
__device__ inline void write_zeros(T* row, int columns) {
#pragma unroll 1
    for (int c = threadIdx.x; c < columns; c += blockDim.x) row[c] = to_element(0);
}

template <Targets KIND, bool HITS, int BLOCKS>
__device__ inline void row_by_blocks(const Arguments& a) {
    // Where T is A, the place of a logit takes its exponential. In 16 bits that would lose digits:
    // the logit stays, and its exponential is made again.
    constexpr bool KEEPS_EXPONENTIALS = sizeof(T) == sizeof(A);
    SHARED_BYTES(bytes);
    SHARED_ARRAY(Part, parts, BLOCKS * ROW_WARPS);
    Vector* kept = reinterpret_cast<Vector*>(bytes);

    unsigned rank = 0;
#ifdef XPMLP_CLUSTERS
    if constexpr (BLOCKS > 1) rank = cluster_rank();
#endif
    Index row = blockIdx.x / BLOCKS;
    int classes = a.classes, lane = threadIdx.x % WARP;
    const T* logits = a.logits + row * a.logit_stride;
    int shift = shift_of(logits);
    Share share(classes, shift, rank, BLOCKS);
    kept -= share.begin;
    T* gradient = a.dlogits + row * a.gradient_stride;

    Target<KIND> target(a, row);
    if (!target.counted) {  // the same in all blocks of the cluster: none waits for another
        RowResult result(a, target, row, Sums{}, 0, 0, NO_CLASS);
        if (threadIdx.x == 0 && rank == 0) result.report(a, row);
        if (a.dlogits) write_zeros(gradient, classes);
        return;
    }
#ifdef XPMLP_CLUSTERS
    if constexpr (BLOCKS > 1) cluster_arrive_relaxed();
#endif
    A true_logit = target.logit(logits);

    // Every thread reads back only what it kept itself.
    Part part = {minus_infinity(), 0, 0, 0, NO_CLASS};
    int piece = -1;  // the first with the thread's peak
    auto keep = [&](int k, Vector vector) {
        kept[k] = vector;
        A values[VECTOR];
        widen_all(vector, values);
        A largest = values[0];
#pragma unroll
        for (int i = 1; i < VECTOR; i++) largest = larger(largest, values[i]);
        if (HITS && largest > part.peak) piece = k;
        part.peak = larger(part.peak, largest);
    };
    share.go_through(
        [&]<int COUNT>(int k) {
            const T* from = logits - shift + (Index)k * VECTOR;
            Vector vectors[COUNT];
#pragma unroll
            for (int j = 0; j < COUNT; j++) vectors[j] = load_whole(from + j * WARP * VECTOR);
#pragma unroll
            for (int j = 0; j < COUNT; j++) keep(k + j * WARP, vectors[j]);
        },
        [&](int k) {
            keep(k, load_part(logits, (Index)k * VECTOR - shift, classes, minus_infinity()));
        });
    A own_peak = part.peak;
    part.peak = reduce_lanes<Maximum, WARP>(part.peak);
    if (HITS && own_peak == part.peak && piece >= 0) {
        Vector vector = kept[piece];
#pragma unroll
        for (int i = VECTOR - 1; i >= 0; i--) {
            if (widen(vector.at[i]) == own_peak) part.first = piece * VECTOR - shift + i;
        }
    }

    A origin = part.peak > minus_infinity() ? part.peak : 0;
    Sums sums;
    auto add = [&](int k, bool whole_piece) {
        A values[VECTOR];
        widen_all(kept[k], values);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            A shifted = values[i] - origin;
            values[i] = exponential_below(shifted);
            sums.total += values[i];
            int c = k * VECTOR - shift + i;
            if (KIND != NUMBERS && (whole_piece || (c >= 0 && c < classes))) {
                sums.add_beside(target, c, shifted);
            }
        }
        if constexpr (KEEPS_EXPONENTIALS) kept[k] = to_elements(values);
    };
    share.go_through(
        [&]<int COUNT>(int k) {
#pragma unroll
            for (int j = 0; j < COUNT; j++) add(k + j * WARP, true);
        },
        [&](int k) { add(k, false); });

    part.total = reduce_lanes<Sum, WARP>(sums.total);
    if constexpr (KIND != NUMBERS) {
        part.mass = reduce_lanes<Sum, WARP>(sums.mass);
        part.along = reduce_lanes<Sum, WARP>(sums.along);
    }
    if constexpr (HITS) part.first = reduce_lanes<Minimum, WARP>(part.first);
    int warps = blockDim.x / WARP, place = rank * warps + threadIdx.x / WARP;
#ifdef XPMLP_CLUSTERS
    if constexpr (BLOCKS > 1) {
        cluster_wait();  // now all blocks have begun, and have memory
        if (lane < BLOCKS) {
            Part* to = &parts[place];
            cluster_store(&to->peak, lane, part.peak);
            cluster_store(&to->total, lane, part.total);
            if constexpr (KIND != NUMBERS) {
                cluster_store(&to->mass, lane, part.mass);
                cluster_store(&to->along, lane, part.along);
            }
            if constexpr (HITS) cluster_store(&to->first, lane, part.first);
        }
        cluster_arrive();
        cluster_wait();  // nobody looks into another block after this: each may end when it likes
    }
#endif
    if constexpr (BLOCKS == 1) {
        if (lane == 0) parts[place] = part;
        __syncthreads();
    }

    A peak;
    int first;
    sums = put_together<KIND, HITS>(parts, BLOCKS * warps, peak, first);
    RowResult result(a, target, row, sums, peak, true_logit, first);
    if (threadIdx.x == 0 && rank == 0) result.report(a, row);
    if (!a.dlogits) return;

    // Exponentials are measured from the warp's origin.
    result.factor *= part.peak > minus_infinity() ? exponential_below(part.peak - peak) : 0;
    auto make = [&](int k, A(&values)[VECTOR]) {
        widen_all(kept[k], values);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            if constexpr (!KEEPS_EXPONENTIALS) values[i] = exponential_below(values[i] - origin);
            int c = k * VECTOR - shift + i;
            values[i] *= result.factor;
            if constexpr (KIND != NUMBERS) {
                values[i] -= result.scale * target.beside(inside(c, classes));
            }
        }
    };
    auto make_part = [&](int k) {
        A values[VECTOR];
        make(k, values);
        store_part(gradient, (Index)k * VECTOR - shift, classes, values);
    };
    bool aligned = shift_of(gradient) == shift;
    auto make_whole = [&]<int COUNT>(int k) {
        T* to = gradient - shift + (Index)k * VECTOR;
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
            A values[VECTOR];
            make(k + j * WARP, values);
            store_whole(to + j * WARP * VECTOR, values);
        }
    };
    if (aligned) share.go_through(make_whole, make_part);
    else share.go_through([&]<int COUNT>(int k) {
#pragma unroll 1
        for (int j = 0; j < COUNT; j++) make_part(k + j * WARP);
    }, make_part);
    // By the thread that has just written this class.
    Index number = target.number;
    if (number >= 0 && share.owner((int)(number + shift) / VECTOR) == (int)threadIdx.x) {
        gradient[number] = to_element(result.true_class);
    }
}

#endif
