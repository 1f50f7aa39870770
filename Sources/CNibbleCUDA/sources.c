#include "include/nibble_kernel_sources.h"

#define NIBBLE_PROGRAMS(X)                                                                                                  \
    X(embed, "embed.cu")                                                                                                    \
    X(norm, "norm.cu")                                                                                                      \
    X(rotary, "rotary.cu")                                                                                                  \
    X(elementwise, "elementwise.cu")                                                                                        \
    X(select, "select.cu")                                                                                                  \
    X(route, "route.cu")

// #embed is a directive and cannot stand in a macro's expansion: each file has its own array.
static const char embed[] = {
#embed "kernels/embed.cu"
    , 0};
static const char norm[] = {
#embed "kernels/norm.cu"
    , 0};
static const char rotary[] = {
#embed "kernels/rotary.cu"
    , 0};
static const char elementwise[] = {
#embed "kernels/elementwise.cu"
    , 0};
static const char select[] = {
#embed "kernels/select.cu"
    , 0};
static const char route[] = {
#embed "kernels/route.cu"
    , 0};
static const char common[] = {
#embed "kernels/common.cuh"
    , 0};
static const char arguments[] = {
#embed "include/nibble_kernel_arguments.h"
    , 0};

#define NIBBLE_ENTRY(array, file) {file, array, sizeof array - 1},

static const NibbleKernelSource programs[] = {NIBBLE_PROGRAMS(NIBBLE_ENTRY)};

static const NibbleKernelSource headers[] = {
    NIBBLE_ENTRY(common, "common.cuh")
    NIBBLE_ENTRY(arguments, "nibble_kernel_arguments.h")
};

const NibbleKernelSource *nibble_kernel_programs(int *count) {
    *count = sizeof programs / sizeof programs[0];
    return programs;
}

const NibbleKernelSource *nibble_kernel_headers(int *count) {
    *count = sizeof headers / sizeof headers[0];
    return headers;
}
