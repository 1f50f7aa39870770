// The arguments of every CUDA kernel, one struct a kernel, passed by value.
//
// The same file is compiled by the host's C compiler (Swift fills the structs) and by NVRTC (kernels read them), so both
// sides agree on the layout. Addresses are typed pointers on the device and plain 64-bit numbers on the host.
//
// Letters: M or T tokens of the call, R rows, N x K weight, H heads, G key/value heads, D head size, E width, V vocabulary.
#pragma once

#ifdef __CUDACC_RTC__
#include "nibble_selection_record.h"
#define NIBBLE_ADDRESS(type) type *
#define NIBBLE_ALIGNED(bytes) alignas(bytes)
#else
#define NIBBLE_ADDRESS(type) unsigned long long
#define NIBBLE_ALIGNED(bytes)  // what the driver copies may lie anywhere
#endif

// Element types of runtime-typed buffers.
#define NIBBLE_F32 0
#define NIBBLE_F16 1
#define NIBBLE_BF16 2

// Pointwise functions.
#define NIBBLE_IDENTITY 0
#define NIBBLE_RELU 1
#define NIBBLE_RELU_SQUARED 2
#define NIBBLE_GELU 3
#define NIBBLE_GELU_TANH 4
#define NIBBLE_QUICK_GELU 5
#define NIBBLE_SILU 6
#define NIBBLE_SIGMOID 7
#define NIBBLE_TANH 8
#define NIBBLE_SOFT_CAP 9
#define NIBBLE_CLAMPED_GLU 10  // of gates alone: parameter is the limit

#define NIBBLE_FP4 0
#define NIBBLE_NF4 1
#define NIBBLE_MXFP4 2

// Positions of a cache block.
#define NIBBLE_CACHE_BLOCK 32

// MARK: Linear layers

// out[m, n] = activation(product + bias[n] + low-rank sums) * scale * rowScale[m] + residual[m, n], in float32, rounded once when
// stored.
typedef struct {
    NIBBLE_ADDRESS(void) output;           // [M, outputStride]
    NIBBLE_ADDRESS(const void) residual;   // [M, residualStride] or null; may be `output`
    NIBBLE_ADDRESS(const float) rowScale;  // [M] or null
    long long outputStride;                // elements between rows
    long long residualStride;
    float scale;
    float activationParameter;  // c of the soft cap
    int activation;
    int outputType;  // NIBBLE_F32 ...
    int residualType;
    int unused;
} NibbleEpilogue;

#define NIBBLE_MAX_LAYERS 4

// LLM.int8() products on compute capability 9.0 (linear_int8_wide.cu), for 8, 16, 32, 64 or 128 tokens a block. Dynamic shared
// memory: stages of a ring, and its state.
#define NIBBLE_WIDE_INT8_ROWS 128  // outputs of a block
#define NIBBLE_WIDE_INT8_THREADS 288
#define NIBBLE_WIDE_INT8_MAX_CLUSTER 8
#define NIBBLE_WIDE_INT8_MAX_STAGES 8
#define NIBBLE_WIDE_INT8_TILE_WORDS 32  // of outlierTiles: K up to 131,072
#define NIBBLE_WIDE_INT8_STAGE(tokens, hasOutliers) (16384 + (tokens) * 128 * ((hasOutliers) ? 3 : 1))
#define NIBBLE_WIDE_INT8_STATE 256
// For one token: runs of 8 columns a thread, stages of weights alone, and the token behind the ring and its state.
#define NIBBLE_SINGLE_INT8_RUNS 6
#define NIBBLE_SINGLE_INT8_THREADS 288
#define NIBBLE_SINGLE_INT8_STAGE 16384
#define NIBBLE_SINGLE_INT8_TOKEN(inFeatures) (NIBBLE_WIDE_INT8_STATE + ((inFeatures) + 127) / 128 * 384 + 512)
#define NIBBLE_WIDE_INT8_SUMS(tokens) ((tokens) * 1056)  // of a block, in place of the ring at the end
#define NIBBLE_WIDE_INT8_PADDING 3

// Ranks of one adapter that stand together; R is a multiple.
#define NIBBLE_RANK_UNIT 8

// What adapters add to the products of a layer, with the layer's bias in the product: product * factors + deltas; or product + B
// sums, by kernels that multiply by B themselves: those of one token, and those on warpgroups.
typedef struct {
    NIBBLE_ADDRESS(const float) deltas;   // [M, stride] or null: none
    NIBBLE_ADDRESS(const float) factors;  // the same or null: ones; only with deltas
    long long stride;                     // elements between rows of deltas or of sums
    NIBBLE_ADDRESS(const void) b;         // [N, ranks]
    NIBBLE_ADDRESS(const float) sums;     // [M, stride]: of a shrink kernel
    int ranks;                            // 0: no B
    int type;                             // of b
} NibbleLowRank;

// Most ranks of a layer by which the kernels of one token, and those on warpgroups multiply.
#define NIBBLE_FOLDED_RANKS 64
#define NIBBLE_WIDE_FOLDED_RANKS 256

// One layer of a group. Its outputs go to columns firstColumn ..< firstColumn + outFeatures of the group's output.
typedef struct {
    NIBBLE_ADDRESS(const void) weight;                // dense: T [N, K]; 4-bit: codes; int8: values [N, K]
    NIBBLE_ADDRESS(const float) scales;               // 4-bit plain: absmax [blocks]; int8: SCB [N]; else null
    NIBBLE_ADDRESS(const unsigned char) nestedCodes;  // 4-bit nested: [blocks]; of powers of two: their exponents
    NIBBLE_ADDRESS(const float) nestedAbsmax;         // 4-bit nested: [blocks / 256, rounded up]; else null
    NIBBLE_ADDRESS(const float) bias;                 // [N] or null
    NibbleLowRank lowRank;
    float nestedOffset;
    int outFeatures;
    int firstColumn;
    int unused;
} NibbleLinearLayer;

// Converts a float32 token to T before the products, with or without a norm.
#define NIBBLE_PROLOGUE_NONE 0  // the input is T already
#define NIBBLE_PROLOGUE_ROUND 1
#define NIBBLE_PROLOGUE_RMS 2
#define NIBBLE_PROLOGUE_LAYER 3
#define NIBBLE_PROLOGUE_SILU 4  // the input is T [M, 2 K]: silu of the first half of a row times the second; quantized rows only

typedef struct {
    NIBBLE_ADDRESS(const float) weight;  // [K] or null
    NIBBLE_ADDRESS(const float) bias;    // [K] or null
    float epsilon;
    int kind;  // NIBBLE_PROLOGUE_...
} NibblePrologue;

// Layers of one format that read the same input.
typedef struct {
    NIBBLE_ADDRESS(const void) input;  // T [M, K]; float32 with a norm or rounding as prologue; T [M, 2 K] with silu
    NibblePrologue prologue;           // kernels for one token, and those that stage 16-bit tokens
    NibbleLinearLayer parts[NIBBLE_MAX_LAYERS];
    NibbleEpilogue epilogue;
    int layerCount;
    int tokens;         // M
    int inFeatures;     // K
    int blockSizeLog2;  // 4-bit: 5 ... 12
    int codebook;       // 4-bit: NIBBLE_FP4, NIBBLE_NF4 or NIBBLE_MXFP4
    // LLM.int8() only.
    int outlierCapacity;     // columns an outlier list can hold; a longer list is not stored, see outlierCounts
    float outlierThreshold;  // 0: no outliers
    int roundsToHalf;        // as in NibbleRowQuantizeArguments
    NIBBLE_ADDRESS(const signed char) quantized;      // [M, quantizedStride]: quantized input, 0 at outliers and past K
    NIBBLE_ADDRESS(const float) rowScales;            // [M]: absmax of each row's other elements
    NIBBLE_ADDRESS(const int) outlierCounts;          // [M]: true number of outlier columns, maybe above the capacity
    NIBBLE_ADDRESS(const int) outlierColumns;         // [M, outlierCapacity], ascending
    NIBBLE_ADDRESS(const unsigned char) columnFlags;  // [K] when columns are found over the whole call, else null
    NIBBLE_ADDRESS(const int) accumulated;      // finish_int8 only: integer products [M, sum of the parts' N], parts side by side
    NIBBLE_ADDRESS(const float) outlierValues;  // as in NibbleRowQuantizeArguments
    NIBBLE_ADDRESS(const int) outlierStarts;
    NIBBLE_ADDRESS(float) outlierSums;  // [M, outlierSumsStride], parts side by side; not written for tokens without outliers
    long long outlierSumsStride;        // elements: the sum of the parts' N
    int outlierStartsStride;
    int outlierTokensPerWarp;     // sum_outliers only
    long long quantizedStride;    // bytes, a multiple of 16
    NIBBLE_ADDRESS(void) staged;  // tiled 4-bit, more than one token: NIBBLE_STAGED_4BIT_BYTES of workspace
    // [M] or null: routing weights of an expert. A row whose entry is 0 need not be computed. Where all are 0, kernels leave the
    // output as it is.
    NIBBLE_ADDRESS(const float) activeRows;
    NIBBLE_ADDRESS(void)
    prepared;  // kernels that stage 16-bit tokens: T [M, K] takes the input as the prologue leaves it; or null
    NIBBLE_ADDRESS(unsigned) turns;  // [2] or null: the product runs beside its shrink kernel (input_turns.cuh)
} NibbleLinearArguments;

// A of one layer's adapters.
typedef struct {
    NIBBLE_ADDRESS(const void) a;        // [ranks, K]
    NIBBLE_ADDRESS(const float) scales;  // [ranks]
    NIBBLE_ADDRESS(const int) adapters;  // [ranks]
    NIBBLE_ADDRESS(float) sums;          // of token 0
    int ranks;                           // may be 0
    int type;                            // of a
} NibbleShrinkLayer;

// sums[m, r] = weight * scale[r] * (A[r] . x[m]) for the layers of a launch.
typedef struct {
    NIBBLE_ADDRESS(const void) input;  // T [M, K]; float32 with a prologue; shrink_wide: the staged tokens
    NibblePrologue prologue;           // one token, 16-bit T and K divisible by 8
    NIBBLE_ADDRESS(void) prepared;     // T [K]: takes the input as the prologue leaves it; or null
    NIBBLE_ADDRESS(unsigned) turns;    // [2] or null: as in NibbleLinearArguments
    NibbleShrinkLayer layers[NIBBLE_MAX_LAYERS];
    NIBBLE_ADDRESS(const float) weights;     // [slots, weightStride]
    NIBBLE_ADDRESS(const int) slots;         // [M] or null
    NIBBLE_ADDRESS(const float) activeRows;  // [M] or null: as in NibbleLinearArguments
    int layerCount;
    int tokens;
    int inFeatures;
    int sumsStride;
    int weightStride;
    int unused;
} NibbleShrinkArguments;

// Threads of the shrink kernels. For one token: grid.x = ranks of all layers. Otherwise a block takes NIBBLE_SHRINK_RANKS(tokens)
// ranks for NIBBLE_SHRINK_TOKENS tokens: grid (ranks / NIBBLE_SHRINK_RANKS, tokens / NIBBLE_SHRINK_TOKENS rounded up). Blocks
// look for tokens that use their adapter among NIBBLE_SHRINK_WINDOW neighbours.
#define NIBBLE_SHRINK_THREADS 256
#define NIBBLE_SHRINK_TOKENS 4
#define NIBBLE_SHRINK_WINDOW 128
#define NIBBLE_SHRINK_FEW_RANKS 4  // shrink_few
#define NIBBLE_SHRINK_RANKS 8      // shrink
// shrink_beside, one token beside its product: blocks so large that few multiprocessors have one, which the product leaves alone.
// Grid: ranks of all layers / NIBBLE_SHRINK_BESIDE_RANKS.
#define NIBBLE_SHRINK_BESIDE_THREADS 1024
#define NIBBLE_SHRINK_BESIDE_RANKS 4
// shrink_wide: up to NIBBLE_SHRINK_WINDOW tokens, K divisible by 32. Clusters take 16 ranks of a layer for so many tokens that
// use them: grid (cluster * ranks of each layer / 16 rounded up, tokens / NIBBLE_SHRINK_WIDE_USERS rounded up).
#define NIBBLE_SHRINK_WIDE_THREADS 128
#define NIBBLE_SHRINK_WIDE_CLUSTER 8
#define NIBBLE_SHRINK_WIDE_USERS 8

// B of one layer's adapters.
typedef struct {
    NIBBLE_ADDRESS(const void) b;        // [N, ranks]
    NIBBLE_ADDRESS(const float) sums;    // of token 0, from a shrink kernel; 0 where a token does not use the adapter
    NIBBLE_ADDRESS(const int) adapters;  // [ranks]; read with biases or gains only, as are weights and slots
    NIBBLE_ADDRESS(const float) biases;  // [adapters, featureStride] or null
    NIBBLE_ADDRESS(const float) gains;   // the same: the product, without its bias, is multiplied by 1 + sum of (gain - 1)
    NIBBLE_ADDRESS(const float) bias;    // of the layer: [N] or null
    NIBBLE_ADDRESS(float) deltas;        // of token 0: see NibbleLowRank
    NIBBLE_ADDRESS(float) factors;       // or null: the layer has no gains
    int ranks;
    int type;  // of b
    int outFeatures;
    int featureStride;
} NibbleExpandLayer;

// What adapters add to the outputs of the layers of a launch.
typedef struct {
    NibbleExpandLayer layers[NIBBLE_MAX_LAYERS];
    NIBBLE_ADDRESS(const float) weights;  // [slots, weightStride]
    NIBBLE_ADDRESS(const int) slots;      // [M] or null: slot 0; negative: no adapters
    long long deltaStride;
    int layerCount;
    int tokens;
    int sumsStride;
    int weightStride;
    int isInPlace;  // deltas holds products without their bias, which become products with adapters
    int unused;
} NibbleExpandArguments;

// A block of expand takes so many outputs and tokens, in passes of so many ranks. Grid (outputs of each layer /
// NIBBLE_EXPAND_OUTPUTS rounded up, tokens / NIBBLE_EXPAND_TOKENS rounded up).
#define NIBBLE_EXPAND_THREADS 256
#define NIBBLE_EXPAND_OUTPUTS 64
#define NIBBLE_EXPAND_TOKENS 32
#define NIBBLE_EXPAND_RANKS 64

// Rows of activations to int8, with the outlier columns of each.
typedef struct {
    NIBBLE_ADDRESS(const void) input;       // T [M, K]; float32 with a prologue
    NIBBLE_ADDRESS(signed char) quantized;  // [M, quantizedStride]
    NIBBLE_ADDRESS(float) rowScales;        // [M]
    NIBBLE_ADDRESS(int) outlierCounts;      // [M]
    NIBBLE_ADDRESS(int) outlierColumns;     // [M, outlierCapacity]
    NIBBLE_ADDRESS(float) outlierValues;    // [M, outlierCapacity]: the input there
    NIBBLE_ADDRESS(int) outlierStarts;  // [M, outlierStartsStride]: index of the first outlier of each chunk; last, their count
    NIBBLE_ADDRESS(unsigned char) columnFlags;  // [K], zeroed by the host: mark_outliers fills it; null for per-token outliers
    long long quantizedStride;
    int tokens;
    int inFeatures;
    int outlierCapacity;
    float outlierThreshold;  // 0: none
    int roundsToHalf;        // round to float16 first, as the reference does
    int outlierStartsStride;
    NibblePrologue prologue;        // 16-bit T and K divisible by 8
    NIBBLE_ADDRESS(void) prepared;  // T [M, K]: takes the input as the prologue leaves it
    // Instead of lists, which are null then, for NibbleWideInt8Arguments: 16-bit T [M, quantizedStride], and [M,
    // outlierTileWords].
    NIBBLE_ADDRESS(void) outliers;
    NIBBLE_ADDRESS(unsigned) outlierTiles;
    int outlierTileWords;
    int unused;
} NibbleRowQuantizeArguments;

// A CUtensorMap: where a matrix lies, and the box of it that a copy takes.
typedef struct {
    NIBBLE_ALIGNED(64) unsigned long long words[16];
} NibbleTensorMap;

// LLM.int8() products on warpgroups.
typedef struct {
    NibbleTensorMap weights[NIBBLE_MAX_LAYERS];  // int8 [N, K]: boxes of NIBBLE_WIDE_INT8_ROWS rows and 128 columns
    NibbleTensorMap quantized;                   // int8 [M, K]: the block's tokens, 128 columns
    NibbleTensorMap outliers;  // T [M, K]: the block's tokens, 64 columns; 0 but at outliers, in the order of quantize_rows
    NibbleLinearArguments linear;
    NIBBLE_ADDRESS(const unsigned) outlierTiles;  // [M, tileWords]: a bit for each 128 columns that have outliers
    int tileWords;
    int stages;  // of the ring
    long long unused[NIBBLE_WIDE_INT8_PADDING];
} NibbleWideInt8Arguments;

// A quantized weight to T.
typedef struct {
    NibbleLinearLayer part;
    NIBBLE_ADDRESS(void) output;  // T [N, K]
    int inFeatures;
    int blockSizeLog2;
    int codebook;
    int unused;
} NibbleDequantizeArguments;

// Converts codes and scales between the canonical and the tiled layout. Each pair of addresses may be null.
typedef struct {
    NIBBLE_ADDRESS(const unsigned char) source;
    NIBBLE_ADDRESS(unsigned char) destination;
    NIBBLE_ADDRESS(const float) sourceScales;
    NIBBLE_ADDRESS(float) destinationScales;
    NIBBLE_ADDRESS(const unsigned char) sourceNested;
    NIBBLE_ADDRESS(unsigned char) destinationNested;
    int outFeatures;
    int inFeatures;
    int scalesPerTile;  // of a row: 1, or 2 for exponents, which are the nested scales here
    int unused;
} NibbleTileArguments;

// Applies a layer's epilogue to products that cuBLASLt computed.
typedef struct {
    NIBBLE_ADDRESS(const float) products;  // [M, productStride]
    NIBBLE_ADDRESS(const float) bias;      // [columns] or null
    NibbleEpilogue epilogue;
    long long productStride;  // elements between rows
    int tokens;
    int columns;
    int firstColumn;  // of the group's output
    int unused;
} NibbleFinishArguments;

// MARK: Quantizing weights

typedef struct {
    NIBBLE_ADDRESS(const void) input;                   // S [count], S = float32, float16, bfloat16
    NIBBLE_ADDRESS(unsigned char) codes;                // [count / 2, rounded up]
    NIBBLE_ADDRESS(float) absmax;                       // [blocks]
    NIBBLE_ADDRESS(unsigned long long) firstNonFinite;  // one number, set to ~0 by the host; atomicMin of element indices
    long long count;
    int blockSizeLog2;
    int codebook;
} NibbleQuantize4Arguments;

// absmax [count] to 8 bits around its mean.
typedef struct {
    NIBBLE_ADDRESS(const float) absmax;   // [count]
    NIBBLE_ADDRESS(float) offset;         // one number: the mean, written by nested_mean, read by nested_quantize
    NIBBLE_ADDRESS(unsigned char) codes;  // [count]
    NIBBLE_ADDRESS(float) nestedAbsmax;   // [count / 256, rounded up]
    long long count;
} NibbleNestedArguments;

typedef struct {
    NIBBLE_ADDRESS(const void) input;    // S [N, K]
    NIBBLE_ADDRESS(signed char) values;  // [N, K]
    NIBBLE_ADDRESS(float) scales;        // [N]
    NIBBLE_ADDRESS(unsigned long long) firstNonFinite;
    int outFeatures;
    int inFeatures;
} NibbleQuantize8Arguments;

// MARK: Attention

#define NIBBLE_BIAS_NONE 0
#define NIBBLE_BIAS_ALIBI 1
#define NIBBLE_BIAS_RELATIVE 2

// Tokens, positions and cache blocks of the rows of a call; all int32.
typedef struct {
    NIBBLE_ADDRESS(int) tokens;              // [T]
    NIBBLE_ADDRESS(int) positions;           // [T]
    NIBBLE_ADDRESS(const int) rows;          // [T]
    NIBBLE_ADDRESS(const int) queryOffsets;  // [R + 1]
    NIBBLE_ADDRESS(int) lengths;             // [R]
    NIBBLE_ADDRESS(const int) blockTable;    // [R, blockTableStride]
    int blockTableStride;
    int tokenCount;
    int rowCount;
    int maximumQueryLength;
    int maximumLength;
    int unused;
} NibbleBatch;

typedef struct {
    NIBBLE_ADDRESS(const void) queries;  // T [T, queryStride]; head h begins at offset + (h / group) * stride + (h % group) * D
    NIBBLE_ADDRESS(void) output;         // T [T, H * valueSize]
    NIBBLE_ADDRESS(const void) keys;     // C [blocks, G, 32, keySize]
    NIBBLE_ADDRESS(const void) values;   // C [blocks, G, 32, valueSize]
    NIBBLE_ADDRESS(const float) biasTable;  // slopes [H] or relative table [buckets, H]
    NIBBLE_ADDRESS(const float) sinks;      // [H]: a score more in each softmax's denominator; or null
    NIBBLE_ADDRESS(float) partials;         // split keys: [T, H, splits, valueSize + 2]: sums, then maximum, then denominator
    NibbleBatch batch;
    long long queryStride;  // elements between tokens
    int queryOffset;
    int queryHeadStride;
    int queryGroup;     // at least 1
    int heads;          // H
    int keyValueHeads;  // G
    int keySize;
    int valueSize;
    int cacheType;  // NIBBLE_F32 ...: C
    float scale;
    float softCap;  // 0: none
    int window;     // 0: none
    int isCausal;
    int bias;  // NIBBLE_BIAS_...
    int buckets;
    int isBidirectional;
    int maximumDistance;
    int cacheBits;  // quantized cache (cache_codes.cuh): 8, 4 or 2; else 0
    int cacheGroup;
    int splitLength;  // keys of a split, of attend_step a power of two; splits = maximumLength / splitLength, rounded up
    int splits;
    NIBBLE_ADDRESS(int)
    arrivals;           // split keys: [T, grid.y of the split], zero before the first call, zero again after each; or null
    int maximumSplits;  // attend_step: splits are splitLength times a power of two long, so that no row has more of them
    int headGroup;      // attend_step: H / G
} NibbleAttentionArguments;

// MARK: Elementwise kernels

typedef struct {
    NIBBLE_ADDRESS(const void) table;          // [V, E]
    NIBBLE_ADDRESS(const void) positionTable;  // [P, E] or null
    NIBBLE_ADDRESS(const int) tokens;          // [T]
    NIBBLE_ADDRESS(const int) positions;       // [T]
    NIBBLE_ADDRESS(void) output;               // T [T, E]
    long long vocabulary;
    long long positionCount;
    int width;
    int tableType;
    int positionType;
    int outputType;
    float scale;
    int unused;
} NibbleEmbedArguments;

typedef struct {
    NIBBLE_ADDRESS(const void) input;     // T [T, E]
    NIBBLE_ADDRESS(const void) residual;  // T [T, E] or null
    NIBBLE_ADDRESS(const float) weight;   // [E] or null
    NIBBLE_ADDRESS(const float) bias;     // [E] or null
    NIBBLE_ADDRESS(void) output;          // [T, E]
    int rows;
    int width;
    int isLayerNorm;
    float epsilon;
    int inputType;
    int residualType;
    int outputType;
    int unused;
} NibbleNormArguments;

typedef struct {
    int offset;
    int stride;
    int group;
    int heads;
} NibbleHeads;

typedef struct {
    NIBBLE_ADDRESS(void) projections;     // T [T, width]
    NIBBLE_ADDRESS(void) keys;            // C [blocks, G, 32, keySize]
    NIBBLE_ADDRESS(void) values;          // C [blocks, G, 32, valueSize]
    NIBBLE_ADDRESS(const float) cosines;  // [P, rotated / 2] or null
    NIBBLE_ADDRESS(const float) sines;
    NIBBLE_ADDRESS(const float) queryWeight;  // norms; null means ones
    NIBBLE_ADDRESS(const float) queryBias;
    NIBBLE_ADDRESS(const float) keyWeight;
    NIBBLE_ADDRESS(const float) keyBias;
    NibbleBatch batch;
    NibbleHeads query;
    NibbleHeads key;
    NibbleHeads value;
    long long width;
    long long queryWeightCount;  // D, or heads * D
    long long keyWeightCount;
    int keySize;
    int valueSize;
    int rotated;
    int isInterleaved;
    int cacheType;
    int normScope;  // 0 none, 1 head, 2 token, 3 head after rotation
    int queryIsLayerNorm;
    int keyIsLayerNorm;
    float queryEpsilon;
    float keyEpsilon;
    float clip;           // 0: none
    int rotaryPositions;  // P
    int cacheBits;        // quantized cache: 8, 4 or 2; else 0
    int cacheGroup;
    float temperatureBeta;  // queries times 1 + beta * log(1 + position / length); 0: none
    int temperatureLength;  // at least 1
    float valueEpsilon;     // of the norm of each head's values
    int normsValues;
} NibbleRotateArguments;

// One new token a row. Queries come from `rotate`'s projections. Where attend_step stores keys, it does all that rotate does;
// otherwise there are queries alone, which stay as they are. Norms are none or of single heads before rotation; sizes and halves
// are multiples of eight elements, and those of pairs that stand side by side of four.
typedef struct {
    NibbleAttentionArguments attention;
    NibbleRotateArguments rotate;
    int storesKeys;
    int unused;
} NibbleAttendStepArguments;

typedef struct {
    NIBBLE_ADDRESS(const void) a;
    NIBBLE_ADDRESS(const void) b;
    NIBBLE_ADDRESS(void) output;
    NIBBLE_ADDRESS(const int) indices;
    long long count;  // elements, or rows
    long long width;
    long long sourceRows;
    long long otherWidth;  // of b where it is wider than a
    long long firstColumn;
    float scale;  // of gates: alpha of the clamped GLU
    float activationParameter;
    int activation;
    int aType;
    int bType;
    int outputType;
} NibbleElementwiseArguments;

typedef struct {
    NIBBLE_ADDRESS(void) keys;
    NIBBLE_ADDRESS(void) values;
    NIBBLE_ADDRESS(const int) pairs;  // [n, 2]
    long long keyBytes;               // of one block
    long long valueBytes;
    int count;
    int unused;
} NibbleCopyBlocksArguments;

// The largest logit of a range of tokens.
typedef struct {
    float value;
    int token;
} NibbleLargest;

#define NIBBLE_SELECT_PARTS 32  // ranges of a row

// Selection as the record of each row's slot asks for.
typedef struct {
    NIBBLE_ADDRESS(float) logits;                           // [R, V]: adjusted in place
    NIBBLE_ADDRESS(NibbleLargest) largest;                  // [R, NIBBLE_SELECT_PARTS]
    NIBBLE_ADDRESS(int) tokens;                             // [R]
    NIBBLE_ADDRESS(const int) slots;                        // [R]
    NIBBLE_ADDRESS(const int) counters;                     // [R]
    NIBBLE_ADDRESS(const nibble_selection_record) records;  // [slots]
    NIBBLE_ADDRESS(const int) biasTokens;                   // [slots, biasLimit]
    NIBBLE_ADDRESS(const float) biasValues;                 // [slots, biasLimit]
    NIBBLE_ADDRESS(int) counts;                             // [slots, V]: 2 * generated + 1 if the prompt holds it
    NIBBLE_ADDRESS(const unsigned) masks;                   // [slots, V / 32 rounded up]: allowed tokens
    NIBBLE_ADDRESS(int) latest;                             // [slots]: receives the slot's token
    int slotCount;
    int vocabulary;
    int biasLimit;
    int unused;
} NibbleSelectArguments;

typedef struct {
    NIBBLE_ADDRESS(int) tokens;        // [T]: -1 - s becomes the latest token of slot s
    NIBBLE_ADDRESS(const int) latest;  // [slots]
    int count;
    int slotCount;
} NibbleFillTokensArguments;

typedef struct {
    NIBBLE_ADDRESS(const float) logits;  // [n, V]
    NIBBLE_ADDRESS(const int) chosen;    // [n]
    NIBBLE_ADDRESS(float) values;        // [n, 2 + k]
    NIBBLE_ADDRESS(int) ids;             // [n, k]
    int vocabulary;
    int k;  // at most NIBBLE_MOST_SCORES
} NibbleScoresArguments;

typedef struct {
    NIBBLE_ADDRESS(const float) logits;       // [T, X]
    NIBBLE_ADDRESS(const float) choiceBias;   // [X] or null: added to scores for choosing
    NIBBLE_ADDRESS(const float) expertScale;  // [X] or null: factors on weights
    NIBBLE_ADDRESS(int) ids;                  // [T, k]
    NIBBLE_ADDRESS(float) weights;            // [T, k]
    int tokens;
    int experts;
    int topK;
    int isSigmoid;     // else softmax
    int groups;        // 0: none; at most 32
    int chosenGroups;  // the experts of so many groups are eligible
    int sumsBestTwo;   // a group's score, else its largest
    int normalizes;    // weights are divided by max(sum + added, least)
    float added;
    float least;
    float scale;
    int unused;
} NibbleRouteArguments;

// Router logits, weight . norm(input) + bias, and the choice by them: `route` but for its logits. A cluster of blocks serves a
// token, or a block before compute capability 9.0.
typedef struct {
    NibbleRouteArguments route;
    NIBBLE_ADDRESS(const void) input;  // T [T, K]; float32 with a prologue
    NibblePrologue prologue;
    NIBBLE_ADDRESS(const void) weight;  // T [X, K]
    NIBBLE_ADDRESS(const float) bias;   // [X] or null
    NIBBLE_ADDRESS(void) prepared;      // T [T, K]: takes the input as the prologue leaves it; or null
    int inFeatures;                     // K, divisible by 8
    int unused;
} NibbleRouterArguments;

#define NIBBLE_ROUTER_THREADS 512
#define NIBBLE_ROUTER_MAX_CLUSTER 8
// Dynamic shared memory for 16-bit T, of a block that has `own` of the experts.
#define NIBBLE_ROUTER_SHARED(own, experts, inFeatures) (((own) + 1) * (inFeatures) * 2 + ((own) + (experts)) * 4)

// MARK: Mixtures

// The pairs of token and expert of a call, P = T * k of them, are sorted by expert; a pair's place in that order is its position.
// A slot is an expert with up to `tile` neighbouring positions. All arrays are device memory, so the host knows no counts.
typedef struct {
    NIBBLE_ADDRESS(const int) ids;       // [T, k]
    NIBBLE_ADDRESS(int) slots;           // [slotCount, 4]: see ExpertSlot; zeros past the last one
    NIBBLE_ADDRESS(int) rows;            // [P]: token of each position; -1 past the last pair
    NIBBLE_ADDRESS(int) slotOfPosition;  // [P]: -1 past the last pair
    NIBBLE_ADDRESS(int) positions;       // [P]: position of each pair; -1 where its expert does not exist
    int pairs;                           // P
    int topK;
    int experts;  // X, at most NIBBLE_MOST_EXPERTS
    int tile;     // a multiple of 8
    int slotCount;
    int unused;
} NibbleGroupArguments;

// Products of a mixture: one launch for all slots, blockIdx.z of them.
typedef struct {
    NibbleLinearArguments linear;                    // as for one layer group of all positions; `parts` are replaced
    NIBBLE_ADDRESS(const NibbleLinearLayer) layers;  // [X, layerCount]
    NIBBLE_ADDRESS(const int) ids;                   // of a single token, [k]: slot z is expert ids[z]; else null
    NIBBLE_ADDRESS(const int) slots;                 // else those of NibbleGroupArguments
    NIBBLE_ADDRESS(const int) rows;
    NIBBLE_ADDRESS(const int) slotOfPosition;
    long long stagedRowBytes;  // of `staged`, for a position
    long long inputRowBytes;
    int isByPosition;  // whether the input has a row for each position; else one for each token
    // experts_few.cu. Its gated kernels have the kind of gate and its parameter in the epilogue, and alpha as the scale.
    int expertCount;      // X
    int teamSize;         // warps that share a tile: a divisor of 8
    int hasNestedScales;  // else plain, unless the program is for powers of two
} NibbleExpertsArguments;

// Experts of up to eight tokens; of one token, for K up to 256 column tiles: threads of a block, and dynamic shared memory.
#define NIBBLE_FEW_EXPERTS_THREADS 256
#define NIBBLE_FEW_EXPERTS_SHARED 65536
#define NIBBLE_FEW_EXPERTS_MAX_K 16384

// out[t] = residual[t] + sum over j of weights[t, j] * products[positions[t, j]], j ascending
typedef struct {
    NIBBLE_ADDRESS(const float) products;  // [P, E]
    NIBBLE_ADDRESS(const float) weights;   // [T, k]
    NIBBLE_ADDRESS(const int) positions;   // [T, k]; null: pairs are in order
    NIBBLE_ADDRESS(const void) residual;   // [T, E] or null
    NIBBLE_ADDRESS(void) output;           // [T, E]
    int width;
    int topK;
    int outputType;
    int residualType;
} NibbleCombineArguments;

#define NIBBLE_MOST_EXPERTS 1024

// Routing weights by expert.
typedef struct {
    NIBBLE_ADDRESS(const int) ids;        // [T, k]
    NIBBLE_ADDRESS(const float) weights;  // [T, k]
    NIBBLE_ADDRESS(float) spread;         // [X, T]: 0 where a token did not choose the expert, else never 0
    int tokens;
    int experts;
    int topK;
    int unused;
} NibbleSpreadArguments;
// MARK: Recurrent mixers (NibbleCore/Recurrence.swift)

// Channels of a convolution's block, and its tokens of a row.
#define NIBBLE_CONVOLVE_CHANNELS 128
#define NIBBLE_CONVOLVE_TOKENS 32
#define NIBBLE_CONVOLVE_MAX_TAPS 8
// Sizes K, V, P and N of states; threads of a block, and the columns (gated delta) or rows (Mamba 2) of a head's state it holds.
#define NIBBLE_STATE_MAX_SIZE 256
#define NIBBLE_STATE_THREADS 128
#define NIBBLE_DELTA_COLUMNS 32
#define NIBBLE_SCAN_ROWS 16
// A gated norm: runs up to this width are for one warp each.
#define NIBBLE_GATED_NORM_WARP_WIDTH 512

// The rows of a call and the blocks of their states.
typedef struct {
    NIBBLE_ADDRESS(const int) queryOffsets;  // [R + 1]
    NIBBLE_ADDRESS(const int) lengths;       // [R]
    NIBBLE_ADDRESS(const int) blockTable;    // [R, blockTableStride]
    int blockTableStride;
    int blocks;  // of the states
} NibbleStateRows;

// A matrix of any type from its first column on.
typedef struct {
    NIBBLE_ADDRESS(const void) first;
    long long stride;  // elements between tokens
    int type;          // NIBBLE_F32 ...
    int unused;
} NibbleColumns;

typedef struct {
    NibbleStateRows rows;
    NibbleColumns input;
    NIBBLE_ADDRESS(const void) inputGate;   // its first column, placed as the input; or null
    NIBBLE_ADDRESS(const void) outputGate;  // the same
    NIBBLE_ADDRESS(const float) weight;     // [C, taps]
    NIBBLE_ADDRESS(const float) bias;       // [C] or null
    NIBBLE_ADDRESS(float) inputs;           // [blocks, C, taps - 1]
    NIBBLE_ADDRESS(void) output;            // [T, C]
    int channels;
    int taps;
    int activation;
    float activationParameter;
    int outputType;
    int unused;
} NibbleConvolveArguments;

typedef struct {
    NibbleStateRows rows;
    NibbleColumns mixed;  // [T, 2 Hk K + Hv V]
    NibbleColumns a;      // [T, Hv]
    NibbleColumns b;
    NIBBLE_ADDRESS(const float) rate;      // [Hv]
    NIBBLE_ADDRESS(const float) timeBias;  // [Hv]
    NIBBLE_ADDRESS(float) matrix;          // [blocks, Hv, K, V]
    NIBBLE_ADDRESS(void) output;           // [T, Hv V]
    int keyHeads;
    int valueHeads;
    int keySize;
    int valueSize;
    int outputType;
    int unused;
} NibbleDeltaArguments;

typedef struct {
    NibbleStateRows rows;
    NibbleColumns mixed;                   // [T, H P + 2 G N]
    NibbleColumns dt;                      // [T, H]
    NIBBLE_ADDRESS(const float) rate;      // [H]
    NIBBLE_ADDRESS(const float) timeBias;  // [H]
    NIBBLE_ADDRESS(const float) skip;      // [H]
    NIBBLE_ADDRESS(float) matrix;          // [blocks, H, P, N]
    NIBBLE_ADDRESS(void) output;           // [T, H P]
    int heads;
    int headSize;
    int groups;
    int stateSize;
    float leastTime;
    float largestTime;
    int outputType;
    float timeScale;
} NibbleScanArguments;

typedef struct {
    NIBBLE_ADDRESS(const void) input;    // [T, runs * width]
    NibbleColumns gate;                  // run r begins at layout.offset + (r / group) * stride + (r % group) * width
    NIBBLE_ADDRESS(const float) weight;  // or null
    NIBBLE_ADDRESS(const float) bias;    // or null
    NIBBLE_ADDRESS(void) output;         // may be the input
    NibbleHeads layout;
    long long count;  // runs of all tokens
    int runs;         // of a token
    int width;
    int weightStride;  // elements from one run's weights to the next one's: 0 or width
    int norm;          // 0 none, 1 root mean square, 2 centred
    int gateFirst;
    int activation;
    float activationParameter;
    float gateScale;
    float epsilon;
    int inputType;
    int outputType;
    int unused;
} NibbleGatedNormArguments;

// MARK: Launch sizes

#define NIBBLE_ROUTE_WARPS 4
#define NIBBLE_GEMV_MAX_M 8
#define NIBBLE_GEMV_ROWS 8
// Dense 16-bit layers of up to 8 tokens: outputs of a block.
#define NIBBLE_DENSE_FEW_ROWS 16
#define NIBBLE_DENSE_FEW_THREADS 256
#define NIBBLE_GEMV_THREADS 128
#define NIBBLE_GEMV_SINGLE_THREADS 256
#define NIBBLE_GEMV_SINGLE_RESIDENT 2  // blocks of a multiprocessor
#define NIBBLE_GEMM_TILE_M 64
#define NIBBLE_GEMM_TILE_N 64
#define NIBBLE_GEMM_THREADS 128
#define NIBBLE_GEMV_4BIT_MAX_M 8
#define NIBBLE_GEMV_4BIT_ROWS 8
#define NIBBLE_GEMV_4BIT_THREADS 128
#define NIBBLE_GEMV_INT8_MAX_M 8
#define NIBBLE_GEMV_INT8_ROWS 8
#define NIBBLE_GEMV_INT8_THREADS 128
#define NIBBLE_GEMM_INT8_TILE_M 64
#define NIBBLE_GEMM_INT8_TILE_N 64
#define NIBBLE_GEMM_INT8_THREADS 128
#define NIBBLE_FINISH_INT8_THREADS 128  // of eight outputs
#define NIBBLE_QUANTIZE_ROWS_THREADS 512
#define NIBBLE_QUANTIZE_ROWS_PASSES 64  // of 8 columns a thread: the longest row
#define NIBBLE_OUTLIER_TILE_N 32        // outputs of a block of sum_outliers
#define NIBBLE_OUTLIER_THREADS 512
#define NIBBLE_OUTLIER_CHUNK 256  // columns that a warp of quantize_rows takes at a time
#define NIBBLE_OUTLIER_TOKENS_PER_WARP 8
#define NIBBLE_OUTLIER_FEW_TOKENS_PER_WARP 2
#define NIBBLE_DEQUANTIZE_ELEMENTS 4096
#define NIBBLE_QUANTIZE4_BLOCKS 8
#define NIBBLE_PREFILL_QUERIES 64
#define NIBBLE_PREFILL_THREADS 128
#define NIBBLE_SPLIT_LENGTH 256
#define NIBBLE_SPLIT_THREADS 256
#define NIBBLE_STEP_TILE 16     // attend_step: keys of a product
#define NIBBLE_STEP_GROUPS 8    // groups of tiles of a split, and the most warps of a block
#define NIBBLE_STEP_HEADS 8     // query heads of a block
#define NIBBLE_STEP_LENGTH 256  // keys of the shortest split
#define NIBBLE_STEP_MAX_SPLITS 64

// The tiled 4-bit layout (tiles4.cuh): which weights can have it, bytes of its codes, count of its scales for blocks of 64
// (floats, or bytes if nested; powers of two have blocks of 32, so twice as many), and the launches over it.
#define NIBBLE_TILED_4BIT_SUPPORTS(outFeatures, inFeatures, blockSizeLog2, arePowers) \
    ((inFeatures) % 64 == 0 && (blockSizeLog2) == ((arePowers) ? 5 : 6))
#define NIBBLE_TILED_4BIT_SCALES(outFeatures, inFeatures) (((outFeatures) + 15) / 16 * 32LL * (((inFeatures) + 127) / 128))
#define NIBBLE_TILED_4BIT_BYTES(outFeatures, inFeatures) (NIBBLE_TILED_4BIT_SCALES(outFeatures, inFeatures) * 32)
#define NIBBLE_TILED_4BIT_THREADS 256
#define NIBBLE_TILED_4BIT_FEW_THREADS 512  // gemv_4bit_tiled_few: for up to 2 row tiles a multiprocessor
// Where a multiprocessor has room for several, entries of the table of values are 256 bytes apart: one instruction less a
// look-up.
#define NIBBLE_SPREADS_TABLE(level) ((level) >= 90 && (level) < 120)
// Dynamic shared memory: several tokens; one token, of which up to 256 column tiles lie between entries that are apart; float32.
#define NIBBLE_TILED_4BIT_SHARED(isSpread) ((isSpread) ? 65536 : 32768)
#define NIBBLE_TILED_4BIT_BETWEEN(isSpread, inFeatures) ((isSpread) && (inFeatures) <= 16384)
#define NIBBLE_TILED_4BIT_SHARED_1(isSpread, inFeatures) \
    (NIBBLE_TILED_4BIT_SHARED(isSpread) +                \
     ((inFeatures) + 127) / 128 * (NIBBLE_TILED_4BIT_BETWEEN(isSpread, inFeatures) ? 8 : 264))
#define NIBBLE_TILED_4BIT_SHARED_F32 65536
// gemv_4bit_single: one token whose column tiles lie between the entries of the table. A stage of the ring has so many pairs of
// column tiles; sums of so many row tiles are kept at a time. A block takes so much shared memory that no block of the attention
// after it begins beside it: on few multiprocessors, these would be waited for.
#define NIBBLE_SINGLE_4BIT_THREADS 544
#define NIBBLE_SINGLE_4BIT_STAGE_PAIRS 8
#define NIBBLE_SINGLE_4BIT_STAGES 12
#define NIBBLE_SINGLE_4BIT_TILES 8
#define NIBBLE_SINGLE_4BIT_SHARED 225280
#define NIBBLE_SINGLE_4BIT_SUPPORTS(inFeatures) ((inFeatures) >= 2048 && (inFeatures) <= 16384)
// Bytes of `staged`; float32 activations (`isFloat32` = 1) need more.
#define NIBBLE_STAGED_4BIT_BYTES(tokens, inFeatures, isFloat32) \
    (((tokens) + 7) / 8 * 8LL * (((inFeatures) + 127) / 128 * 256LL * (1 + (isFloat32)) + 4))

// Products of several to some hundred tokens over that layout on compute capability 9.0 (linear_4bit_wide.cu), for 16, 32, 64, 96
// or 128 tokens a block: stages of activations, and dynamic shared memory.
#define NIBBLE_WIDE_4BIT_ROWS 128  // outputs of a block
#define NIBBLE_WIDE_4BIT_THREADS 256
#define NIBBLE_WIDE_4BIT_STAGE_THREADS 512
#define NIBBLE_WIDE_4BIT_MAX_CLUSTER 8
#define NIBBLE_WIDE_RANKS 64  // of adapters, a pass
#define NIBBLE_WIDE_4BIT_STAGES(tokens) ((tokens) <= 16 ? 6 : (tokens) <= 32 ? 5 : (tokens) <= 64 ? 3 : 4)
#define NIBBLE_WIDE_4BIT_SHARED(tokens) (65536 + NIBBLE_WIDE_4BIT_STAGES(tokens) * (tokens) * 256)

// Attention over tiles of queries: float16, and bfloat16 from compute capability 8.0. Dynamic shared memory in bytes.
// A relative bias needs maximumDistance up to NIBBLE_PREFILL_MAX_DISTANCE.
#define NIBBLE_PREFILL_SUPPORTS(keySize, valueSize) ((keySize) == (valueSize) && (keySize) % 8 == 0 && (keySize) <= 256)
#define NIBBLE_PREFILL_MAX_DISTANCE 512
#define NIBBLE_PREFILL_WIDTH(size) ((size) <= 64 ? 64 : (size) <= 96 ? 96 : (size) <= 128 ? 128 : 256)
#define NIBBLE_PREFILL_KEYS 32  // a tile of keys
#define NIBBLE_PREFILL_SHARED(keySize, valueSize) ((64 + 4 * NIBBLE_PREFILL_KEYS) * (NIBBLE_PREFILL_WIDTH(keySize) * 2 + 16))
// On warpgroups: keys and values of 64 or 128 elements.
#define NIBBLE_PREFILL_WIDE_QUERIES 192  // of a block, which has twice as many threads
#define NIBBLE_PREFILL_WIDE_STAGES 5     // tiles of 64 keys and values
#define NIBBLE_PREFILL_WIDE_SUPPORTS(keySize, valueSize) ((keySize) == (valueSize) && ((keySize) == 64 || (keySize) == 128))
#define NIBBLE_PREFILL_WIDE_SHARED(keySize) ((3 + 2 * NIBBLE_PREFILL_WIDE_STAGES) * 64 * (keySize) * 2 + 1024)

// The same over quantized caches: chunks of eight elements share a scale and whole bytes.
#define NIBBLE_PREFILL_CODES_SUPPORTS(size, bits, group) \
    (NIBBLE_PREFILL_SUPPORTS(size, size) && ((size) % (group) * (bits)) % 64 == 0 && ((group) * (bits)) % 64 == 0)

// Attention over splits of the keys, for cacheType == T. Query heads a block serves, fewer where heads are wide: grid.y =
// G * (H / G / NIBBLE_SPLIT_HEADS_OF(D), rounded up).
#define NIBBLE_SPLIT_HEADS 4
#define NIBBLE_SPLIT_WIDE_HEADS 2
#define NIBBLE_SPLIT_HEADS_OF(size) ((size) <= 256 ? NIBBLE_SPLIT_HEADS : NIBBLE_SPLIT_WIDE_HEADS)
#define NIBBLE_SPLIT_SUPPORTS(keySize, valueSize, elementBytes) \
    ((keySize) == (valueSize) && (keySize) * (elementBytes) % 16 == 0 && (keySize) * (elementBytes) <= 1024)
// Over quantized caches: words of four codes' bytes lie within a group.
#define NIBBLE_SPLIT_CODES_SUPPORTS(keySize, valueSize, bits, group) \
    ((keySize) == (valueSize) && (keySize) <= 256 && ((keySize) % (group) * (bits)) % 32 == 0 && ((group) * (bits)) % 32 == 0)
// Attention of one new token a row on tensor cores, 16-bit T = cacheType. grid (T, G * (H / G / NIBBLE_STEP_HEADS, rounded up),
// splits), block: 32 threads for each of up to NIBBLE_STEP_GROUPS warps.
#define NIBBLE_STEP_SUPPORTS(keySize, valueSize) ((keySize) == (valueSize) && (keySize) % 8 == 0 && (keySize) <= 256)
// Dynamic shared memory: sums of the groups, or 16 bytes for each of four elements of the heads and at least 256 times.
#define NIBBLE_STEP_SHARED(group, size) \
    (NIBBLE_STEP_GROUPS * 4 * ((group) < NIBBLE_STEP_HEADS ? (group) : NIBBLE_STEP_HEADS) * ((size) < 128 ? 128 : (size)))
#define NIBBLE_SPLIT_SHARED(heads, keyValueHeads, valueSize) \
    (NIBBLE_SPLIT_THREADS / 32 * 4 * ((heads) == (keyValueHeads) ? 1 : NIBBLE_SPLIT_HEADS_OF(valueSize)) * (valueSize))
