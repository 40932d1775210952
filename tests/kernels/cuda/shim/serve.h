// A part of runtime.cpp: launches that come through standard input, and the program.
namespace shim {
namespace {

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
    const Kernel* kernel = find(name.c_str());
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

    run_grid(*kernel, arguments.data(), sizes, shared, (int)cluster, (int)order);

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
