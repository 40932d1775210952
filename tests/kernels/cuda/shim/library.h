// A part of runtime.cpp: kernels on memory of this process, for tests/pretend_gpu.
namespace shim {
namespace {

// For kernels whose threads never wait: one after the other, without fibers.
void run_grid_in_turn(const Kernel& kernel, const unsigned long long* arguments,
                      const unsigned* sizes, size_t shared) {
    grid_dim = {sizes[0], sizes[1], sizes[2]};
    block_dim = {sizes[3], sizes[4], sizes[5]};
    std::vector<unsigned char> dynamic(shared, 0xff);
    blocks.clear();
    blocks.resize(1);
    blocks[0].dynamic = dynamic.data();
    Thread thread{};
    current = &thread;
    for (thread.block.z = 0; thread.block.z < grid_dim.z; thread.block.z++)
        for (thread.block.y = 0; thread.block.y < grid_dim.y; thread.block.y++)
            for (thread.block.x = 0; thread.block.x < grid_dim.x; thread.block.x++) {
                thread.number = 0;
                uint3& at = thread.index;
                for (at.z = 0; at.z < block_dim.z; at.z++)
                    for (at.y = 0; at.y < block_dim.y; at.y++)
                        for (at.x = 0; at.x < block_dim.x; at.x++, thread.number++)
                            kernel.call(arguments);
            }
}

void caught(int number, siginfo_t* about, void*) {
    snprintf(problem, sizeof problem, "signal %d at address %p", number, about->si_addr);
    siglongjmp(way_out, 1);
}

}  // namespace
}  // namespace shim

// Null, or what went wrong. `waits`: whether threads of this source may wait for others.
extern "C" const char* shim_run(const char* name, const unsigned long long* arguments,
                                const unsigned* sizes, size_t shared, int cluster, int waits) {
    using namespace shim;
    const Kernel* kernel = find(name);
    if (!kernel) return "no such kernel in the build";
    struct sigaction ours = {}, before[3];
    const int signals[] = {SIGSEGV, SIGBUS, SIGFPE};
    ours.sa_sigaction = caught;
    ours.sa_flags = SA_SIGINFO | SA_NODEFER;
    for (int i = 0; i < 3; i++) sigaction(signals[i], &ours, &before[i]);
    bool failed = sigsetjmp(way_out, 1);
    if (!failed && waits) run_grid(*kernel, arguments, sizes, shared, cluster, 0);
    if (!failed && !waits) run_grid_in_turn(*kernel, arguments, sizes, shared);
    for (int i = 0; i < 3; i++) sigaction(signals[i], &before[i], nullptr);
    return failed ? problem : nullptr;
}

extern "C" const char* shim_letters(const char* name) {
    const shim::Kernel* kernel = shim::find(name);
    return kernel ? kernel->letters : "";
}
