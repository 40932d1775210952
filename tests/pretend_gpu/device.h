// What the parts of the pretend device share. See README.md.
#ifndef PRETEND_DEVICE_H
#define PRETEND_DEVICE_H

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstddef>

#define API extern "C" __attribute__((visibility("default")))

// Python's side (device.py), which keeps modules and graphs and runs kernels.
struct Hooks {
    long (*load)(const void* image);                    // a module's number, 0 if it is none
    long (*function)(long module, const char* name);    // a kernel's number, 0 if there is none
    int (*attribute)(long function, int attribute, int value, int set);
    // Now, or into a graph if that is not 0.
    int (*launch)(long function, const unsigned* sizes, unsigned shared, void** values, long graph);
    int (*copy)(long graph, void* to, const void* from, size_t bytes);
    int (*fill)(long graph, void* to, int value, size_t bytes);
    int (*graph)(const char* what, long graph);         // "begin", "run" or "forget"
    int (*product)(const long* numbers, const void* alpha, const void* beta);
    void (*complain)(const char* what);
};

#pragma GCC visibility push(default)  // cuBLAS's stand-in is a library of its own

const Hooks& hooks();
void complain(const char* format, ...);

struct Stream {
    bool blocking;      // whether it waits for the legacy default stream
    long graph;         // that it records into; 0 if it does not record
    bool origin;        // whether the recording began on it
    bool joined;        // whether the origin waits for what it has recorded
    bool broken;        // what it records is invalid
    int mode;
};

Stream* stream_of(const void* handle);  // null for the default streams
long graph_of(const void* handle);
bool any_recording(bool blocking_only);
bool global_recording();
void break_recordings();

bool on_device(const void* address, size_t bytes);
long counted(const char* what);  // counts it, and returns how often it was before

#pragma GCC visibility pop

#endif
