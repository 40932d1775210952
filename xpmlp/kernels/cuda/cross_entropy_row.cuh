// One row of a softmax cross-entropy: its targets, what is summed over its classes, and how the sums
// become loss and gradient. The layouts in the headers beside this one bring the classes.
//
// With the notation of xpmlp.ops.softmax_cross_entropy a row's gradient is
// (Q + 2 z lse) p − q', its loss Q lse − Σ q'_c logits_c + z lse², where Q = Σ q'_c.
#ifndef XPMLP_CROSS_ENTROPY_ROW_CUH
#define XPMLP_CROSS_ENTROPY_ROW_CUH

#include "types.cuh"

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

#endif
