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
// each row whether its largest logit is the class; two kernels at the end sum over batches.

#include "cross_entropy_by_blocks.cuh"
#include "cross_entropy_by_lanes.cuh"
#include "cross_entropy_by_thread.cuh"
#include "cross_entropy_by_two_reads.cuh"

#define BOTH_TARGETS_OF(CLUSTER, name, threads, body, ...)                                       \
    KERNEL_OF(CLUSTER, softmax_cross_entropy_##name, threads)(ARGUMENT_LIST) {                   \
        body<false __VA_OPT__(, ) __VA_ARGS__>(ARGUMENTS);                                       \
    }                                                                                            \
    KERNEL_OF(CLUSTER, softmax_cross_entropy_##name##_probabilities, threads)(ARGUMENT_LIST) {   \
        body<true __VA_OPT__(, ) __VA_ARGS__>(ARGUMENTS);                                        \
    }
#define BOTH_TARGETS(...) BOTH_TARGETS_OF(, __VA_ARGS__)

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
BOTH_TARGETS_OF(CLUSTER_OF(2), cluster2, 512, row_by_blocks, 2)
BOTH_TARGETS_OF(CLUSTER_OF(4), cluster4, 512, row_by_blocks, 4)
BOTH_TARGETS_OF(CLUSTER_OF(8), cluster8, 512, row_by_blocks, 8)
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
