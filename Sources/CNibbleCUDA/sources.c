#include "include/nibble_kernel_sources.h"

// #embed is a directive and cannot stand in a macro: each file has its own array.

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
static const char linear_dense[] = {
#embed "kernels/linear_dense.cu"
    , 0};
static const char linear_4bit[] = {
#embed "kernels/linear_4bit.cu"
    , 0};
static const char linear_4bit_tiled[] = {
#embed "kernels/linear_4bit_tiled.cu"
    , 0};
static const char repack4[] = {
#embed "kernels/repack4.cu"
    , 0};
static const char linear_int8[] = {
#embed "kernels/linear_int8.cu"
    , 0};
static const char quantize[] = {
#embed "kernels/quantize.cu"
    , 0};
static const char attention[] = {
#embed "kernels/attention.cu"
    , 0};
static const char attention_decode[] = {
#embed "kernels/attention_decode.cu"
    , 0};
static const char attention_prefill[] = {
#embed "kernels/attention_prefill.cu"
    , 0};
static const char common_header[] = {
#embed "kernels/common.cuh"
    , 0};
static const char codebooks_header[] = {
#embed "kernels/codebooks.cuh"
    , 0};
static const char mma_header[] = {
#embed "kernels/mma.cuh"
    , 0};
static const char tiles4_header[] = {
#embed "kernels/tiles4.cuh"
    , 0};
static const char row_input_header[] = {
#embed "kernels/row_input.cuh"
    , 0};
static const char staging4_header[] = {
#embed "kernels/staging4.cuh"
    , 0};
static const char tile_product_header[] = {
#embed "kernels/tile_product.cuh"
    , 0};
static const char outliers_header[] = {
#embed "kernels/outliers.cuh"
    , 0};
static const char attention_header[] = {
#embed "kernels/attention.cuh"
    , 0};
static const char arguments[] = {
#embed "include/nibble_kernel_arguments.h"
    , 0};

#define NIBBLE_PROGRAM(name) {#name ".cu", name, sizeof name - 1}
#define NIBBLE_HEADER(name) {#name ".cuh", name##_header, sizeof name##_header - 1}

static const NibbleKernelSource programs[] = {
    NIBBLE_PROGRAM(embed),
    NIBBLE_PROGRAM(norm),
    NIBBLE_PROGRAM(rotary),
    NIBBLE_PROGRAM(elementwise),
    NIBBLE_PROGRAM(select),
    NIBBLE_PROGRAM(route),
    NIBBLE_PROGRAM(linear_dense),
    NIBBLE_PROGRAM(linear_4bit),
    NIBBLE_PROGRAM(linear_4bit_tiled),
    NIBBLE_PROGRAM(repack4),
    NIBBLE_PROGRAM(linear_int8),
    NIBBLE_PROGRAM(quantize),
    NIBBLE_PROGRAM(attention),
    NIBBLE_PROGRAM(attention_decode),
    NIBBLE_PROGRAM(attention_prefill),
};

static const NibbleKernelSource headers[] = {
    NIBBLE_HEADER(common),
    NIBBLE_HEADER(codebooks),
    NIBBLE_HEADER(mma),
    NIBBLE_HEADER(tiles4),
    NIBBLE_HEADER(row_input),
    NIBBLE_HEADER(staging4),
    NIBBLE_HEADER(tile_product),
    NIBBLE_HEADER(outliers),
    NIBBLE_HEADER(attention),
    {"nibble_kernel_arguments.h", arguments, sizeof arguments - 1},
};

const NibbleKernelSource *nibble_kernel_programs(int *count) {
    *count = sizeof programs / sizeof programs[0];
    return programs;
}

const NibbleKernelSource *nibble_kernel_headers(int *count) {
    *count = sizeof headers / sizeof headers[0];
    return headers;
}
