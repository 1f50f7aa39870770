// cuBLASLt: out = input x weight^T for large matrices. Optional; Nibble's own kernels serve without it.
#pragma once

#include <stddef.h>

#include "nibble_cuda_driver.h"

typedef struct NibbleProductPlanObject *NibbleProductPlan;

// One product [M, K] x [N, K]^T -> [M, N], all row-major; strides in elements.
typedef struct {
    long long tokens;       // M
    long long outFeatures;  // N
    long long inFeatures;   // K
    long long inputStride;
    long long weightStride;
    long long outputStride;
    int inputType;   // NIBBLE_F32, NIBBLE_F16, NIBBLE_BF16, or NIBBLE_PRODUCT_INT8
    int outputType;  // as above; int32 for int8 products
    // Powers of two that divide the addresses.
    unsigned inputAlignment;
    unsigned weightAlignment;
    unsigned outputAlignment;
} NibbleProduct;

#define NIBBLE_PRODUCT_INT8 3

int nibble_cublaslt_open(const char *path, char *error, size_t errorSize);
size_t nibble_cublasltVersion(void);
const char *nibble_cublasltErrorText(int status);
// A handle for the current context.
int nibble_cublasltCreate(void **handle);
int nibble_cublasltDestroy(void *handle);

// Chooses an algorithm that needs at most `workspaceBytes`. Returns cuBLAS' status; the plan is freed with
// nibble_productPlanDestroy.
int nibble_productPlanCreate(void *handle, const NibbleProduct *product, size_t workspaceBytes, NibbleProductPlan *plan);
void nibble_productPlanDestroy(NibbleProductPlan plan);
// Enqueues output = input x weight^T + beta * addend; beta is 0 or 1. The addend has the output's layout and may be the output.
int nibble_productRun(void *handle, NibbleProductPlan plan, NibbleDevicePointer input, NibbleDevicePointer weight,
                      NibbleDevicePointer addend, float beta, NibbleDevicePointer output, NibbleDevicePointer workspace,
                      size_t workspaceBytes, NibbleStream stream);
