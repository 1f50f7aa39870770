// SHA-1 and SHA-256 (FIPS 180-4).
#pragma once

#include <stddef.h>
#include <stdint.h>

typedef struct {
  // 5 words of state for SHA-1, 8 for SHA-256.
  int words;
  uint32_t state[8];
  uint64_t byteCount;
  // The bytes that do not fill a block yet.
  uint8_t block[64];
} NibbleHash;

NibbleHash nibble_hash_sha1(void);
NibbleHash nibble_hash_sha256(void);
void nibble_hash_update(NibbleHash *hash, const void *bytes, size_t count);
// Writes the digest of the bytes so far: 20 bytes for SHA-1, 32 for SHA-256. Returns their number.
size_t nibble_hash_digest(const NibbleHash *hash, uint8_t digest[32]);
