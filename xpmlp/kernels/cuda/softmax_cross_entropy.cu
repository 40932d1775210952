// Softmax cross-entropy: every row's loss and gradient from one read of its logits.
//
// With the notation of xpmlp.ops.softmax_cross_entropy a row's gradient is
// (Q + 2 z lse) p − q', its loss Q lse − Σ q'_c logits_c + z lse², where Q = Σ q'_c. Rows are laid
// out by their width:
//
//     thread      C ≤ 32: a block stages its rows in shared memory, each thread takes one
//     LxP         C ≤ 1024 (float64 512): L lanes hold a row in registers, P times 16 bytes each
//     block       a block keeps the row in shared memory
//     clusterB    B blocks keep it in theirs (compute capability 9.0)
//     stream      any C: two reads, maximum and sum found together in the first
//
// All have one argument list. Sums are made in a fixed order and without atomics. `hits` says for
// each row whether its largest logit is the class; two kernels at the end sum over batches.

#include "reductions.cuh"
#include "vectors.cuh"

// `probabilities` are targets of type T with C columns; otherwise class numbers of `target_kind`.
struct Arguments {
    const T* logits;
    Index logit_stride;
    T* dlogits;
    Index gradient_stride;
    const void* targets;
    int target_kind;
    Index target_rows;
    Index rows;
    int classes;
    Index batch;
    A smoothing;
    const A* smoothings;
    const A* class_weights;
    Index ignore_index;
    int has_ignore;
    A z_loss;
    A scale;
    const A* scales;
    const float* loss_scale;
    A* row_loss;
    unsigned char* hits;
};

#define ARGUMENT_LIST                                                                           \
    const T *logits, Index logit_stride, T *dlogits, Index gradient_stride, const void *targets, \
        int target_kind, Index target_rows, Index rows, int classes, Index batch, A smoothing,   \
        const A *smoothings, const A *class_weights, Index ignore_index, int has_ignore,         \
        A z_loss, A scale, const A *scales, const float *loss_scale, A *row_loss,                \
        unsigned char *hits
#define ARGUMENTS                                                                               \
    Arguments {                                                                                 \
        logits, logit_stride, dlogits, gradient_stride, targets, target_kind, target_rows,       \
            rows, classes, batch, smoothing, smoothings, class_weights, ignore_index,            \
            has_ignore, z_loss, scale, scales, loss_scale, row_loss, hits                        \
    }

// Class number `i` of an array whose element type is named by geometry.TARGET_KINDS.
__device__ inline Index class_number(const void* numbers, int kind, Index i) {
    switch (kind) {
        case 0: return static_cast<const unsigned char*>(numbers)[i];
        case 1: return static_cast<const signed char*>(numbers)[i];
        case 2: return static_cast<const short*>(numbers)[i];
        case 3: return static_cast<const unsigned short*>(numbers)[i];
        case 4: return static_cast<const int*>(numbers)[i];
        default: return static_cast<const Index*>(numbers)[i];
    }
}

// What a row's targets say: q'_c for every class c, and which class is the true one.
template <bool PROBABILITIES>
struct Target {
    const T* probabilities;
    const A* class_weights;
    Index number;   // the true class, −1 if there is none
    bool counted;   // false for rows that ignore_index names
    A direct;       // (1 − ε) w of the true class; with probabilities 1 − ε
    A spread;       // ε/C
    bool is_dense;  // whether other classes than the true one have a q'

    __device__ Target(const Arguments& a, Index row) {
        // 64-bit division takes longer than the rest of a short row.
        Index place = a.target_rows == a.rows ? row : row % a.target_rows;
        A smoothing = a.smoothings ? a.smoothings[row / a.batch] : a.smoothing;
        class_weights = a.class_weights;
        spread = smoothing / a.classes;
        direct = 1 - smoothing;
        counted = true;
        if constexpr (PROBABILITIES) {
            probabilities = static_cast<const T*>(a.targets) + place * a.classes;
            number = -1;
            is_dense = true;
        } else {
            probabilities = nullptr;
            number = class_number(a.targets, a.target_kind, place);
            counted = !(a.has_ignore && number == a.ignore_index);
            // Class numbers are not checked on the device: one outside is no class at all.
            if (number < 0 || number >= a.classes) number = -1;
            else if (class_weights) direct *= class_weights[number];
            is_dense = spread > 0;
        }
    }

    // q'_c
    __device__ A of(Index c) const {
        if constexpr (PROBABILITIES) {
            A q = direct * widen(probabilities[c]) + spread;
            return class_weights ? q * class_weights[c] : q;
        } else {
            A q = c == number ? direct : 0;
            if (is_dense) q += class_weights ? spread * class_weights[c] : spread;
            return q;
        }
    }
};

// What one pass over a row's logits, their maximum known, adds up.
struct Sums {
    A total = 0;    // Σ exp(x_c − peak)
    A mass = 0;     // Q
    A along = 0;    // Σ q'_c (x_c − peak)
    A blocked = 0;  // > 0 if the true class is not the first of the largest logits
};

// Adds class c; returns exp(x − peak).
template <bool PROBABILITIES>
__device__ inline A add_class(Sums& sums, const Target<PROBABILITIES>& target, Index c, A x,
                              A peak) {
    A shifted = x - peak;
    A e = exponential(shifted);
    sums.total += e;
    if (target.is_dense || c == target.number) {
        A q = target.of(c);
        sums.mass += q;
        // 0 · inf is NaN: a class with no probability must not read a logit of −inf.
        if (q > 0) sums.along += q * shifted;
    }
    bool is_peak = x == peak;
    if (c == target.number ? !is_peak : is_peak && c < target.number) sums.blocked += 1;
    return e;
}

template <class Reduce>
__device__ inline void reduce_sums(Sums& sums, bool with_hits, Reduce reduce) {
    sums.total = reduce(sums.total, 0);
    sums.mass = reduce(sums.mass, 1);
    sums.along = reduce(sums.along, 2);
    if (with_hits) sums.blocked = reduce(sums.blocked, 3);
}

// How a row's exponentials become its gradient, and what it reports.
struct RowResult {
    A factor;  // of exp(x_c − peak)
    A scale;   // of q'_c
    A loss;
    bool hit;

    template <bool PROBABILITIES>
    __device__ RowResult(const Arguments& a, const Target<PROBABILITIES>& target, Index row,
                         const Sums& sums, A peak) {
        if (!target.counted) {
            factor = scale = loss = 0;
            hit = false;
            return;
        }
        A log_total = logarithm(sums.total), lse = log_total + peak;
        loss = sums.mass * log_total - sums.along;
        A pull = sums.mass;
        if (a.z_loss != 0) {
            loss += a.z_loss * lse * lse;
            pull += 2 * a.z_loss * lse;
        }
        scale = a.scales ? a.scales[row / a.batch] : a.scale;
        if (a.loss_scale) scale *= *a.loss_scale;
        factor = scale * (pull / sums.total);
        hit = target.number >= 0 && sums.blocked == 0;
    }

    // dlogits of class c. An ignored row's is 0 even where exp(x − peak) is not a number.
    template <bool PROBABILITIES>
    __device__ A gradient(const Target<PROBABILITIES>& target, Index c, A e) const {
        if (!target.counted) return 0;
        A pull = factor * e;
        return target.is_dense || c == target.number ? pull - scale * target.of(c) : pull;
    }

    __device__ void report(const Arguments& a, Index row) const {
        if (a.row_loss) a.row_loss[row] = loss;
        if (a.hits) a.hits[row] = hit;
    }
};

// A class that exists, for columns beside the row: a piece's gradients are made without a branch,
// so that they can be stored as one vector, and those beside the row are not stored.
__device__ inline int inside(Index c, int classes) {
    return c < 0 ? 0 : c < classes ? (int)c : classes - 1;
}

// --- C ≤ 32: one thread, one row -----------------------------------------------------------------

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

template <bool PROBABILITIES>
__device__ inline void rows_by_threads(const Arguments& a) {
    SHARED_BYTES(bytes);
    A* tile = reinterpret_cast<A*>(bytes);
    // An odd pitch: the threads of a warp, a pitch apart, then meet 32 different banks.
    int classes = a.classes, pitch = classes | 1;
    Index first = (Index)blockIdx.x * blockDim.x;
    int count = (int)(a.rows - first < blockDim.x ? a.rows - first : blockDim.x);

    T* logits = const_cast<T*>(a.logits) + first * a.logit_stride;
    copy_tile<true>(logits, a.logit_stride, count, classes, tile, pitch);
    __syncthreads();
    if ((int)threadIdx.x < count) {
        Index row = first + threadIdx.x;
        A* x = tile + threadIdx.x * pitch;
        Target<PROBABILITIES> target(a, row);
        A peak = x[0];
        for (int c = 1; c < classes; c++) peak = larger(peak, x[c]);
        Sums sums;
        for (int c = 0; c < classes; c++) x[c] = add_class(sums, target, c, x[c], peak);
        RowResult result(a, target, row, sums, peak);
        for (int c = 0; c < classes; c++) x[c] = result.gradient(target, c, x[c]);
        result.report(a, row);
    }
    __syncthreads();
    if (!a.dlogits) return;
    T* gradient = a.dlogits + first * a.gradient_stride;
    copy_tile<false>(gradient, a.gradient_stride, count, classes, tile, pitch);
}

// --- C ≤ 1024 or 512: a row in the registers of some lanes --------------------------------------

template <bool PROBABILITIES, int LANES, int PIECES>
__device__ inline void rows_by_lanes(const Arguments& a) {
    constexpr int STEP = LANES * VECTOR;
    Index row = ((Index)blockIdx.x * blockDim.x + threadIdx.x) / LANES;
    // Lanes beyond the last row repeat it, so that whole warps shuffle, and write nothing.
    bool writes = row < a.rows;
    if (!writes) row = a.rows - 1;
    int classes = a.classes;
    const T* logits = a.logits + row * a.logit_stride;
    int shift = shift_of(logits), begin = (int)(threadIdx.x % LANES) * VECTOR - shift;

    A x[PIECES][VECTOR];
    A peak = minus_infinity();
#pragma unroll
    for (int k = 0; k < PIECES; k++) {
        load_piece(logits, begin + k * STEP, classes, minus_infinity(), x[k]);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) peak = larger(peak, x[k][i]);
    }
    peak = reduce_lanes<Maximum, LANES>(peak);

    Target<PROBABILITIES> target(a, row);
    Sums sums;
#pragma unroll
    for (int k = 0; k < PIECES; k++) {
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            int c = begin + k * STEP + i;
            if (c >= 0 && c < classes) x[k][i] = add_class(sums, target, c, x[k][i], peak);
        }
    }
    reduce_sums(sums, a.hits, [](A value, int) { return reduce_lanes<Sum, LANES>(value); });
    RowResult result(a, target, row, sums, peak);
    if (!writes) return;
    if (threadIdx.x % LANES == 0) result.report(a, row);
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
}

// --- wider rows: one block, or a cluster of them, keeps the row in shared memory -----------------

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
            if constexpr (KEEPS_EXPONENTIALS) vector.at[i] = e;
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

// --- any width: two reads ------------------------------------------------------------------------

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

// --- the kernels ---------------------------------------------------------------------------------

#define BOTH_TARGETS(name, threads, body, ...)                                               \
    KERNEL(softmax_cross_entropy_##name, threads)(ARGUMENT_LIST) {                           \
        body<false __VA_OPT__(, ) __VA_ARGS__>(ARGUMENTS);                                   \
    }                                                                                        \
    KERNEL(softmax_cross_entropy_##name##_probabilities, threads)(ARGUMENT_LIST) {           \
        body<true __VA_OPT__(, ) __VA_ARGS__>(ARGUMENTS);                                    \
    }

BOTH_TARGETS(thread, 128, rows_by_threads)
// L lanes with P pieces hold L·P·VECTOR classes: from 64 to 1024, in float64 to 512.
#if defined(XPMLP_F64)
BOTH_TARGETS(32x8, 128, rows_by_lanes, 32, 8)
#elif defined(XPMLP_F32)
BOTH_TARGETS(16x1, 128, rows_by_lanes, 16, 1)
BOTH_TARGETS(32x8, 128, rows_by_lanes, 32, 8)
#else
BOTH_TARGETS(8x1, 128, rows_by_lanes, 8, 1)
BOTH_TARGETS(16x1, 128, rows_by_lanes, 16, 1)
#endif
BOTH_TARGETS(32x1, 128, rows_by_lanes, 32, 1)
BOTH_TARGETS(32x2, 128, rows_by_lanes, 32, 2)
BOTH_TARGETS(32x4, 128, rows_by_lanes, 32, 4)
BOTH_TARGETS(block, 512, row_by_blocks, 1)
BOTH_TARGETS(stream, 512, row_by_two_reads)

#ifdef XPMLP_CLUSTERS
#define BOTH_TARGETS_CLUSTER(blocks)                                                         \
    extern "C" __global__ void CLUSTER_OF(blocks) __launch_bounds__(512, 1)                   \
        WITH_SUFFIX(softmax_cross_entropy_cluster##blocks)(ARGUMENT_LIST) {                  \
        row_by_blocks<false, blocks>(ARGUMENTS);                                             \
    }                                                                                        \
    extern "C" __global__ void CLUSTER_OF(blocks) __launch_bounds__(512, 1)                   \
        WITH_SUFFIX(softmax_cross_entropy_cluster##blocks##_probabilities)(ARGUMENT_LIST) {  \
        row_by_blocks<true, blocks>(ARGUMENTS);                                              \
    }

BOTH_TARGETS_CLUSTER(2)
BOTH_TARGETS_CLUSTER(4)
BOTH_TARGETS_CLUSTER(8)
#endif

// 1 / Σ w over the counted rows of each problem, what a mean divides by; 1 where there is none.
KERNEL(softmax_cross_entropy_normalizer, 256)(const void* targets, int target_kind,
                                              Index target_rows, Index batch, int classes,
                                              const A* class_weights, Index ignore_index,
                                              int has_ignore, A* scales) {
    SHARED_ARRAY(A, scratch, MOST_WARPS);
    Index problem = blockIdx.x;
    A weight = 0;
    for (Index i = threadIdx.x; i < batch; i += blockDim.x) {
        Index number = class_number(targets, target_kind, (problem * batch + i) % target_rows);
        if (has_ignore && number == ignore_index) continue;
        bool exists = number >= 0 && number < classes;
        weight += !class_weights ? 1 : exists ? class_weights[number] : 0;
    }
    weight = reduce_block<Sum>(weight, scratch);
    if (threadIdx.x == 0) scales[problem] = weight > 0 ? 1 / weight : 1;
}

// Each problem's loss and its count of hits; `slot`, on the device, says where in the history.
KERNEL(softmax_cross_entropy_reduce, 256)(const A* row_loss, const unsigned char* hits,
                                          Index batch, A scale, const A* scales, T* loss,
                                          int* correct, const Index* slot) {
    SHARED_ARRAY(A, scratch, MOST_WARPS);
    SHARED_ARRAY(A, counts, MOST_WARPS);
    Index problem = blockIdx.x, out = (slot ? *slot * gridDim.x : 0) + problem;
    if (loss) {
        A sum = 0;
        const A* own = row_loss + problem * batch;
        for (Index i = threadIdx.x; i < batch; i += blockDim.x) sum += own[i];
        sum = reduce_block<Sum>(sum, scratch) * (scales ? scales[problem] : scale);
        if (threadIdx.x == 0) loss[out] = to_element(sum);
    }
    if (correct) {
        A count = 0;  // exact in float32 up to 2^24 rows
        for (Index i = threadIdx.x; i < batch; i += blockDim.x) count += hits[problem * batch + i];
        count = reduce_block<Sum>(count, counts);
        if (threadIdx.x == 0) correct[out] = (int)count;
    }
}
