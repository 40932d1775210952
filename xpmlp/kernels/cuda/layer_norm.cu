// Layer normalization: y = γ (x − μ)/√(σ² + ε) + β with μ, σ² over each row's features, and its
// gradients. With `centered` 0 it is RMS normalization, y = γ x/√(mean(x²) + ε).
//
// A block is (threads, rows): blockDim.x threads, one warp or many, take one row together. Up to
// KEPT elements a thread stay in registers between the passes; longer rows are read again, from
// the cache. γ and β are (members, features); row r belongs to member r / batch.

#include "columns.cuh"
#include "reductions.cuh"

constexpr int KEPT = 8;

// Sums over the threads of a row: a warp each if rows share the block, else the whole block.
struct Row {
    Index number;
    bool exists;
    A* scratch;

    __device__ Row(Index rows, A* scratch) : scratch(scratch) {
        number = (Index)blockIdx.x * blockDim.y + threadIdx.y;
        exists = number < rows;
        if (!exists) number = rows - 1;  // repeats the last row, so that whole warps add up
    }
    __device__ A sum(A value) const {
        return blockDim.x == WARP ? reduce_lanes<Sum, WARP>(value)
                                  : reduce_block<Sum>(value, scratch);
    }
};

// Calls each(column, which) for this thread's columns; `which` < KEPT are held in registers.
template <class Each>
__device__ inline void for_each_own(int features, Each each) {
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        int column = threadIdx.x + k * blockDim.x;
        if (column < features) each(column, k);
    }
    for (int column = threadIdx.x + KEPT * blockDim.x; column < features; column += blockDim.x) {
        each(column, KEPT);
    }
}

KERNEL(layer_norm, 256)(const T* x, const T* gamma, const T* beta, A eps, int centered, T* y,
                        A* mean, A* inv_std, Index rows, int features, Index batch) {
    SHARED_ARRAY(A, scratch, MOST_WARPS);
    Row row(rows, scratch);
    x += row.number * features;
    y += row.number * features;
    gamma += row.number / batch * features;
    A kept[KEPT + 1] = {};
    auto value = [&](int column, int k) { return k < KEPT ? kept[k] : widen(x[column]); };

    A sum = 0, mu = 0;
    for_each_own(features, [&](int column, int k) { sum += kept[k] = widen(x[column]); });
    if (centered) mu = row.sum(sum) / features;
    A squares = 0;
    for_each_own(features, [&](int column, int k) {
        A d = value(column, k) - mu;
        squares += d * d;
    });
    A inverse = 1 / square_root(row.sum(squares) / features + eps);
    if (!row.exists) return;
    for_each_own(features, [&](int column, int k) {
        A result = (value(column, k) - mu) * inverse * widen(gamma[column]);
        if (beta) result += widen(beta[row.number / batch * features + column]);
        y[column] = to_element(result);
    });
    if (threadIdx.x > 0) return;
    if (mean) mean[row.number] = mu;
    inv_std[row.number] = inverse;
}

// With g = γ ⊙ dy: dx = (g − mean(g) − x̂ mean(g ⊙ x̂)) · inv_std, without mean(g) for RMS.
KERNEL(layer_norm_backward, 256)(const T* dy, const T* x, const T* gamma, const A* mean,
                                 const A* inv_std, int centered, T* dx, Index rows, int features,
                                 Index batch) {
    SHARED_ARRAY(A, scratch, MOST_WARPS);
    Row row(rows, scratch);
    dy += row.number * features;
    x += row.number * features;
    dx += row.number * features;
    gamma += row.number / batch * features;
    A mu = centered ? mean[row.number] : 0, inverse = inv_std[row.number];
    A kept_g[KEPT + 1] = {}, kept_x[KEPT + 1] = {};

    A plain = 0, along = 0;
    for_each_own(features, [&](int column, int k) {
        A g = kept_g[k] = widen(dy[column]) * widen(gamma[column]);
        A x_hat = kept_x[k] = (widen(x[column]) - mu) * inverse;
        plain += g;
        along += g * x_hat;
    });
    plain = centered ? row.sum(plain) / features : 0;
    along = row.sum(along) / features;
    if (!row.exists) return;
    for_each_own(features, [&](int column, int k) {
        A g = kept_g[k], x_hat = kept_x[k];
        if (k == KEPT) {
            g = widen(dy[column]) * widen(gamma[column]);
            x_hat = (widen(x[column]) - mu) * inverse;
        }
        dx[column] = to_element((g - plain - x_hat * along) * inverse);
    });
}

// partial: (chunks, 2, members · features), Σ dy and Σ dy x̂ over chunks of rows.
KERNEL(layer_norm_parameters, 256)(const T* dy, const T* x, const A* mean, const A* inv_std,
                                   A* partial, Index batch, int features, int members) {
    auto add = [&](int member, Index row, int column, A(&sums)[2]) {
        Index flat = member * batch + row, at = flat * features + column;
        A gradient = widen(dy[at]), mu = mean ? mean[flat] : 0;
        sums[0] += gradient;
        sums[1] += gradient * ((widen(x[at]) - mu) * inv_std[flat]);
    };
    partial_sums<2>(batch, features, members, partial, add);
}

KERNEL(layer_norm_parameters_finish, 128)(const A* partial, int chunks, Index columns, T* dgamma,
                                          T* dbeta) {
    Index column = flat_column();
    if (column >= columns) return;
    dgamma[column] = to_element(finish_sum<2>(partial, chunks, columns, 1, column));
    if (dbeta) dbeta[column] = to_element(finish_sum<2>(partial, chunks, columns, 0, column));
}
