// Dropout: y = x ⊙ keep / (1 − rate). The mask is drawn where it is applied and never stored; the
// backward pass is the same kernel on dy.

#include "mask.cuh"
#include "quads.cuh"

// x, y: (members, member_size); y may be x.
KERNEL(dropout, 256)(const T* x, T* y, Index member_size, int members, MASK_LIST) {
    Mask mask = MASK;
    for_each_quad(member_size, members, [&](int member, Index first) {
        Index begin = member * member_size;
        A values[4];
        load_quad(x + begin, first, member_size, values);
        Words words = mask.words(member, first / 4);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            values[i] = Mask::apply(values[i], mask.factor(member, words.at[i]));
        }
        store_quad(y + begin, first, member_size, values);
    });
}
