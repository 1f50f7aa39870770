// Opening a shared library and looking functions up in it.
#pragma once

#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>

// Returns the handle, or null with dlerror's text in `error`.
static inline void *nibble_library_open(const char *path, char *error, size_t errorSize) {
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        const char *reason = dlerror();
        snprintf(error, errorSize, "%s", reason ? reason : "dlopen failed");
    }
    return handle;
}
