// 4-bit weights times few rows in float16 or bfloat16 (or float32 of a model whose weights were float16), with 16-bit
// integers, whose products vpmaddwd adds in pairs. Unlike activations of 8 bits this is no further rounding to speak of:
//
// - The codebook becomes integers. FP4's are exact; NF4's are within 2⁻¹²·⁷ of their values, where float16 rounds by 2⁻¹¹.
// - A group of 16 columns of x becomes integers of 15 bits and a sign, times a power of two: x is exact unless it is less than
//   1 / 16 (float16; bfloat16: 1 / 128) of the group's largest, and rounded at 2⁻¹⁵ of that otherwise.
//
// A group's integer sum is exact; sums of groups are float32.

/// Columns that share a power of two; a divisor of every block size.
enum { WORD_GROUP = 16 };

static bool uses_words(const nibble_linear_call *call) { return call->form != NIBBLE_INPUT_F32 || call->half_precision; }

/// What the codebook's values are multiplied by. FP4 is k / 192; NF4's divisor gives the smallest relative error of those that
/// keep eight products within 31 bits.
static float word_divisor(nibble_codebook codebook) { return codebook == NIBBLE_FP4 ? 42 * 192 : 7854; }

/// Where row t's words lie, K in groups of 8: in the order of the products. After them, what a group's 1 stands for.
INLINE int16_t *words_of(const nibble_linear_call *call, size_t t) {
  return (int16_t *)((float *)call->work.packed + t * linear_packed_stride(call));
}
INLINE const float *word_steps(const int16_t *words, size_t stride) { return (const float *)(words + stride); }

#if LANES == 16
#include "linear_vector_4bit_words_avx512.h"
#elif LANES == 8
#include "linear_vector_4bit_words_avx2.h"
#else
#include "linear_neon_4bit_words.h"
#endif

static void four_bit_words(const nibble_linear_call *call, const nibble_linear_layer *layer, const uint8_t *codes,
                           const float *scales, float *sums) {
  word_codebook table = load_words(layer->codebook);
  const int16_t *x = words_of(call, 0);
  size_t stride = linear_packed_stride(call);
#define WORDS(rows, ...) \
  few_rows_words(rows __VA_OPT__(, ) __VA_ARGS__, table, codes, scales, layer->block_size, x, stride, call->K, sums)
  switch (call->T) {
#if LANES == 8
    case 1:
      WORDS(1, 0, 2);
      break;
    case 2:
      WORDS(2, 0, 2);
      break;
    // More sums than registers: features 0 ..< 8, then the rest.
    case 3:
      WORDS(3, 0, 1);
      WORDS(3, 1, 1);
      break;
    default:
      WORDS(4, 0, 1);
      WORDS(4, 1, 1);
      break;
#else
    case 1:
      WORDS(1);
      break;
    case 2:
      WORDS(2);
      break;
    case 3:
      WORDS(3);
      break;
    default:
      WORDS(4);
      break;
#endif
  }
#undef WORDS
}
