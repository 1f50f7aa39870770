#include "include/nibble_cublaslt.h"

#include <stdint.h>
#include <stdlib.h>

#include "include/nibble_kernel_arguments.h"
#include "library.h"

// The declarations of cublasLt.h that are used here.
typedef struct {
    uint64_t data[8];
} Algorithm;
typedef struct {
    Algorithm algorithm;
    size_t workspaceBytes;
    int state;
    float waves;
    int reserved[4];
} Heuristic;
typedef void *Descriptor;

enum { real32 = 0, real16 = 2, int8 = 3, int32 = 10, brain16 = 14 };                        // cudaDataType_t
enum { compute32F = 68, compute32I = 72 };                                                  // cublasComputeType_t
enum { descriptorTransposeA = 3, transpose = 1 };                                           // cublasLtMatmulDescAttributes_t
enum { maxWorkspace = 1, minAlignmentA = 5, minAlignmentB, minAlignmentC, minAlignmentD };  // …PreferenceAttributes_t
enum { statusNotSupported = 15 };

#define NIBBLE_BLAS_FUNCTIONS(X)                                                                                         \
    X(int, cublasLtCreate, (void **))                                                                                    \
    X(int, cublasLtDestroy, (void *))                                                                                    \
    X(size_t, cublasLtGetVersion, (void))                                                                                \
    X(const char *, cublasLtGetStatusString, (int))                                                                      \
    X(int, cublasLtMatmulDescCreate, (Descriptor *, int, int))                                                           \
    X(int, cublasLtMatmulDescDestroy, (Descriptor))                                                                      \
    X(int, cublasLtMatmulDescSetAttribute, (Descriptor, int, const void *, size_t))                                      \
    X(int, cublasLtMatrixLayoutCreate, (Descriptor *, int, uint64_t, uint64_t, int64_t))                                 \
    X(int, cublasLtMatrixLayoutDestroy, (Descriptor))                                                                    \
    X(int, cublasLtMatmulPreferenceCreate, (Descriptor *))                                                               \
    X(int, cublasLtMatmulPreferenceDestroy, (Descriptor))                                                                \
    X(int, cublasLtMatmulPreferenceSetAttribute, (Descriptor, int, const void *, size_t))                                \
    X(int, cublasLtMatmulAlgoGetHeuristic,                                                                               \
      (void *, Descriptor, Descriptor, Descriptor, Descriptor, Descriptor, Descriptor, int, Heuristic *, int *))         \
    X(int, cublasLtMatmul,                                                                                               \
      (void *, Descriptor, const void *, const void *, Descriptor, const void *, Descriptor, const void *, const void *, \
       Descriptor, void *, Descriptor, const Algorithm *, void *, size_t, NibbleStream))

#define NIBBLE_MEMBER(result, name, parameters) result(*name) parameters;

static struct {
    NIBBLE_BLAS_FUNCTIONS(NIBBLE_MEMBER)
} blas;

int nibble_cublaslt_open(const char *path, char *error, size_t errorSize) {
    static void *library;
    if (library) return 0;
    void *handle = nibble_library_open(path, error, errorSize);
    if (!handle) return -1;
    const char *missing = NULL;

#define NIBBLE_LOOK_UP(result, name, parameters) \
    *(void **)&blas.name = dlsym(handle, #name); \
    if (!blas.name && !missing) missing = #name;
    NIBBLE_BLAS_FUNCTIONS(NIBBLE_LOOK_UP)

    if (missing) {
        snprintf(error, errorSize, "%s has no function %s", path, missing);
        dlclose(handle);
        __builtin_memset(&blas, 0, sizeof blas);
        return -1;
    }
    library = handle;
    return 0;
}

size_t nibble_cublasltVersion(void) { return blas.cublasLtGetVersion ? blas.cublasLtGetVersion() : 0; }

const char *nibble_cublasltErrorText(int status) {
    if (!blas.cublasLtGetStatusString) return "cuBLASLt is not loaded";
    const char *text = blas.cublasLtGetStatusString(status);
    return text ? text : "unknown status";
}

int nibble_cublasltCreate(void **handle) { return blas.cublasLtCreate ? blas.cublasLtCreate(handle) : NIBBLE_CUDA_MISSING; }

int nibble_cublasltDestroy(void *handle) { return blas.cublasLtDestroy ? blas.cublasLtDestroy(handle) : NIBBLE_CUDA_MISSING; }

// MARK: Plans

// cuBLAS is column-major: the row-major weight [N, K] is its K x N matrix A, transposed; the input is the K x M matrix B and
// the output the N x M matrix D.
struct NibbleProductPlanObject {
    Descriptor operation;
    Descriptor weight;
    Descriptor input;
    Descriptor output;
    Algorithm algorithm;
    int isInteger;
};

static int dataType(int type) {
    switch (type) {
        case NIBBLE_F16:
            return real16;
        case NIBBLE_BF16:
            return brain16;
        case NIBBLE_PRODUCT_INT8:
            return int8;
        default:
            return real32;
    }
}

void nibble_productPlanDestroy(NibbleProductPlan plan) {
    if (!plan) return;
    if (plan->operation) blas.cublasLtMatmulDescDestroy(plan->operation);
    if (plan->weight) blas.cublasLtMatrixLayoutDestroy(plan->weight);
    if (plan->input) blas.cublasLtMatrixLayoutDestroy(plan->input);
    if (plan->output) blas.cublasLtMatrixLayoutDestroy(plan->output);
    free(plan);
}

static int describe(NibbleProductPlan plan, const NibbleProduct *p) {
    int in = dataType(p->inputType);
    int out = plan->isInteger ? int32 : dataType(p->outputType);
    int transposed = transpose;
    int status = blas.cublasLtMatmulDescCreate(&plan->operation, plan->isInteger ? compute32I : compute32F,
                                               plan->isInteger ? int32 : real32);
    if (status == 0)
        status = blas.cublasLtMatmulDescSetAttribute(plan->operation, descriptorTransposeA, &transposed, sizeof transposed);
    uint64_t m = (uint64_t)p->tokens, n = (uint64_t)p->outFeatures, k = (uint64_t)p->inFeatures;
    if (status == 0) status = blas.cublasLtMatrixLayoutCreate(&plan->weight, in, k, n, p->weightStride);
    if (status == 0) status = blas.cublasLtMatrixLayoutCreate(&plan->input, in, k, m, p->inputStride);
    if (status == 0) status = blas.cublasLtMatrixLayoutCreate(&plan->output, out, n, m, p->outputStride);
    return status;
}

static int describePreference(Descriptor preference, const NibbleProduct *p, size_t workspaceBytes) {
    const struct {
        int attribute;
        uint32_t bytes;
    } alignments[] = {{minAlignmentA, p->weightAlignment},
                      {minAlignmentB, p->inputAlignment},
                      {minAlignmentC, p->outputAlignment},
                      {minAlignmentD, p->outputAlignment}};
    int status = blas.cublasLtMatmulPreferenceSetAttribute(preference, maxWorkspace, &workspaceBytes, sizeof workspaceBytes);
    for (int i = 0; i < 4 && status == 0; i++)
        status = blas.cublasLtMatmulPreferenceSetAttribute(preference, alignments[i].attribute, &alignments[i].bytes,
                                                           sizeof alignments[i].bytes);
    return status;
}

static int chooseAlgorithm(void *handle, NibbleProductPlan plan, const NibbleProduct *product, size_t workspaceBytes) {
    Descriptor preference = NULL;
    int status = blas.cublasLtMatmulPreferenceCreate(&preference);
    if (status != 0) return status;
    status = describePreference(preference, product, workspaceBytes);
    Heuristic best;
    int found = 0;
    if (status == 0)
        status = blas.cublasLtMatmulAlgoGetHeuristic(handle, plan->operation, plan->weight, plan->input, plan->output,
                                                     plan->output, preference, 1, &best, &found);
    blas.cublasLtMatmulPreferenceDestroy(preference);
    if (status != 0) return status;
    if (found == 0) return statusNotSupported;
    plan->algorithm = best.algorithm;
    return best.state;
}

int nibble_productPlanCreate(void *handle, const NibbleProduct *product, size_t workspaceBytes, NibbleProductPlan *result) {
    *result = NULL;
    if (!blas.cublasLtMatmul) return NIBBLE_CUDA_MISSING;
    NibbleProductPlan plan = calloc(1, sizeof *plan);
    if (!plan) return 3;
    plan->isInteger = product->inputType == NIBBLE_PRODUCT_INT8;
    int status = describe(plan, product);
    if (status == 0) status = chooseAlgorithm(handle, plan, product, workspaceBytes);
    if (status != 0) {
        nibble_productPlanDestroy(plan);
        return status;
    }
    *result = plan;
    return 0;
}

int nibble_productRun(void *handle, NibbleProductPlan plan, NibbleDevicePointer input, NibbleDevicePointer weight,
                      NibbleDevicePointer addend, float beta, NibbleDevicePointer output, NibbleDevicePointer workspace,
                      size_t workspaceBytes, NibbleStream stream) {
    if (!blas.cublasLtMatmul) return NIBBLE_CUDA_MISSING;
    float alpha = 1;
    int32_t integerAlpha = 1, integerBeta = beta != 0;
    const void *a = plan->isInteger ? (const void *)&integerAlpha : (const void *)&alpha;
    const void *b = plan->isInteger ? (const void *)&integerBeta : (const void *)&beta;
    return blas.cublasLtMatmul(handle, plan->operation, a, (const void *)weight, plan->weight, (const void *)input, plan->input,
                               b, (const void *)(beta != 0 ? addend : output), plan->output, (void *)output, plan->output,
                               &plan->algorithm, (void *)workspace, workspaceBytes, stream);
}
