// Optimizer updates of all parameters in one launch, the sums before them, and the counters that a
// captured step needs.
//
// A table on the device lists the parameters (see Segment). Each is cut into chunks, a block takes
// one; `chunks` holds, for every parameter, how many chunks come before it, and at the end their
// number. Formulas: xpmlp/ops/update.py. Everything that changes from step to step is read from
// device memory: hyper has, for each member of a population, the columns below, written by `tick`.

#include "columns.cuh"
#include "quads.cuh"
#include "reductions.cuh"

constexpr int CHUNK = 4096;  // as geometry.UPDATE_CHUNK

// One parameter. Addresses are integers, 0 where there is nothing.
struct Segment {
    T* w;
    const void* g;
    T* slots[2];  // what the optimizer remembers
    void* copy;   // also receives the new w, in 16 bits
    Index size;
    Index member_size;  // size / P
    Index flags;
};
constexpr Index DECAYS = 1, COPY_IS_BFLOAT16 = 2, GRADIENT_IS_BFLOAT16 = 8, GRADIENT_IS_HALF = 16;

// Calls read(gradient) with the gradient's address in its true type.
template <class Read>
__device__ inline void with_gradient(const Segment& s, Read read) {
    if (s.flags & GRADIENT_IS_BFLOAT16) read(static_cast<const BFloat16*>(s.g));
    else if (s.flags & GRADIENT_IS_HALF) read(static_cast<const Half*>(s.g));
    else read(static_cast<const T*>(s.g));
}

__device__ inline void load_gradient(const Segment& s, Index first, A (&g)[4]) {
    with_gradient(s, [&](auto* gradient) { load_quad(gradient, first, s.size, g); });
}

// Columns of hyper.
struct Hyper {
    A lr;
    A decay;   // λ
    A shrink;  // 1 − lr λ
    A first;   // momentum
    A gain1;   // 1 − β₁, or 1 − decay
    A gain2;   // 1 − β₂
    A rate;    // lr / c₁
    A root;    // 1 / √c₂
    A eps;
};

// Calls each(segment, first) for every quad of this block's chunk.
template <class Each>
__device__ inline void for_each_quad_of_chunk(const Segment* segments, const Index* chunks,
                                              int count, Each each) {
    Index chunk = blockIdx.x;
    int low = 0, high = count - 1;  // the last segment whose first chunk is not after this one
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (chunks[middle] <= chunk) low = middle;
        else high = middle - 1;
    }
    Segment segment = segments[low];
    Index begin = (chunk - chunks[low]) * CHUNK;
    Index end = begin + CHUNK < segment.size ? begin + CHUNK : segment.size;
    for (Index at = begin + 4 * threadIdx.x; at < end; at += 4 * blockDim.x) each(segment, at);
}

// --- the rules: the new w; slots change in place

struct Sgd {
    static constexpr int SLOTS = 0;
    __device__ static A of(A w, A g, A*, const Hyper& h, bool) { return w - h.lr * g; }
};
struct Momentum {
    static constexpr int SLOTS = 1;
    __device__ static A of(A w, A g, A* slots, const Hyper& h, bool nesterov) {
        A velocity = slots[0] = h.first * slots[0] + g;
        return w - h.lr * (nesterov ? g + h.first * velocity : velocity);
    }
};
struct AdaGrad {
    static constexpr int SLOTS = 1;
    __device__ static A of(A w, A g, A* slots, const Hyper& h, bool) {
        slots[0] += g * g;
        return w - h.lr * g / (square_root(slots[0]) + h.eps);
    }
};
// The running mean `old`, moved towards `now` by the share `gain`. Of the two ways to write it, each
// takes the one that subtracts little from a lot: with a gain of 1 the result is `now`, to the bit,
// however much smaller that is.
__device__ inline A running_mean(A old, A now, A gain) {
    A away = now - old;
    return gain < A(0.5) ? old + gain * away : now + (gain - 1) * away;
}

struct RmsProp {
    static constexpr int SLOTS = 1;
    __device__ static A of(A w, A g, A* slots, const Hyper& h, bool) {
        slots[0] = running_mean(slots[0], g * g, h.gain1);
        return w - h.lr * g / (square_root(slots[0]) + h.eps);
    }
};
struct Adam {
    static constexpr int SLOTS = 2;
    __device__ static A of(A w, A g, A* slots, const Hyper& h, bool) {
        slots[0] = running_mean(slots[0], g, h.gain1);
        slots[1] = running_mean(slots[1], g * g, h.gain2);
        return w - h.rate * slots[0] / (square_root(slots[1]) * h.root + h.eps);
    }
};

// Whole numbers that go up by one at every step: of the batch, of layers' dropout masks.
#define COUNTER_LIST Index *counters, int counter_count
__device__ inline void count_up(COUNTER_LIST) {
    for (int i = threadIdx.x; i < counter_count; i += blockDim.x) counters[i] += 1;
}

template <class Rule>
__device__ inline void update(const Segment* segments, const Index* chunks, int count,
                              const Hyper* hyper, int nesterov, int decoupled,
                              const A* grad_scale, int grad_scale_each, const int* skip,
                              COUNTER_LIST) {
    constexpr int SLOTS = Rule::SLOTS;
    if (blockIdx.x == 0) count_up(counters, counter_count);
    if (skip && *skip) return;
    for_each_quad_of_chunk(segments, chunks, count, [&](const Segment& s, Index first) {
        A w[4], g[4], slots[SLOTS + 1][4];
        load_quad(s.w, first, s.size, w);
        load_gradient(s, first, g);
#pragma unroll
        for (int k = 0; k < SLOTS; k++) load_quad(s.slots[k], first, s.size, slots[k]);

        Index member = s.size == s.member_size ? 0 : first / s.member_size;
        Index next = (member + 1) * s.member_size;  // where the next member begins
        Hyper h = hyper[member];
        A scale = grad_scale ? grad_scale[member * grad_scale_each] : 1;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (first + i >= next && first + i < s.size) {
                h = hyper[++member];
                next += s.member_size;
                if (grad_scale) scale = grad_scale[member * grad_scale_each];
            }
            A own[SLOTS + 1];
#pragma unroll
            for (int k = 0; k < SLOTS; k++) own[k] = slots[k][i];
            A gradient = g[i] * scale;
            if (s.flags & DECAYS) {
                if (decoupled) w[i] *= h.shrink;
                else gradient += h.decay * w[i];
            }
            w[i] = Rule::of(w[i], gradient, own, h, nesterov);
#pragma unroll
            for (int k = 0; k < SLOTS; k++) slots[k][i] = own[k];
        }

        store_quad(s.w, first, s.size, w);
#pragma unroll
        for (int k = 0; k < SLOTS; k++) store_quad(s.slots[k], first, s.size, slots[k]);
        if (!s.copy) return;
        if (s.flags & COPY_IS_BFLOAT16) {
            store_quad(static_cast<BFloat16*>(s.copy), first, s.size, w);
        } else {
            store_quad(static_cast<Half*>(s.copy), first, s.size, w);
        }
    });
}

#define UPDATE(name, Rule)                                                                        \
    KERNEL(name##_update, 256)(const Segment* segments, const Index* chunks, int count,           \
                               const Hyper* hyper, int nesterov, int decoupled,                   \
                               const A* grad_scale, int grad_scale_each, const int* skip,         \
                               COUNTER_LIST) {                                                    \
        update<Rule>(segments, chunks, count, hyper, nesterov, decoupled, grad_scale,             \
                     grad_scale_each, skip, counters, counter_count);                             \
    }

UPDATE(sgd, Sgd)
UPDATE(momentum, Momentum)
UPDATE(adagrad, AdaGrad)
UPDATE(rmsprop, RmsProp)
UPDATE(adam, Adam)

// Settings of each member, as the user gave them.
struct Settings {
    double lr, decay, first, second, eps;
};

#define TICK_LIST                                                                              \
    Index *step, const Settings *settings, const double *schedule, Index schedule_length,      \
        int members, Hyper *hyper

// By one block: the hyperparameters of step *step, made in float64, and then *step += 1 (unless the
// step is skipped). The factor of the learning rate is schedule[*step], or its last.
__device__ inline void tick(TICK_LIST, bool skipped) {
    Index now = *step;
    double factor = 1, t = (double)(now + 1);
    if (schedule) factor = schedule[now < schedule_length ? now : schedule_length - 1];
    for (int member = flat_thread(); member < members; member += block_threads()) {
        Settings s = settings[member];
        double lr = s.lr * factor;
        Hyper& h = hyper[member];
        h.lr = (A)lr;
        h.decay = (A)s.decay;
        h.shrink = (A)(1 - lr * s.decay);
        h.first = (A)s.first;
        h.gain1 = (A)(1 - s.first);
        h.gain2 = (A)(1 - s.second);
        h.rate = (A)(lr / (1 - pow(s.first, t)));
        h.root = (A)(1 / sqrt(1 - pow(s.second, t)));
        h.eps = (A)s.eps;
    }
    __syncthreads();  // everybody has read *step
    if (flat_thread() == 0 && !skipped) *step = now + 1;
}

KERNEL(tick, 256)(TICK_LIST, const int* skip) {
    tick(step, settings, schedule, schedule_length, members, hyper, skip && *skip);
}

KERNEL(advance, 128)(COUNTER_LIST) { count_up(counters, counter_count); }

// --- what a step adds up at its end: out[j] = scale · scales[j] · Σᵢ parts[i, j] + extra[j]

struct SumOfParts {
    const void* parts;
    void* out;
    Index rows, columns;
    Index row_step, column_step;
    Index kinds;
    Index slots;  // not 0: out is (slots, columns), and the number of the batch says which
    double scale;
    const A* scales;  // or null
    const A* extra;   // or null
    Index extra_step;
    Index first_block;
};
constexpr Index PARTS = 3, ARE_BYTES = 1, ARE_HALF = 2, ARE_BFLOAT16 = 3, OUT_IS_INTEGER = 4;

// The sum of every `stride`th of some elements; several are on their way at a time.
template <class E>
__device__ inline A sum_of(const E* from, Index step, Index first, Index end, Index stride) {
    A sum = 0;
#pragma unroll 8
    for (Index i = first; i < end; i += stride) sum += widen(from[i * step]);
    return sum;
}

__device__ inline A sum_of_parts(const SumOfParts& s, Index column, Index first, Index stride) {
    Index at = column * s.column_step;
    switch (s.kinds & PARTS) {
        case ARE_BYTES:
            return sum_of(static_cast<const unsigned char*>(s.parts) + at, s.row_step, first,
                          s.rows, stride);
        case ARE_HALF:
            return sum_of(static_cast<const Half*>(s.parts) + at, s.row_step, first, s.rows,
                          stride);
        case ARE_BFLOAT16:
            return sum_of(static_cast<const BFloat16*>(s.parts) + at, s.row_step, first, s.rows,
                          stride);
        default:
            return sum_of(static_cast<const A*>(s.parts) + at, s.row_step, first, s.rows, stride);
    }
}

__device__ inline void write_sum(const SumOfParts& s, Index column, A sum, const Index* slot) {
    sum *= (A)s.scale;
    if (s.scales) sum *= s.scales[column];
    if (s.extra) sum += s.extra[column * s.extra_step];
    Index at = (s.slots ? *slot % s.slots * s.columns : 0) + column;
    if (s.kinds & OUT_IS_INTEGER) static_cast<int*>(s.out)[at] = (int)sum;
    else static_cast<A*>(s.out)[at] = sum;
}

// Blocks of 32 × 8 threads. Where a column's rows lie side by side, a block adds one column up; else
// 32 columns. The block after the last one ticks, if there is a step to tick.
KERNEL(finish, 256)(const SumOfParts* sums, int count, const Index* slot, TICK_LIST) {
    SHARED_TILE(A, tile, ROWS_AT_ONCE, COLUMNS);
    SHARED_ARRAY(A, scratch, MOST_WARPS);
    if (step && blockIdx.x == gridDim.x - 1) {
        tick(step, settings, schedule, schedule_length, members, hyper, false);
        return;
    }
    int number = count - 1;
    while (sums[number].first_block > blockIdx.x) number--;
    SumOfParts s = sums[number];
    Index block = blockIdx.x - s.first_block;
    if (s.rows > 1 && s.row_step == 1) {
        A sum = reduce_block<Sum>(sum_of_parts(s, block, flat_thread(), block_threads()), scratch);
        if (flat_thread() == 0) write_sum(s, block, sum, slot);
        return;
    }
    Index column = block * COLUMNS + threadIdx.x;
    A sum = column < s.columns ? sum_of_parts(s, column, threadIdx.y, ROWS_AT_ONCE) : 0;
    sum = sum_rows(sum, tile);
    if (threadIdx.y == 0 && column < s.columns) write_sum(s, column, sum, slot);
}

// *found = 1 if a gradient is infinite or no number. Never clears it: adjust_scale does.
KERNEL(find_nonfinite, 256)(const Segment* segments, const Index* chunks, int count, int* found) {
    for_each_quad_of_chunk(segments, chunks, count, [&](const Segment& s, Index first) {
        A g[4];
        load_gradient(s, first, g);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (!(g[i] - g[i] == 0)) *found = 1;  // ∞ − ∞ and NaN are no number
        }
    });
}

// Loss scaling for float16 (Micikevicius et al. 2018): one thread, at the end of a step.
KERNEL(adjust_scale, 32)(float* scale, A* inverse, int* found, int* good_steps, float growth,
                         float backoff, int interval) {
    if (*found) {
        *scale *= backoff;
        *good_steps = 0;
    } else if (++*good_steps >= interval) {
        *scale *= growth;
        *good_steps = 0;
    }
    *inverse = 1 / (A)*scale;
    *found = 0;
}

// Σ g² of each parameter and member, in gridDim.x parts: partial is (parts, parameters, members).
KERNEL(squared_norm, 256)(const Segment* segments, int members, A* partial) {
    SHARED_ARRAY(A, scratch, MOST_WARPS);
    Segment s = segments[blockIdx.y];
    Index share = (s.member_size + gridDim.x - 1) / gridDim.x, begin = blockIdx.x * share;
    Index end = begin + share < s.member_size ? begin + share : s.member_size;
    for (int member = blockIdx.z; member < members; member += gridDim.z) {
        A sum = 0;
        with_gradient(s, [&](auto* gradient) {
            for (Index i = begin + threadIdx.x; i < end; i += blockDim.x) {
                A g = widen(gradient[member * s.member_size + i]);
                sum += g * g;
            }
        });
        sum = reduce_block<Sum>(sum, scratch);
        Index part = (Index)blockIdx.x * gridDim.y + blockIdx.y;
        if (threadIdx.x == 0) partial[part * members + member] = sum;
    }
}

// Each member's factor for its gradients, so that their norm (times `inverse`) is at most max_norm.
KERNEL(clip_scale, 128)(const A* partial, Index parts, int members, const A* max_norm,
                        int max_norm_each, const A* inverse, A* grad_scale) {
    int member = blockIdx.x * blockDim.x + threadIdx.x;
    if (member >= members) return;
    A sum = 0, unscale = inverse ? *inverse : 1, bound = max_norm[member * max_norm_each];
    for (Index part = 0; part < parts; part++) sum += partial[part * members + member];
    A norm = square_root(sum) * unscale;
    grad_scale[member] = unscale * (norm > bound ? bound / norm : 1);
}
