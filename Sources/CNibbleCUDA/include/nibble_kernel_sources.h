// The CUDA sources, embedded when the package is built.
#pragma once

typedef struct {
    // File name.
    const char *name;
    // Ends with a zero byte.
    const char *text;
    unsigned long length;
} NibbleKernelSource;

// Programs (.cu).
const NibbleKernelSource *nibble_kernel_programs(int *count);
// Headers: .cuh files and the arguments' header.
const NibbleKernelSource *nibble_kernel_headers(int *count);
