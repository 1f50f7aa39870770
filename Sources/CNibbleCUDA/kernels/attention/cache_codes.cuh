// Quantized caches (NibbleCore.KeyValueQuantization): layout of codes and scales, encoding and decoding.
#pragma once
#include "common.cuh"

// Vectors of `size` elements in groups of `group`, codes of `bits` bits.
struct CodeLayout {
    int size, group, bits;

    __device__ __forceinline__ int groupCount() const { return (size + group - 1) / group; }
    // Bytes of a group of n elements, of a vector's codes, of one head in one block.
    __device__ __forceinline__ int groupBytes(int n) const { return (n * bits + 7) / 8; }
    __device__ __forceinline__ int rowBytes() const { return size / group * groupBytes(group) + groupBytes(size % group); }
    __device__ __forceinline__ long long panelBytes() const {
        return NIBBLE_CACHE_BLOCK * (long long)(rowBytes() + groupCount() * 4);
    }

    // (scale, minimum) of group g at position `slot`.
    __device__ __forceinline__ u32 *scales(u8 *panel, int slot, int g) const {
        return (u32 *)(panel + NIBBLE_CACHE_BLOCK * rowBytes()) + slot * groupCount() + g;
    }

    __device__ __forceinline__ float2 scale(const u8 *panel, int slot, int g) const {
        const u32 pair = *scales(const_cast<u8 *>(panel), slot, g);
        return make_float2(toFloat(f16{(u16)pair}), toFloat(f16{(u16)(pair >> 16)}));
    }

    // Element d of the vector at position `slot`.
    __device__ __forceinline__ float element(const u8 *panel, int slot, int d) const {
        const int g = d / group, i = d - g * group, bytes = groupBytes(min(group, size - g * group));
        const u8 code = panel[slot * rowBytes() + g * groupBytes(group) + i % bytes];
        const float2 s = scale(panel, slot, g);
        return fmaf((float)(code >> (i / bytes * bits) & ((1 << bits) - 1)), s.x, s.y);
    }
};

// Rounds to float16; finite values stay finite.
__device__ __forceinline__ u16 saturatedHalf(float x) {
    return fromFloat<f16>(x == x && fabsf(x) < NIBBLE_INFINITY ? fminf(fmaxf(x, -65504.f), 65504.f) : x).bits;
}

// Quantizes a vector into position `slot` of a head's panel: a warp a group. `load(d)` gives the elements.
template <typename Load>
__device__ __forceinline__ void storeCodes(u8 *panel, const CodeLayout &layout, int slot, Load load) {
    const int lane = threadIdx.x & 31, groups = layout.groupCount(), bits = layout.bits;
    for (int g = threadIdx.x >> 5; g < groups; g += blockDim.x >> 5) {
        const int first = g * layout.group, count = min(layout.group, layout.size - first);
        float least = NIBBLE_INFINITY, largest = -NIBBLE_INFINITY, poison = 0.f;
        for (int i = lane; i < count; i += 32) {
            const float x = load(first + i);
            least = fminf(least, x);
            largest = fmaxf(largest, x);
            poison += x * 0.f;  // NaN where an element is not finite
        }
        least = -warpMax(-least) + warpSum(poison);
        largest = warpMax(largest);
        const u16 minimum = saturatedHalf(least);
        const float from = toFloat(f16{minimum}), limit = (float)((1 << bits) - 1);
        const u16 scale = saturatedHalf((largest - from) / limit);
        const float step = toFloat(f16{scale}), inverse = step > 0.f ? 1.f / step : 0.f;
        const int bytes = layout.groupBytes(count);
        u8 *codes = panel + slot * layout.rowBytes() + g * layout.groupBytes(layout.group);
        for (int b = lane; b < bytes; b += 32) {
            u32 code = 0;
            for (int k = 0; b + k * bytes < count && k * bits < 8; ++k) {
                const float place = fminf(fmaxf((load(first + b + k * bytes) - from) * inverse + 0.5f, 0.f), limit);
                code |= (u32)place << (k * bits);
            }
            codes[b] = (u8)code;
        }
        if (lane == 0) *layout.scales(panel, slot, g) = (u32)scale | (u32)minimum << 16;
    }
}
