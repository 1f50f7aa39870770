// Causal depthwise convolutions along rows: a thread for each channel of a tile of tokens.
#include "state_rows.cuh"

__device__ __forceinline__ float inputAt(const NibbleConvolveArguments &a, long long token, int channel) {
    const float x = loadAs(a.input, token, channel);
    return a.inputGate ? x * loadAs(a.inputGate, token * a.input.stride + channel, a.input.type) : x;
}

// The input `back` tokens before token `i` of the row: of this call, or one of the state's.
__device__ __forceinline__ float earlierInput(const NibbleConvolveArguments &a, const StateRow &row, int i, int back,
                                              int channel) {
    if (i >= back) return inputAt(a, row.first + i - back, channel);
    const int held = a.taps - 1;
    return row.begins ? 0.f : a.inputs[(row.from * a.channels + channel) * held + held + i - back];
}

// Tokens begin ..< end of the row, for up to Taps taps: shorter convolutions have zeros in front.
template <int Taps>
__device__ __forceinline__ void convolveTile(const NibbleConvolveArguments &a, const StateRow &row, int channel, int begin,
                                             int end) {
    float weight[Taps], window[Taps];
#pragma unroll
    for (int j = 0; j < Taps; ++j) {
        const int tap = j - (Taps - a.taps), back = Taps - j;
        weight[j] = tap >= 0 ? a.weight[(long long)channel * a.taps + tap] : 0.f;
        window[j] = back < a.taps ? earlierInput(a, row, begin, back, channel) : 0.f;
    }
    const float bias = a.bias ? a.bias[channel] : 0.f;
    for (int i = begin; i < end; ++i) {
        const long long token = row.first + i;
        float sum = bias;
#pragma unroll
        for (int j = 0; j < Taps; ++j) {
            window[j] = j + 1 < Taps ? window[j + 1] : inputAt(a, token, channel);
            sum = fmaf(weight[j], window[j], sum);
        }
        float y = activate(a.activation, sum, a.activationParameter);
        if (a.outputGate) y *= loadAs(a.outputGate, token * a.input.stride + channel, a.input.type);
        storeAs(a.output, token * a.channels + channel, a.outputType, y);
    }
}

// grid (channels / NIBBLE_CONVOLVE_CHANNELS, tokens of the longest row / NIBBLE_CONVOLVE_TOKENS, R), both rounded up.
// The first tile of a row reads and writes its state, so that no block waits for another.
extern "C" __global__ void __launch_bounds__(NIBBLE_CONVOLVE_CHANNELS)
    convolve(const __grid_constant__ NibbleConvolveArguments a) {
    beginKernel();
    const StateRow row = findRow(a.rows, blockIdx.z);
    const int channel = blockIdx.x * NIBBLE_CONVOLVE_CHANNELS + threadIdx.x;
    const int begin = blockIdx.y * NIBBLE_CONVOLVE_TOKENS, end = min(begin + NIBBLE_CONVOLVE_TOKENS, row.count);
    if (channel >= a.channels || begin >= end) return;
    if (a.taps <= 4)
        convolveTile<4>(a, row, channel, begin, end);
    else
        convolveTile<NIBBLE_CONVOLVE_MAX_TAPS>(a, row, channel, begin, end);
    if (begin > 0) return;
    // In ascending order, each input is read before its place is written.
    const int held = a.taps - 1;
    float *next = a.inputs + (row.to * a.channels + channel) * held;
    for (int j = 0; j < held; ++j) next[j] = earlierInput(a, row, row.count, held - j, channel);
}
