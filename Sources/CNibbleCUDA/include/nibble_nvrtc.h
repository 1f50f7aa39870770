// NVRTC: CUDA C++ to machine code at run time.
#pragma once

#include <stddef.h>

typedef struct {
    // The program and, beside it, what it may include.
    const char *source;
    const char *name;
    int headerCount;
    const char *const *headerSources;
    const char *const *headerNames;
    int optionCount;
    const char *const *options;
    // Machine code for one architecture (sm_…) instead of PTX (compute_…).
    int wantsMachineCode;
} NibbleCompilation;

// Opens the library at `path`. As nibble_cuda_open.
int nibble_nvrtc_open(const char *path, char *error, size_t errorSize);
int nibble_nvrtcVersion(int *major, int *minor);
const char *nibble_nvrtcErrorText(int status);
// Fills `levels` (7.5 is 75) with at most `capacity` of the architectures the compiler knows; returns how many it knows.
int nibble_nvrtcArchitectures(int *levels, int capacity);

// Compiles. On success `*code` (to be freed with free) holds `*codeSize` bytes. `*log` (to be freed, may be null) holds the
// compiler's messages either way. Returns NVRTC's status.
int nibble_nvrtcCompile(const NibbleCompilation *compilation, char **code, size_t *codeSize, char **log);
