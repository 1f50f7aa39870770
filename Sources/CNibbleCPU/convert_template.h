// Runs of floats between float32 and the storage types. Included by kernel templates; F16C says the target converts halves.

static void NAME(load_floats)(const void *source, nibble_float type, size_t first, size_t count, float *restrict out) {
  if (type == NIBBLE_F32) {
    memcpy(out, (const float *)source + first, count * sizeof(float));
  } else if (type == NIBBLE_BF16) {
    const uint16_t *in = (const uint16_t *)source + first;
    for (size_t i = 0; i < count; i++) out[i] = nibble_bf16_to_f32(in[i]);
  } else {
#if F16C
    const _Float16 *in = (const _Float16 *)source + first;
    for (size_t i = 0; i < count; i++) out[i] = (float)in[i];
#else
    const uint16_t *in = (const uint16_t *)source + first;
    for (size_t i = 0; i < count; i++) out[i] = nibble_f16_to_f32(in[i]);
#endif
  }
}

static void NAME(store_floats)(const float *restrict in, size_t count, nibble_float type, void *destination, size_t first) {
  if (type == NIBBLE_F32) {
    memcpy((float *)destination + first, in, count * sizeof(float));
  } else if (type == NIBBLE_BF16) {
    uint16_t *out = (uint16_t *)destination + first;
    for (size_t i = 0; i < count; i++) out[i] = nibble_f32_to_bf16(in[i]);
  } else {
#if F16C
    _Float16 *out = (_Float16 *)destination + first;
    for (size_t i = 0; i < count; i++) out[i] = (_Float16)in[i];
#else
    uint16_t *out = (uint16_t *)destination + first;
    for (size_t i = 0; i < count; i++) out[i] = nibble_f32_to_f16(in[i]);
#endif
  }
}

/// Rounds in place to the type and back.
static void NAME(round_floats)(float *values, size_t count, nibble_float type) {
  if (type == NIBBLE_BF16) {
    for (size_t i = 0; i < count; i++) values[i] = nibble_round_to_bf16(values[i]);
  } else if (type == NIBBLE_F16) {
#if F16C
    for (size_t i = 0; i < count; i++) values[i] = (float)(_Float16)values[i];
#else
    for (size_t i = 0; i < count; i++) values[i] = nibble_round_to_f16(values[i]);
#endif
  }
}
