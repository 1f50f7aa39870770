#include "include/nibble_nvrtc.h"

#include <stdlib.h>

#include "include/nibble_cuda_driver.h"
#include "library.h"

typedef struct NvrtcProgram *Program;

#define NIBBLE_NVRTC_FUNCTIONS(X)                                                                                 \
    X(nvrtcVersion, (int *, int *))                                                                               \
    X(nvrtcCreateProgram, (Program *, const char *, const char *, int, const char *const *, const char *const *)) \
    X(nvrtcDestroyProgram, (Program *))                                                                           \
    X(nvrtcCompileProgram, (Program, int, const char *const *))                                                   \
    X(nvrtcGetPTXSize, (Program, size_t *))                                                                       \
    X(nvrtcGetPTX, (Program, char *))                                                                             \
    X(nvrtcGetCUBINSize, (Program, size_t *))                                                                     \
    X(nvrtcGetCUBIN, (Program, char *))                                                                           \
    X(nvrtcGetProgramLogSize, (Program, size_t *))                                                                \
    X(nvrtcGetProgramLog, (Program, char *))                                                                      \
    X(nvrtcGetNumSupportedArchs, (int *))                                                                         \
    X(nvrtcGetSupportedArchs, (int *))

#define NIBBLE_MEMBER(name, parameters) int(*name) parameters;

static struct {
    NIBBLE_NVRTC_FUNCTIONS(NIBBLE_MEMBER)
    const char *(*nvrtcGetErrorString)(int);
} compiler;

int nibble_nvrtc_open(const char *path, char *error, size_t errorSize) {
    static void *library;
    if (library) return 0;
    void *handle = nibble_library_open(path, error, errorSize);
    if (!handle) return -1;
    const char *missing = NULL;

#define NIBBLE_LOOK_UP(name, parameters)             \
    *(void **)&compiler.name = dlsym(handle, #name); \
    if (!compiler.name && !missing) missing = #name;
    NIBBLE_NVRTC_FUNCTIONS(NIBBLE_LOOK_UP)
    NIBBLE_LOOK_UP(nvrtcGetErrorString, )

    if (missing) {
        snprintf(error, errorSize, "%s has no function %s: it is older than CUDA 11.2", path, missing);
        dlclose(handle);
        __builtin_memset(&compiler, 0, sizeof compiler);
        return -1;
    }
    library = handle;
    return 0;
}

int nibble_nvrtcVersion(int *major, int *minor) {
    return compiler.nvrtcVersion ? compiler.nvrtcVersion(major, minor) : NIBBLE_CUDA_MISSING;
}

const char *nibble_nvrtcErrorText(int status) {
    if (!compiler.nvrtcGetErrorString) return "NVRTC is not loaded";
    const char *text = compiler.nvrtcGetErrorString(status);
    return text ? text : "unknown status";
}

int nibble_nvrtcArchitectures(int *levels, int capacity) {
    int count = 0;
    if (!compiler.nvrtcGetNumSupportedArchs || compiler.nvrtcGetNumSupportedArchs(&count) != 0 || count <= 0) return 0;
    int *all = malloc((size_t)count * sizeof(int));
    if (!all || compiler.nvrtcGetSupportedArchs(all) != 0) {
        free(all);
        return 0;
    }
    for (int i = 0; i < count && i < capacity; i++) levels[i] = all[i];
    free(all);
    return count;
}

static char *copyLog(Program program) {
    size_t size = 0;
    if (compiler.nvrtcGetProgramLogSize(program, &size) != 0 || size <= 1) return NULL;
    char *log = malloc(size);
    if (log && compiler.nvrtcGetProgramLog(program, log) != 0) {
        free(log);
        return NULL;
    }
    return log;
}

static int copyCode(Program program, int wantsMachineCode, char **code, size_t *codeSize) {
    size_t size = 0;
    int status = wantsMachineCode ? compiler.nvrtcGetCUBINSize(program, &size) : compiler.nvrtcGetPTXSize(program, &size);
    if (status != 0) return status;
    // One more byte, so that an image is never empty and PTX always ends.
    char *bytes = calloc(size + 1, 1);
    if (!bytes) return 1;
    status = wantsMachineCode ? compiler.nvrtcGetCUBIN(program, bytes) : compiler.nvrtcGetPTX(program, bytes);
    if (status != 0) {
        free(bytes);
        return status;
    }
    *code = bytes;
    *codeSize = size;
    return 0;
}

int nibble_nvrtcCompile(const NibbleCompilation *c, char **code, size_t *codeSize, char **log) {
    *code = NULL;
    *codeSize = 0;
    *log = NULL;
    if (!compiler.nvrtcCreateProgram) return NIBBLE_CUDA_MISSING;
    Program program = NULL;
    int status = compiler.nvrtcCreateProgram(&program, c->source, c->name, c->headerCount, c->headerSources, c->headerNames);
    if (status != 0) return status;
    status = compiler.nvrtcCompileProgram(program, c->optionCount, c->options);
    *log = copyLog(program);
    if (status == 0) status = copyCode(program, c->wantsMachineCode, code, codeSize);
    compiler.nvrtcDestroyProgram(&program);
    return status;
}
