// Token (and position) embeddings.
#include "common.cuh"

// grid (T, E / 256 rounded up), block 256
extern "C" __global__ void embed(const __grid_constant__ NibbleEmbedArguments a) {
    beginKernel();
    const int t = blockIdx.x;
    const int e = blockIdx.y * blockDim.x + threadIdx.x;
    if (e >= a.width) return;
    const long long token = a.tokens[t];
    float x = 0.f;
    if (token >= 0 && token < a.vocabulary) x = loadAs(a.table, token * a.width + e, a.tableType) * a.scale;
    if (a.positionTable) {
        const long long position = a.positions[t];
        if (position >= 0 && position < a.positionCount) x += loadAs(a.positionTable, position * a.width + e, a.positionType);
    }
    storeAs(a.output, (long long)t * a.width + e, a.outputType, x);
}
