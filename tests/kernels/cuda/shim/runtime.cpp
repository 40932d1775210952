// Runs blocks of fibers, and serves launches that come through standard input.
//
// A request is a line of numbers and then the buffers' bytes:
//     name grid×3 block×3 shared cluster order buffers arguments fixups
//     [bytes offset]×buffers  [letter value]×arguments  [buffer place target at]×fixups
// An argument is "p buffer at" (a pointer), or "v bits". A fixup writes the address of a buffer
// into another one, for tables of pointers. The answer is "ok" and the buffers' bytes.
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <memory>
#include <string>
#include <vector>

#include <sanitizer/common_interface_defs.h>

#include "shim.h"

namespace shim {

Thread* current;
uint3 block_dim, grid_dim;

namespace {

constexpr size_t STACK = 64 * 1024;
enum class State { ready, at_warp, at_block, at_cluster, done };

struct Fiber : Thread {
    ucontext_t context;
    State state;
    void* fake_stack = nullptr;
};

struct Array {
    const void* site;
    std::unique_ptr<unsigned char[]> bytes;
    size_t size;
};

struct Warp {
    unsigned long long values[2][32];  // two, so that a fast lane does not overwrite what is read
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
int waiting_for_cluster, live;
ucontext_t scheduler;
const void* scheduler_stack;
size_t scheduler_size;
Call call;
const unsigned long long* slots;
std::vector<std::unique_ptr<Fiber>> fibers;
std::vector<char*> stacks;

[[noreturn]] void fail(const char* format, ...) {
    va_list values;
    va_start(values, format);
    vfprintf(stderr, format, values);
    fputc('\n', stderr);
    exit(3);
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

void begin_fiber() {
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_size);
    call(slots);
    live--;
    blocks[current->rank].live--;
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

void wait_for_cluster() {
    if (++waiting_for_cluster < (int)(blocks.size() * blocks[0].fibers.size()))
        return yield(State::at_cluster);
    waiting_for_cluster = 0;
    for (Block& block : blocks) release(block, State::at_cluster);
    yield(State::ready);
}

unsigned long long exchange(unsigned long long bits, unsigned mask, int step) {
    if (mask != 0xffffffffu) fail("shuffle: only whole warps are supported, mask %08x", mask);
    Block& block = own_block();
    Warp& warp = block.warps[current->number / 32];
    int lane = current->number % 32, turn = warp.turn;
    warp.values[turn][lane] = bits;
    warp.step[lane] = step;
    if (++warp.arrived < 32) {
        yield(State::at_warp);
    } else {
        for (int other : warp.step)
            if (other != step) fail("shuffle: lanes of a warp meet in different shuffles");
        warp.arrived = 0;
        warp.turn ^= 1;
        int first = current->number - lane;
        for (int i = 0; i < 32; i++) block.fibers[first + i]->state = State::ready;
        yield(State::ready);
    }
    return warp.values[turn][lane ^ step];
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

const void* in_block(const void* own, unsigned rank) {
    if (!blocks[rank].live) fail("cluster: block %u ended before it was read", rank);
    for (Array& array : own_block().arrays) {
        ptrdiff_t at = static_cast<const unsigned char*>(own) - array.bytes.get();
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
        if (order < 2) at = 0;
        for (int round = 0; round < 2; round++) {
            for (; at < turns.size(); at++)
                if (turns[at]->state == State::ready) return turns[order < 2 ? at : at++];
            at = 0;
            if (order >= 2) shuffle();
        }
        return nullptr;
    }
};

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
    waiting_for_cluster = 0;
    Order turns{};
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
            fiber.state = State::ready;
            fiber.fake_stack = nullptr;
            getcontext(&fiber.context);
            fiber.context.uc_stack.ss_sp = stacks[slot];
            fiber.context.uc_stack.ss_size = STACK;
            fiber.context.uc_link = nullptr;
            makecontext(&fiber.context, begin_fiber, 0);
            block.fibers.push_back(&fiber);
            turns.turns.push_back(&fiber);
        }
    }
    turns.prepare(order);
    while (live) {
        Fiber* fiber = turns.next();
        if (!fiber) fail("deadlock: %d threads wait for others that ended or wait elsewhere", live);
        current = fiber;
        void* fake = nullptr;
        __sanitizer_start_switch_fiber(&fake, fiber->context.uc_stack.ss_sp, STACK);
        swapcontext(&scheduler, &fiber->context);
        __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
    }
    for (Block& block : blocks) free(block.dynamic);
}

unsigned long long number() {
    unsigned long long value;
    if (scanf("%llu", &value) != 1) exit(0);
    return value;
}

struct Buffer {
    size_t bytes, offset;
    unsigned char* base;
};

constexpr unsigned char GUARD = 0xa5;

void serve(const std::string& name) {
    const Kernel* kernel = nullptr;
    for (int i = 0; i < kernel_count; i++)
        if (name == kernels[i].name) kernel = &kernels[i];
    if (!kernel) fail("no kernel %s", name.c_str());
    unsigned sizes[6];
    for (unsigned& size : sizes) size = (unsigned)number();
    size_t shared = number(), cluster = number(), order = number();
    std::vector<Buffer> buffers(number());
    std::vector<unsigned long long> arguments(number());
    size_t fixups = number();
    for (Buffer& buffer : buffers) {
        buffer.bytes = number(), buffer.offset = number();
        buffer.base = static_cast<unsigned char*>(malloc(buffer.bytes + buffer.offset));
        memset(buffer.base, GUARD, buffer.offset);
    }
    auto address = [&](size_t buffer, size_t at) {
        return (unsigned long long)(buffers.at(buffer).base + buffers.at(buffer).offset + at);
    };
    for (unsigned long long& argument : arguments) {
        char letter;
        if (scanf(" %c", &letter) != 1) exit(0);
        argument = number();
        if (letter == 'p') argument = address(argument, number());
    }
    struct Fixup { size_t buffer, place, target, at; };
    std::vector<Fixup> table(fixups);
    for (Fixup& f : table) {
        f.buffer = number(), f.place = number(), f.target = number(), f.at = number();
    }
    getchar();  // the line's end
    for (Buffer& buffer : buffers)
        if (fread(buffer.base + buffer.offset, 1, buffer.bytes, stdin) != buffer.bytes) exit(0);
    for (const Fixup& f : table) {
        unsigned long long target = address(f.target, f.at);
        memcpy(reinterpret_cast<void*>(address(f.buffer, f.place)), &target, sizeof target);
    }

    grid_dim = {sizes[0], sizes[1], sizes[2]};
    block_dim = {sizes[3], sizes[4], sizes[5]};
    call = kernel->call;
    slots = arguments.data();
    for (unsigned z = 0; z < grid_dim.z; z++)
        for (unsigned y = 0; y < grid_dim.y; y++)
            for (unsigned x = 0; x < grid_dim.x; x += cluster)
                run_cluster({x, y, z}, (int)cluster, shared, (int)order);

    puts("ok");
    for (const Buffer& buffer : buffers) {
        for (size_t i = 0; i < buffer.offset; i++)
            if (buffer.base[i] != GUARD) fail("written before the beginning of a buffer");
        fwrite(buffer.base + buffer.offset, 1, buffer.bytes, stdout);
        free(buffer.base);
    }
    fflush(stdout);
}

}  // namespace
}  // namespace shim

int main() {
    for (int i = 0; i < shim::kernel_count; i++)
        printf("%s %s\n", shim::kernels[i].name, shim::kernels[i].letters);
    puts(".");
    fflush(stdout);
    char name[256];
    while (scanf("%255s", name) == 1) shim::serve(name);
    return 0;
}
