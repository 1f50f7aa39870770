#include "include/nibble_kernel_sources.h"

// #embed is a directive and cannot be produced by a macro, so each file needs its own array.

static const char embed[] = {
#embed "kernels/elementwise/embed.cu"
    , 0};
static const char norm[] = {
#embed "kernels/elementwise/norm.cu"
    , 0};
static const char rotary[] = {
#embed "kernels/attention/rotary.cu"
    , 0};
static const char elementwise[] = {
#embed "kernels/elementwise/elementwise.cu"
    , 0};
static const char select[] = {
#embed "kernels/elementwise/select.cu"
    , 0};
static const char scores[] = {
#embed "kernels/elementwise/scores.cu"
    , 0};
static const char route[] = {
#embed "kernels/elementwise/route.cu"
    , 0};
static const char route_header[] = {
#embed "kernels/elementwise/route.cuh"
    , 0};
static const char router[] = {
#embed "kernels/elementwise/router.cu"
    , 0};
static const char linear_dense[] = {
#embed "kernels/linear/linear_dense.cu"
    , 0};
static const char linear_dense_few[] = {
#embed "kernels/linear/linear_dense_few.cu"
    , 0};
static const char linear_4bit[] = {
#embed "kernels/linear/linear_4bit.cu"
    , 0};
static const char linear_4bit_tiled[] = {
#embed "kernels/linear/linear_4bit_tiled.cu"
    , 0};
static const char linear_4bit_single[] = {
#embed "kernels/linear/linear_4bit_single.cu"
    , 0};
static const char linear_4bit_wide[] = {
#embed "kernels/linear/linear_4bit_wide.cu"
    , 0};
static const char tiling_4bit[] = {
#embed "kernels/linear/tiling_4bit.cu"
    , 0};
static const char linear_int8[] = {
#embed "kernels/linear/linear_int8.cu"
    , 0};
static const char linear_int8_wide[] = {
#embed "kernels/linear/linear_int8_wide.cu"
    , 0};
static const char linear_int8_single[] = {
#embed "kernels/linear/linear_int8_single.cu"
    , 0};
static const char quantize_rows[] = {
#embed "kernels/linear/quantize_rows.cu"
    , 0};
static const char low_rank[] = {
#embed "kernels/linear/low_rank.cu"
    , 0};
static const char shrink_wide[] = {
#embed "kernels/linear/shrink_wide.cu"
    , 0};
static const char sum_outliers[] = {
#embed "kernels/linear/sum_outliers.cu"
    , 0};
static const char quantize[] = {
#embed "kernels/linear/quantize.cu"
    , 0};
static const char attention[] = {
#embed "kernels/attention/attention.cu"
    , 0};
static const char attention_decode[] = {
#embed "kernels/attention/attention_decode.cu"
    , 0};
static const char attention_step[] = {
#embed "kernels/attention/attention_step.cu"
    , 0};
static const char attention_prefill[] = {
#embed "kernels/attention/attention_prefill.cu"
    , 0};
static const char attention_prefill_wide[] = {
#embed "kernels/attention/attention_prefill_wide.cu"
    , 0};
static const char attention_codes[] = {
#embed "kernels/attention/attention_codes.cu"
    , 0};
static const char attention_prefill_codes[] = {
#embed "kernels/attention/attention_prefill_codes.cu"
    , 0};
static const char mixture[] = {
#embed "kernels/elementwise/mixture.cu"
    , 0};
static const char experts_4bit[] = {
#embed "kernels/linear/experts_4bit.cu"
    , 0};
static const char experts_few[] = {
#embed "kernels/linear/experts_few.cu"
    , 0};
static const char experts_wide[] = {
#embed "kernels/linear/experts_wide.cu"
    , 0};
static const char experts_dense[] = {
#embed "kernels/linear/experts_dense.cu"
    , 0};
static const char experts_int8[] = {
#embed "kernels/linear/experts_int8.cu"
    , 0};
static const char experts_outliers[] = {
#embed "kernels/linear/experts_outliers.cu"
    , 0};
static const char experts_header[] = {
#embed "kernels/linear/experts.cuh"
    , 0};
static const char convolve[] = {
#embed "kernels/recurrence/convolve.cu"
    , 0};
static const char gated_delta[] = {
#embed "kernels/recurrence/gated_delta.cu"
    , 0};
static const char state_space[] = {
#embed "kernels/recurrence/state_space.cu"
    , 0};
static const char gated_norm[] = {
#embed "kernels/recurrence/gated_norm.cu"
    , 0};
static const char common_header[] = {
#embed "kernels/common.cuh"
    , 0};
static const char select_header[] = {
#embed "kernels/elementwise/select.cuh"
    , 0};
static const char codebooks_header[] = {
#embed "kernels/linear/codebooks.cuh"
    , 0};
static const char mma_header[] = {
#embed "kernels/mma.cuh"
    , 0};
static const char warpgroup_header[] = {
#embed "kernels/warpgroup.cuh"
    , 0};
static const char int8_tiles_header[] = {
#embed "kernels/linear/int8_tiles.cuh"
    , 0};
static const char quantized_row_header[] = {
#embed "kernels/linear/quantized_row.cuh"
    , 0};
static const char warpgroup_int8_header[] = {
#embed "kernels/warpgroup_int8.cuh"
    , 0};
static const char tiles4_header[] = {
#embed "kernels/linear/tiles4.cuh"
    , 0};
static const char rank_pairs_header[] = {
#embed "kernels/linear/rank_pairs.cuh"
    , 0};
static const char input_turns_header[] = {
#embed "kernels/linear/input_turns.cuh"
    , 0};
static const char wide_ranks_header[] = {
#embed "kernels/linear/wide_ranks.cuh"
    , 0};
static const char row_input_header[] = {
#embed "kernels/linear/row_input.cuh"
    , 0};
static const char staging4_header[] = {
#embed "kernels/linear/staging4.cuh"
    , 0};
static const char tile_product_header[] = {
#embed "kernels/linear/tile_product.cuh"
    , 0};
static const char outliers_header[] = {
#embed "kernels/linear/outliers.cuh"
    , 0};
static const char attention_header[] = {
#embed "kernels/attention/attention.cuh"
    , 0};
static const char attention_split_header[] = {
#embed "kernels/attention/attention_split.cuh"
    , 0};
static const char attention_step_header[] = {
#embed "kernels/attention/attention_step.cuh"
    , 0};
static const char attention_prefill_header[] = {
#embed "kernels/attention/attention_prefill.cuh"
    , 0};
static const char cache_codes_header[] = {
#embed "kernels/attention/cache_codes.cuh"
    , 0};
static const char state_rows_header[] = {
#embed "kernels/recurrence/state_rows.cuh"
    , 0};
static const char arguments[] = {
#embed "include/nibble_kernel_arguments.h"
    , 0};
static const char selection_record[] = {
#embed "../CNibbleCPU/include/nibble_selection_record.h"
    , 0};

#define NIBBLE_PROGRAM(name) {#name ".cu", name, sizeof name - 1}
#define NIBBLE_HEADER(name) {#name ".cuh", name##_header, sizeof name##_header - 1}

static const NibbleKernelSource programs[] = {
    NIBBLE_PROGRAM(embed),
    NIBBLE_PROGRAM(norm),
    NIBBLE_PROGRAM(rotary),
    NIBBLE_PROGRAM(elementwise),
    NIBBLE_PROGRAM(select),
    NIBBLE_PROGRAM(scores),
    NIBBLE_PROGRAM(route),
    NIBBLE_PROGRAM(router),
    NIBBLE_PROGRAM(linear_dense),
    NIBBLE_PROGRAM(linear_dense_few),
    NIBBLE_PROGRAM(linear_4bit),
    NIBBLE_PROGRAM(linear_4bit_tiled),
    NIBBLE_PROGRAM(linear_4bit_single),
    NIBBLE_PROGRAM(linear_4bit_wide),
    NIBBLE_PROGRAM(tiling_4bit),
    NIBBLE_PROGRAM(linear_int8),
    NIBBLE_PROGRAM(linear_int8_wide),
    NIBBLE_PROGRAM(linear_int8_single),
    NIBBLE_PROGRAM(quantize_rows),
    NIBBLE_PROGRAM(low_rank),
    NIBBLE_PROGRAM(shrink_wide),
    NIBBLE_PROGRAM(sum_outliers),
    NIBBLE_PROGRAM(quantize),
    NIBBLE_PROGRAM(mixture),
    NIBBLE_PROGRAM(experts_4bit),
    NIBBLE_PROGRAM(experts_few),
    NIBBLE_PROGRAM(experts_wide),
    NIBBLE_PROGRAM(experts_dense),
    NIBBLE_PROGRAM(experts_int8),
    NIBBLE_PROGRAM(experts_outliers),
    NIBBLE_PROGRAM(attention),
    NIBBLE_PROGRAM(attention_decode),
    NIBBLE_PROGRAM(attention_step),
    NIBBLE_PROGRAM(attention_prefill),
    NIBBLE_PROGRAM(attention_prefill_wide),
    NIBBLE_PROGRAM(attention_codes),
    NIBBLE_PROGRAM(attention_prefill_codes),
    NIBBLE_PROGRAM(gated_norm),
    NIBBLE_PROGRAM(state_space),
    NIBBLE_PROGRAM(gated_delta),
    NIBBLE_PROGRAM(convolve),
};

static const NibbleKernelSource headers[] = {
    NIBBLE_HEADER(common),
    NIBBLE_HEADER(select),
    NIBBLE_HEADER(route),
    NIBBLE_HEADER(codebooks),
    NIBBLE_HEADER(mma),
    NIBBLE_HEADER(warpgroup),
    NIBBLE_HEADER(warpgroup_int8),
    NIBBLE_HEADER(int8_tiles),
    NIBBLE_HEADER(quantized_row),
    NIBBLE_HEADER(tiles4),
    NIBBLE_HEADER(rank_pairs),
    NIBBLE_HEADER(input_turns),
    NIBBLE_HEADER(wide_ranks),
    NIBBLE_HEADER(row_input),
    NIBBLE_HEADER(staging4),
    NIBBLE_HEADER(tile_product),
    NIBBLE_HEADER(outliers),
    NIBBLE_HEADER(attention),
    NIBBLE_HEADER(attention_split),
    NIBBLE_HEADER(attention_step),
    NIBBLE_HEADER(attention_prefill),
    NIBBLE_HEADER(cache_codes),
    NIBBLE_HEADER(experts),
    // The kernels of experts include those of single layers.
    NIBBLE_PROGRAM(linear_dense),
    NIBBLE_PROGRAM(linear_4bit_tiled),
    NIBBLE_PROGRAM(linear_4bit_wide),
    NIBBLE_PROGRAM(linear_int8),
    NIBBLE_PROGRAM(sum_outliers),
    NIBBLE_HEADER(state_rows),
    {"nibble_kernel_arguments.h", arguments, sizeof arguments - 1},
    {"nibble_selection_record.h", selection_record, sizeof selection_record - 1},
};

const NibbleKernelSource *nibble_kernel_programs(int *count) {
    *count = sizeof programs / sizeof programs[0];
    return programs;
}

const NibbleKernelSource *nibble_kernel_headers(int *count) {
    *count = sizeof headers / sizeof headers[0];
    return headers;
}
