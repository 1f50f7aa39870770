// The CUDA driver, NVRTC and cuBLASLt as tables of functions, opened with dlopen; no CUDA header or library is needed to
// build. Calls return the library's own status, or NIBBLE_CUDA_MISSING where the library or the function is not there.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "nibble_kernel_arguments.h"
#include "nibble_cuda_driver.h"
#include "nibble_nvrtc.h"
#include "nibble_cublaslt.h"
#include "nibble_kernel_sources.h"
#include "nibble_launch_sizes.h"
