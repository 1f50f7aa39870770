#include <string.h>

#include "include/nibble_hash.h"

// The files' hashes are the only cryptography that Nibble needs itself. A library for it would be hundreds of files to compile.

static const uint32_t sha256Constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
    0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
    0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
    0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
    0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
    0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t left(uint32_t word, int bits) { return word << bits | word >> (32 - bits); }
static uint32_t right(uint32_t word, int bits) { return word >> bits | word << (32 - bits); }

static uint32_t bigEndian(const uint8_t *bytes) {
  return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static void compressSHA256(uint32_t state[8], const uint8_t *block) {
  uint32_t w[64];
  for (int t = 0; t < 16; t++) w[t] = bigEndian(block + 4 * t);
  for (int t = 16; t < 64; t++) {
    uint32_t s0 = right(w[t - 15], 7) ^ right(w[t - 15], 18) ^ w[t - 15] >> 3;
    uint32_t s1 = right(w[t - 2], 17) ^ right(w[t - 2], 19) ^ w[t - 2] >> 10;
    w[t] = w[t - 16] + s0 + w[t - 7] + s1;
  }
  uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f = state[5], g = state[6], h = state[7];
  for (int t = 0; t < 64; t++) {
    uint32_t t1 = h + (right(e, 6) ^ right(e, 11) ^ right(e, 25)) + ((e & f) ^ (~e & g)) + sha256Constants[t] + w[t];
    uint32_t t2 = (right(a, 2) ^ right(a, 13) ^ right(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
    h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
  }
  state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

static void compressSHA1(uint32_t state[5], const uint8_t *block) {
  uint32_t w[80];
  for (int t = 0; t < 16; t++) w[t] = bigEndian(block + 4 * t);
  for (int t = 16; t < 80; t++) w[t] = left(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1);
  uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
  for (int t = 0; t < 80; t++) {
    uint32_t mix = t < 20   ? ((b & c) ^ (~b & d)) + 0x5a827999
                   : t < 40 ? (b ^ c ^ d) + 0x6ed9eba1
                   : t < 60 ? ((b & c) ^ (b & d) ^ (c & d)) + 0x8f1bbcdc
                            : (b ^ c ^ d) + 0xca62c1d6;
    uint32_t next = left(a, 5) + mix + e + w[t];
    e = d, d = c, c = left(b, 30), b = a, a = next;
  }
  state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e;
}

static void compress(NibbleHash *hash, const uint8_t *block) {
  if (hash->words == 8) {
    compressSHA256(hash->state, block);
  } else {
    compressSHA1(hash->state, block);
  }
}

NibbleHash nibble_hash_sha1(void) {
  return (NibbleHash){.words = 5, .state = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0}};
}

NibbleHash nibble_hash_sha256(void) {
  return (NibbleHash){.words = 8,
                      .state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}};
}

void nibble_hash_update(NibbleHash *hash, const void *bytes, size_t count) {
  const uint8_t *next = bytes;
  size_t filled = hash->byteCount % 64;
  hash->byteCount += count;
  if (filled > 0) {
    size_t piece = count < 64 - filled ? count : 64 - filled;
    if (piece > 0) memcpy(hash->block + filled, next, piece);
    if (filled + piece < 64) return;
    compress(hash, hash->block);
    next += piece, count -= piece;
  }
  for (; count >= 64; next += 64, count -= 64) compress(hash, next);
  if (count > 0) memcpy(hash->block, next, count);
}

size_t nibble_hash_digest(const NibbleHash *hash, uint8_t digest[32]) {
  NibbleHash end = *hash;
  uint64_t bits = hash->byteCount * 8;
  // A one bit, zeros up to 8 bytes before the end of a block, and the length.
  uint8_t padding[72] = {0x80};
  size_t zeros = 64 - (hash->byteCount + 8) % 64;
  for (int index = 0; index < 8; index++) padding[zeros + index] = (uint8_t)(bits >> (56 - 8 * index));
  nibble_hash_update(&end, padding, zeros + 8);
  for (int index = 0; index < 4 * end.words; index++) digest[index] = (uint8_t)(end.state[index / 4] >> (24 - 8 * (index % 4)));
  return 4 * (size_t)end.words;
}
