// The tables of the quantized formats.
#pragma once

#include "../include/nibble_quantize.h"

extern const float nibble_fp4_values[16];
extern const float nibble_nf4_values[16];
extern const float nibble_mxfp4_values[16];
/// |x| above the i-th (ascending): the magnitude index i + 1. As CUDA decides, up to 14 ulp off the midpoints.
extern const float nibble_fp4_thresholds[7];
/// Midpoints of neighbouring values.
extern const float nibble_nf4_thresholds[15];
extern const float nibble_dynamic_values[256];
