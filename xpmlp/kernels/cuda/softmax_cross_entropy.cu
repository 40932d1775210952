// Softmax cross-entropy: every row's loss and gradient from one read of its logits. Rows are laid out
// by their width:
//
//     thread      C ≤ 32: a block stages its rows in shared memory, each thread takes one
//     LxP         C ≤ 1024 (float64 512): L lanes hold a row in registers, P times 16 bytes each
//     block       a block keeps the row in shared memory
//     clusterB    B blocks keep it in theirs (compute capability 9.0)
//     stream      any C: two reads, maximum and sum found together in the first
//
// All have one argument list. Sums are made in a fixed order and without atomics. `hits` says for
// each row whether its largest logit is the class; two kernels at the end sum over batches. For which
// targets a kernel is, its name says: nothing for class numbers, _hits for those in the layouts that
// look for the largest only if asked, _smoothed where smoothing has a kernel of its own,
// _probabilities.

#include "cross_entropy_by_blocks.cuh"
#include "cross_entropy_by_lanes.cuh"
#include "cross_entropy_by_thread.cuh"
#include "cross_entropy_by_two_reads.cuh"

#define LAYOUT_OF(CLUSTER, name, threads, body, ...)                              \
    KERNEL_OF(CLUSTER, softmax_cross_entropy_##name, threads)(ARGUMENT_LIST) {    \
        body<__VA_ARGS__>(ARGUMENTS);                                             \
    }
#define LAYOUT(...) LAYOUT_OF(, __VA_ARGS__)

LAYOUT(thread, 128, rows_by_threads, SMOOTHED)
LAYOUT(thread_probabilities, 128, rows_by_threads, PROBABILITIES)
LAYOUT(stream, 512, row_by_two_reads, SMOOTHED)
LAYOUT(stream_probabilities, 512, row_by_two_reads, PROBABILITIES)

// L lanes with P pieces hold L·P·VECTOR classes: from 64 to 1024, in float64 to 512.
#define LANES(name, lanes, pieces)                                                       \
    LAYOUT(name, 128, rows_by_lanes, NUMBERS, lanes, pieces)                             \
    LAYOUT(name##_smoothed, 128, rows_by_lanes, SMOOTHED, lanes, pieces)                 \
    LAYOUT(name##_probabilities, 128, rows_by_lanes, PROBABILITIES, lanes, pieces)

#if defined(XPMLP_F64)
LANES(32x8, 32, 8)
#elif defined(XPMLP_F32)
LANES(16x1, 16, 1)
LANES(32x8, 32, 8)
#else
LANES(8x1, 8, 1)
LANES(16x1, 16, 1)
#endif
LANES(32x1, 32, 1)
LANES(32x2, 32, 2)
LANES(32x4, 32, 4)

#define BLOCKS_OF(CLUSTER, name, blocks)                                                         \
    LAYOUT_OF(CLUSTER, name, 512, row_by_blocks, NUMBERS, false, blocks)                         \
    LAYOUT_OF(CLUSTER, name##_hits, 512, row_by_blocks, NUMBERS, true, blocks)                   \
    LAYOUT_OF(CLUSTER, name##_smoothed, 512, row_by_blocks, SMOOTHED, true, blocks)              \
    LAYOUT_OF(CLUSTER, name##_probabilities, 512, row_by_blocks, PROBABILITIES, false, blocks)

BLOCKS_OF(, block, 1)
#ifdef XPMLP_CLUSTERS
BLOCKS_OF(CLUSTER_OF(2), cluster2, 2)
BLOCKS_OF(CLUSTER_OF(4), cluster4, 4)
BLOCKS_OF(CLUSTER_OF(8), cluster8, 8)
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

// Each problem's loss and its count of hits.
KERNEL(softmax_cross_entropy_reduce, 256)(const A* row_loss, const unsigned char* hits,
                                          Index batch, A scale, const A* scales, T* loss,
                                          int* correct) {
    SHARED_ARRAY(A, scratch, MOST_WARPS);
    SHARED_ARRAY(A, counts, MOST_WARPS);
    Index problem = blockIdx.x;
    if (loss) {
        A sum = 0;
        const A* own = row_loss + problem * batch;
        for (Index i = threadIdx.x; i < batch; i += blockDim.x) sum += own[i];
        sum = reduce_block<Sum>(sum, scratch) * (scales ? scales[problem] : scale);
        if (threadIdx.x == 0) loss[problem] = to_element(sum);
    }
    if (correct) {
        A count = 0;  // exact in float32 up to 2^24 rows
        for (Index i = threadIdx.x; i < batch; i += blockDim.x) count += hits[problem * batch + i];
        count = reduce_block<Sum>(count, counts);
        if (threadIdx.x == 0) correct[problem] = (int)count;
    }
}
