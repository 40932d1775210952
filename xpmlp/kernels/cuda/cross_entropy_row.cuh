// One row of a softmax cross-entropy: its targets, what is summed over its classes, and how the sums
// become loss and gradient. The layouts in the headers beside this one bring the classes.
//
// With the notation of xpmlp.ops.softmax_cross_entropy a row's gradient is
// (Q + 2 z lse) p − q', its loss Q lse − Σ q'_c logits_c + z lse², where Q = Σ q'_c.
//
// What a class number adds to q' of the true class alone is left out while the classes are gone
// through, and put in once at the end: without smoothing no class needs to be told from another.
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

// What targets are: class numbers, class numbers that may be smoothed, or probabilities.
enum Targets { NUMBERS, SMOOTHED, PROBABILITIES };

// What a row's targets say.
template <Targets KIND>
struct Target {
    const T* probabilities;
    const A* class_weights;
    Index number;  // the true class, −1 if there is none
    bool counted;  // false for rows that ignore_index names
    A direct;      // (1 − ε) w of the true class, 0 if there is none; with probabilities 1 − ε
    A spread;      // ε/C

    __device__ Target(const Arguments& a, Index row) {
        // 64-bit division takes longer than the rest of a short row.
        Index place = a.target_rows == a.rows ? row : row % a.target_rows;
        class_weights = a.class_weights;
        direct = 1;
        spread = 0;
        if constexpr (KIND != NUMBERS) {
            A smoothing = a.smoothings ? a.smoothings[row / a.batch] : a.smoothing;
            spread = smoothing / a.classes;
            direct = 1 - smoothing;
        }
        counted = true;
        if constexpr (KIND == PROBABILITIES) {
            probabilities = static_cast<const T*>(a.targets) + place * a.classes;
            number = -1;
        } else {
            probabilities = nullptr;
            number = class_number(a.targets, a.target_kind, place);
            counted = !(a.has_ignore && number == a.ignore_index);
            // Class numbers are not checked on the device: one outside is no class at all.
            if (number < 0 || number >= a.classes) {
                number = -1;
                direct = 0;
            } else if (class_weights) {
                direct *= class_weights[number];
            }
        }
    }

    // Whether `beside` is anything but 0.
    __device__ bool is_dense() const {
        return KIND == PROBABILITIES || (KIND == SMOOTHED && spread > 0);
    }

    // q'_c without what the true class has for itself.
    __device__ A beside(Index c) const {
        A q = spread;
        if constexpr (KIND == PROBABILITIES) q += direct * widen(probabilities[c]);
        return class_weights ? q * class_weights[c] : q;
    }

    // The true class's logit, to be read before a gradient is written in its place.
    __device__ A logit(const T* logits) const { return number < 0 ? 0 : widen(logits[number]); }
};

// e^x for x ≤ 0.
__device__ inline double exponential_below(double x) { return exp(x); }
__device__ inline float exponential_below(float x) {
    if constexpr (sizeof(T) == 2) return __expf(x);
    x = larger_or_nan(x, -200.0f);  // e^x is 0 there already, and −∞ would be subtracted from itself
    float t = x * 1.44269504f, power = power_of_two(t);
    // t is x log₂e but for its rounding, which is worth x − t ln 2; float32's ln 2 is right to 2e-9.
    return fmaf(power, fmaf(t, -0.693147181f, x), power);
}

// What a pass over a row's logits, measured from `origin`, adds up.
struct Sums {
    A total = 0;  // Σ exp(x_c − origin)
    A mass = 0;   // Σ q'_c      } of what is beside the true class's own
    A along = 0;  // Σ q'_c (x_c − origin)  }

    // Adds class c to mass and along.
    template <Targets KIND>
    __device__ void add_beside(const Target<KIND>& target, Index c, A shifted) {
        A q = target.beside(c);
        mass += q;
        // 0 · inf is NaN: a class with no probability must not read a logit of −inf.
        if (q > 0) along += q * shifted;
    }
};

// How a row's exponentials become its gradient, and what it reports.
struct RowResult {
    A factor;      // of exp(x_c − peak)
    A scale;       // of q'_c
    A true_class;  // the true class's gradient
    A loss;
    bool hit;

    // `first` is the first class whose logit is the peak; only hits depend on it.
    template <Targets KIND>
    __device__ RowResult(const Arguments& a, const Target<KIND>& target, Index row, Sums sums,
                         A peak, A true_logit, Index first) {
        if (!target.counted) {
            factor = scale = true_class = loss = 0;
            hit = false;
            return;
        }
        A shifted = true_logit - peak;
        if (KIND != PROBABILITIES && target.direct > 0) {
            sums.mass += target.direct;
            sums.along += target.direct * shifted;
        }
        sums.total += peak - peak;  // NaN where no maximum is finite
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
        true_class = 0;
        if (target.number >= 0) {
            A q = target.direct + (target.is_dense() ? target.beside(target.number) : 0);
            true_class = factor * exponential_below(shifted) - scale * q;
        }
        // A row without a finite loss is no hit.
        hit = target.number >= 0 && target.number == first && log_total == log_total;
    }

    // dlogits of class c, unless it is the true one; e is exp(x − peak).
    template <Targets KIND>
    __device__ A gradient(const Target<KIND>& target, Index c, A e) const {
        A pull = factor * e;
        return target.is_dense() ? pull - scale * target.beside(c) : pull;
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

constexpr int NO_CLASS = 0x7fffffff;

#endif
