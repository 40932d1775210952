// What follows a product: y = dropout(f(x + b)), and the gradients of it.
//
// f is the identity, ReLU, tanh or the sigmoid, whose derivatives follow from y. All arrays are
// (members, batch, features), b is (members, features).

#include "columns.cuh"
#include "mask.cuh"
#include "quads.cuh"

// As numbered by geometry.ACTIVATIONS.
constexpr int RELU = 1, TANH = 2, SIGMOID = 3;

__device__ inline A activate(int activation, A x) {
    if (activation == RELU) return x < 0 ? 0 : x;  // NaN stays NaN
    if (activation == TANH) return tangent(x);
    if (activation == SIGMOID) {
        A e = exponential(x < 0 ? x : -x);  // never overflows
        return (x < 0 ? e : 1) / (1 + e);
    }
    return x;
}

// dy · f′, from y = f(x).
__device__ inline A deactivate(int activation, A dy, A y) {
    if (activation == RELU) return y > 0 ? dy : 0;
    if (activation == TANH) return dy * (1 - y * y);
    if (activation == SIGMOID) return dy * y * (1 - y);
    return dy;
}

// y may be x; bias may be null.
KERNEL(bias_activation, 256)(const T* x, const T* bias, T* y, Index batch, int features,
                             int members, int activation, MASK_LIST) {
    Mask mask = MASK;
    Index size = batch * features;
    for_each_quad(size, members, [&](int member, Index first) {
        Index begin = member * size;
        A values[4];
        load_quad(x + begin, first, size, values);
        if (bias) {
            int column = column_of(first, features);
            const T* own = bias + (Index)member * features;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                values[i] += widen(own[column]);
                if (++column == features) column = 0;
            }
        }
#pragma unroll
        for (int i = 0; i < 4; i++) values[i] = activate(activation, values[i]);
        if (mask.keys) {
            Words words = mask.words(member, first / 4);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                values[i] = Mask::apply(values[i], mask.factor(member, words.at[i]));
            }
        }
        store_quad(y + begin, first, size, values);
    });
}

// dz = f′ ⊙ dropout(dy), and partial sums of it over the batch. y is what bias_activation wrote.
// dz may be dy, or null; partial may be null.
KERNEL(bias_activation_backward, 256)(const T* dy, const T* y, T* dz, A* partial, Index batch,
                                      int features, int members, int activation, MASK_LIST) {
    Mask mask = MASK;
    auto add = [&](int member, Index row, int column, A(&sums)[1]) {
        Index element = row * features + column, at = member * (batch * features) + element;
        A gradient = widen(dy[at]), output = activation ? widen(y[at]) : 0;
        if (mask.keys) {
            unsigned word = mask.words(member, element / 4).pick((int)(element % 4));
            A factor = mask.factor(member, word);
            gradient = Mask::apply(gradient, factor);
            if (factor > 0) output /= factor;  // what it was before dropout
        }
        T rounded = to_element(deactivate(activation, gradient, output));
        if (dz) dz[at] = rounded;
        sums[0] += widen(rounded);
    };
    partial_sums<1>(batch, features, members, partial, add);
}

// The bias's gradient from those partial sums.
KERNEL(column_sums_finish, 128)(const A* partial, int chunks, Index columns, T* out) {
    Index column = flat_column();
    if (column >= columns) return;
    out[column] = to_element(finish_sum<1>(partial, chunks, columns, 0, column));
}
