// Runs blocks of fibers, and serves launches that come through standard input.
//
// With SHIM_LIBRARY there is no such server, but a function `shim_run` on memory of this process,
// and no AddressSanitizer: for the pretend device (tests/pretend_gpu).
//
// A request is a line of numbers and then the buffers' bytes:
//     name grid×3 block×3 shared cluster order buffers arguments fixups
//     [bytes offset]×buffers  [letter value]×arguments  [buffer place target at]×fixups
// An argument is "p buffer at" (a pointer), or "v bits". A fixup writes the address of a buffer
// into another one, for tables of pointers. The answer is "ok" and the buffers' bytes.
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <memory>
#include <string>
#include <vector>

#ifdef SHIM_LIBRARY
#define __sanitizer_start_switch_fiber(...)
#define __sanitizer_finish_switch_fiber(...)
#else
#include <sanitizer/common_interface_defs.h>
#endif

#include "shim.h"

namespace shim {

Thread* current;
uint3 block_dim, grid_dim;

namespace {

constexpr size_t STACK = 64 * 1024;
enum class State { fresh, ready, at_warp, at_block, at_cluster, done };

struct Fiber : Thread {
    ucontext_t context;
    State state;
    char* stack;
    void* fake_stack = nullptr;

    void prepare(void (*begin)()) {
        getcontext(&context);
        context.uc_stack.ss_sp = stack;
        context.uc_stack.ss_size = STACK;
        context.uc_link = nullptr;
        makecontext(&context, begin, 0);
        state = State::ready;
    }
};

struct Array {
    const void* site;
    std::unique_ptr<unsigned char[]> bytes;
    size_t size;
};

struct Warp {
    unsigned long long values[2][32];  // two, so that a fast lane does not overwrite what is read
    Words words[2][32];
    int step[32], arrived = 0, turn = 0;
};

struct Block {
    std::vector<Fiber*> fibers;
    std::vector<Warp> warps;
    std::vector<Array> arrays;
    unsigned char* dynamic = nullptr;
    int waiting = 0, live = 0;
};

std::vector<Block> blocks;  // of the cluster that is running
int arrived_in_cluster, barriers_of_cluster, live;
ucontext_t scheduler;
const void* scheduler_stack;
size_t scheduler_size;
Call call;
const unsigned long long* slots;
std::vector<std::unique_ptr<Fiber>> fibers;
std::vector<char*> stacks;

#ifdef SHIM_LIBRARY
sigjmp_buf way_out;  // of whatever thread of the kernel, to whoever launched it
char problem[256];
#endif

[[noreturn]] void fail(const char* format, ...) {
    va_list values;
    va_start(values, format);
#ifdef SHIM_LIBRARY
    vsnprintf(problem, sizeof problem, format, values);
    siglongjmp(way_out, 1);
#else
    vfprintf(stderr, format, values);
    fputc('\n', stderr);
    exit(3);
#endif
}

Fiber& self() { return *static_cast<Fiber*>(current); }

void yield(State state) {
    Fiber& fiber = self();
    fiber.state = state;
    if (state == State::done) {
        __sanitizer_start_switch_fiber(nullptr, scheduler_stack, scheduler_size);
        setcontext(&scheduler);
    }
    __sanitizer_start_switch_fiber(&fiber.fake_stack, scheduler_stack, scheduler_size);
    swapcontext(&fiber.context, &scheduler);
    __sanitizer_finish_switch_fiber(fiber.fake_stack, nullptr, nullptr);
}

Fiber* next_fiber();

// A thread that ends without waiting gives its stack to the next one: no switch for either.
void begin_fiber() {
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_size);
    for (;;) {
        call(slots);
        live--;
        blocks[current->rank].live--;
        self().state = State::done;
        Fiber* next = next_fiber();
        if (!next || next->state != State::fresh) break;
        next->state = State::ready;
        std::swap(next->stack, self().stack);
        current = next;
    }
    yield(State::done);
}

Block& own_block() { return blocks[current->rank]; }

void release(Block& block, State state) {
    for (Fiber* fiber : block.fibers)
        if (fiber->state == state) fiber->state = State::ready;
}

}  // namespace

void wait_for_block() {
    Block& block = own_block();
    if (++block.waiting < (int)block.fibers.size()) return yield(State::at_block);
    block.waiting = 0;
    release(block, State::at_block);
    yield(State::ready);  // so that the last to arrive is not always the first to go on
}

void arrive_in_cluster() {
    if (current->arrivals++ != barriers_of_cluster)
        fail("cluster: a thread arrived twice without waiting");
    if (++arrived_in_cluster < (int)(blocks.size() * blocks[0].fibers.size())) return;
    arrived_in_cluster = 0;
    barriers_of_cluster++;
    for (Block& block : blocks) release(block, State::at_cluster);
}

void wait_for_cluster() {
    if (current->arrivals == 0) fail("cluster: a thread waits that never arrived");
    yield(current->arrivals > barriers_of_cluster ? State::at_cluster : State::ready);
}

namespace {

// Waits until all lanes of the warp have come, for the same `step`.
void meet(Block& block, Warp& warp, int lane, int step) {
    warp.step[lane] = step;
    if (++warp.arrived < 32) return yield(State::at_warp);
    for (int other : warp.step)
        if (other != step) fail("warp: its lanes meet in different shuffles or products");
    warp.arrived = 0;
    warp.turn ^= 1;
    int first = current->number - lane;
    for (int i = 0; i < 32; i++) block.fibers[first + i]->state = State::ready;
    yield(State::ready);
}

}  // namespace

unsigned long long exchange(unsigned long long bits, unsigned mask, int step) {
    if (mask != 0xffffffffu) fail("shuffle: only whole warps are supported, mask %08x", mask);
    Block& block = own_block();
    Warp& warp = block.warps[current->number / 32];
    int lane = current->number % 32, turn = warp.turn;
    warp.values[turn][lane] = bits;
    meet(block, warp, lane, step);
    return warp.values[turn][lane ^ step];
}

const Words* everybodys(const Words& own) {
    Block& block = own_block();
    Warp& warp = block.warps[current->number / 32];
    int lane = current->number % 32, turn = warp.turn;
    warp.words[turn][lane] = own;
    meet(block, warp, lane, -1);
    return warp.words[turn];
}

unsigned char* dynamic_shared() { return own_block().dynamic; }

void* shared_array(const void* site, size_t bytes) {
    Block& block = own_block();
    for (Array& array : block.arrays)
        if (array.site == site) return array.bytes.get();
    block.arrays.push_back({site, std::make_unique<unsigned char[]>(bytes), bytes});
    memset(block.arrays.back().bytes.get(), 0xff, bytes);  // NaN: nothing may rely on zeros
    return block.arrays.back().bytes.get();
}

void* in_block(void* own, unsigned rank) {
    if (!blocks[rank].live) fail("cluster: block %u ended before it was written to", rank);
    for (Array& array : own_block().arrays) {
        ptrdiff_t at = static_cast<unsigned char*>(own) - array.bytes.get();
        if (at < 0 || at >= (ptrdiff_t)array.size) continue;
        for (Array& other : blocks[rank].arrays)
            if (other.site == array.site) return other.bytes.get() + at;
    }
    fail("cluster: no such shared array in block %u", rank);
}

namespace {

// Who runs next. 0: always the first that can, so that low threads run far ahead of high ones;
// 1: the last that can; else all that can, shuffled anew in each round.
struct Order {
    int order;
    unsigned long long state;
    std::vector<Fiber*> turns;
    size_t at = 0;

    void prepare(int chosen) {
        order = chosen;
        state = 0x9e3779b97f4a7c15ull * chosen;
        if (order == 1) std::vector<Fiber*>(turns.rbegin(), turns.rend()).swap(turns);
    }
    void shuffle() {
        for (size_t i = turns.size(); i > 1; i--) {
            state ^= state << 13, state ^= state >> 7, state ^= state << 17;
            std::swap(turns[i - 1], turns[state % i]);
        }
    }
    Fiber* next() {
        if (order < 2) {
            while (at < turns.size() && turns[at]->state == State::done) at++;
            for (size_t i = at; i < turns.size(); i++)
                if (turns[i]->state <= State::ready) return turns[i];
            return nullptr;
        }
        for (int round = 0; round < 2; round++) {
            for (; at < turns.size(); at++)
                if (turns[at]->state <= State::ready) return turns[at++];
            at = 0;
            shuffle();
        }
        return nullptr;
    }
};

Order turns;

Fiber* next_fiber() { return turns.next(); }

void run_cluster(uint3 first, int cluster, size_t shared, int order) {
    size_t threads = (size_t)block_dim.x * block_dim.y * block_dim.z;
    while (fibers.size() < threads * cluster) {
        fibers.push_back(std::make_unique<Fiber>());
        int protection = PROT_READ | PROT_WRITE, kind = MAP_PRIVATE | MAP_ANONYMOUS;
        void* stack = mmap(nullptr, STACK, protection, kind, -1, 0);
        if (stack == MAP_FAILED) fail("no memory for another fiber");
        stacks.push_back(static_cast<char*>(stack));
    }
    blocks.clear();
    blocks.resize(cluster);
    live = (int)(threads * cluster);
    arrived_in_cluster = barriers_of_cluster = 0;
    turns = {};
    for (int rank = 0; rank < cluster; rank++) {
        Block& block = blocks[rank];
        block.live = (int)threads;
        block.warps.resize((threads + 31) / 32);
        block.dynamic = static_cast<unsigned char*>(malloc(shared));  // exact: overruns are seen
        memset(block.dynamic, 0xff, shared);
        for (size_t i = 0; i < threads; i++) {
            size_t slot = rank * threads + i;
            Fiber& fiber = *fibers[slot];
            fiber.index = {unsigned(i % block_dim.x), unsigned(i / block_dim.x % block_dim.y),
                           unsigned(i / block_dim.x / block_dim.y)};
            fiber.block = {first.x + rank, first.y, first.z};
            fiber.rank = rank;
            fiber.number = (int)i;
            fiber.arrivals = 0;
            fiber.state = State::fresh;
            fiber.fake_stack = nullptr;
            fiber.stack = stacks[slot];
            block.fibers.push_back(&fiber);
            turns.turns.push_back(&fiber);
        }
    }
    turns.prepare(order);
    while (live) {
        Fiber* fiber = turns.next();
        if (!fiber) fail("deadlock: %d threads wait for others that ended or wait elsewhere", live);
        if (fiber->state == State::fresh) fiber->prepare(begin_fiber);
        current = fiber;
        [[maybe_unused]] void* fake = nullptr;
        __sanitizer_start_switch_fiber(&fake, fiber->stack, STACK);
        swapcontext(&scheduler, &fiber->context);
        __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
    }
    for (Block& block : blocks) free(block.dynamic);
}

void run_grid(const Kernel& kernel, const unsigned long long* arguments, const unsigned* sizes,
              size_t shared, int cluster, int order) {
    grid_dim = {sizes[0], sizes[1], sizes[2]};
    block_dim = {sizes[3], sizes[4], sizes[5]};
    call = kernel.call;
    slots = arguments;
    for (unsigned z = 0; z < grid_dim.z; z++)
        for (unsigned y = 0; y < grid_dim.y; y++)
            for (unsigned x = 0; x < grid_dim.x; x += cluster)
                run_cluster({x, y, z}, cluster, shared, order);
}

const Kernel* find(const char* name) {
    for (int i = 0; i < kernel_count; i++)
        if (!strcmp(name, kernels[i].name)) return &kernels[i];
    return nullptr;
}

}  // namespace
}  // namespace shim

#ifdef SHIM_LIBRARY
#include "library.h"
#else
#include "serve.h"
#endif
