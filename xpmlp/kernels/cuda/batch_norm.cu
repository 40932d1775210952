// Batch normalization: y = γ (x − μ)/√(σ² + ε) + β with μ, σ² over the batch, and its gradients.
//
// x is (members, batch, features); statistics and parameters are (members, features), statistics
// in A. Forward and backward are three kernels each: partial sums of chunks of rows, their sum,
// and the elementwise part.

#include "columns.cuh"
#include "quads.cuh"

// A count of values, their mean, and the sum of the squares of their deviations from it.
struct Moments {
    A count = 0, mean = 0, squares = 0;

    // Chan, Golub and LeVeque 1983: no cancellation, however large the mean.
    __device__ void join(A other_count, A other_mean, A other_squares) {
        if (other_count == 0) return;
        A total = count + other_count, difference = other_mean - mean;
        A share = other_count / total;
        mean += difference * share;
        squares += other_squares + difference * difference * (count * share);
        count = total;
    }
};

constexpr int TILE = 8;  // values that a thread holds in registers: one division for all of them

// Means are kept as distances from the batch's first row: with a large mean, float32 would have few
// digits left for the differences between chunks.
__device__ inline A pivot_of(const T* x, Index batch, int features, int member, int column) {
    return widen(x[member * (batch * features) + column]);
}

// partial: (chunks, 2, members · features), the mean (as a distance) and the squared deviations of
// each chunk.
KERNEL(batch_norm_partial, 256)(const T* x, A* partial, Index batch, int features, int members) {
    SHARED_TILE(A, means, ROWS_AT_ONCE, COLUMNS);
    SHARED_TILE(A, squares, ROWS_AT_ONCE, COLUMNS);
    for_each_column(batch, members, [&](int member, int column, Index begin, Index end) {
        Moments own;
        if (column < features) {
            const T* values = x + member * (batch * features) + column;
            A pivot = pivot_of(x, batch, features, member, column);
            for (Index row = begin + threadIdx.y; row < end; row += TILE * ROWS_AT_ONCE) {
                A tile[TILE], sum = 0, deviation = 0;
                int count = 0;
#pragma unroll
                for (int i = 0; i < TILE; i++) {
                    Index at = row + i * ROWS_AT_ONCE;
                    tile[i] = at < end ? widen(values[at * features]) - pivot : 0;
                    sum += tile[i];
                    count += at < end;
                }
                A mean = sum / count;
#pragma unroll
                for (int i = 0; i < TILE; i++) {
                    A d = row + i * ROWS_AT_ONCE < end ? tile[i] - mean : 0;
                    deviation += d * d;
                }
                own.join(count, mean, deviation);
            }
        }
        means[threadIdx.y][threadIdx.x] = own.mean;
        squares[threadIdx.y][threadIdx.x] = own.squares;
        __syncthreads();
        if (threadIdx.y == 0 && column < features) {
            for (int y = 1; y < ROWS_AT_ONCE; y++) {
                // Thread y took the rows begin + y, begin + y + 8, …
                Index left = end - begin - y;
                A count = left > 0 ? (A)((left + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE) : 0;
                own.join(count, means[y][threadIdx.x], squares[y][threadIdx.x]);
            }
            Index columns = (Index)members * features;
            A* out = partial + (Index)blockIdx.y * 2 * columns + (Index)member * features + column;
            out[0] = own.mean;
            out[columns] = own.squares;
        }
        __syncthreads();
    });
}

// The batch's mean and biased variance; running statistics, if there are any, move towards them:
// running ← keep · running + (1 − keep) · batch, the variance's taken over N − 1 if `unbiased`.
KERNEL(batch_norm_finish, 128)(const T* x, const A* partial, int chunks, Index batch, int features,
                               int members, A* mean, A* var, T* running_mean, T* running_var,
                               A keep, int unbiased) {
    Index column = flat_column(), columns = (Index)members * features;
    if (column >= columns) return;
    Moments all;
    Index rows = (batch + chunks - 1) / chunks;  // in a chunk, as for_each_column cuts them
    for (int chunk = 0; chunk < chunks; chunk++) {
        Index left = batch - chunk * rows;
        Index count = left < 0 ? 0 : left < rows ? left : rows;
        const A* part = partial + (Index)chunk * 2 * columns + column;
        all.join((A)count, part[0], part[columns]);
    }
    A variance = all.squares / (A)batch;
    all.mean += pivot_of(x, batch, features, (int)(column / features), (int)(column % features));
    mean[column] = all.mean;
    var[column] = variance;
    if (!running_mean) return;
    if (unbiased && batch > 1) variance = all.squares / (A)(batch - 1);
    A m = widen(running_mean[column]), v = widen(running_var[column]);
    running_mean[column] = to_element(keep * m + (1 - keep) * all.mean);
    running_var[column] = to_element(keep * v + (1 - keep) * variance);
}

// Calls each(first, column of each of four elements) for every quad of x.
template <class Each>
__device__ inline void for_each_normalized_quad(Index batch, int features, int members,
                                                Each each) {
    Index size = batch * features;
    for_each_quad(size, members, [&](int member, Index first) {
        int column = column_of(first, features);
        Index columns[4], offset = (Index)member * features;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            columns[i] = offset + column;
            if (++column == features) column = 0;
        }
        each(member * size, first, size, columns);
    });
}

KERNEL(batch_norm_apply, 256)(const T* x, const T* gamma, const T* beta, const A* mean,
                              const A* var, A eps, T* y, Index batch, int features, int members) {
    for_each_normalized_quad(
        batch, features, members, [&](Index begin, Index first, Index size, const Index* columns) {
            A values[4];
            load_quad(x + begin, first, size, values);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                Index c = columns[i];
                // x − μ first: with a large mean, x · scale + (β − μ · scale) would cancel.
                A scale = widen(gamma[c]) / square_root(var[c] + eps);
                values[i] = (values[i] - mean[c]) * scale + widen(beta[c]);
            }
            store_quad(y + begin, first, size, values);
        });
}

// partial: (chunks, 2, members · features), Σ dy and Σ dy x̂ of each chunk.
KERNEL(batch_norm_backward_partial, 256)(const T* dy, const T* x, const A* mean, const A* var,
                                         A eps, A* partial, Index batch, int features,
                                         int members) {
    auto add = [&](int member, Index row, int column, A(&sums)[2]) {
        Index at = (member * batch + row) * features + column;
        Index c = (Index)member * features + column;
        A gradient = widen(dy[at]);
        sums[0] += gradient;
        sums[1] += gradient * ((widen(x[at]) - mean[c]) / square_root(var[c] + eps));
    };
    partial_sums<2>(batch, features, members, partial, add);
}

// sums: (2, columns), what the elementwise part needs; the parameters' gradients are the same.
KERNEL(batch_norm_backward_finish, 128)(const A* partial, int chunks, Index columns, A* sums,
                                        T* dgamma, T* dbeta) {
    Index column = flat_column();
    if (column >= columns) return;
    A plain = finish_sum<2>(partial, chunks, columns, 0, column);
    A along = finish_sum<2>(partial, chunks, columns, 1, column);
    sums[column] = plain;
    sums[columns + column] = along;
    dbeta[column] = to_element(plain);
    dgamma[column] = to_element(along);
}

// dx = γ/√(σ² + ε) · (dy − Σdy/N − x̂ Σ(dy x̂)/N); without sums, where the statistics were
// constants, dx = γ/√(σ² + ε) · dy.
KERNEL(batch_norm_backward_apply, 256)(const T* dy, const T* x, const T* gamma, const A* mean,
                                       const A* var, A eps, const A* sums, T* dx, Index batch,
                                       int features, int members) {
    Index all = (Index)members * features;
    for_each_normalized_quad(
        batch, features, members, [&](Index begin, Index first, Index size, const Index* columns) {
            A values[4], inputs[4];
            load_quad(dy + begin, first, size, values);
            if (sums) load_quad(x + begin, first, size, inputs);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                Index c = columns[i];
                A inverse = 1 / square_root(var[c] + eps);
                if (sums) {
                    A x_hat = (inputs[i] - mean[c]) * inverse;
                    values[i] -= (sums[c] + x_hat * sums[all + c]) / (A)batch;
                }
                values[i] *= widen(gamma[c]) * inverse;
            }
            store_quad(dx + begin, first, size, values);
        });
}
