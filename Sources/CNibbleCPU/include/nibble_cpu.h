// Everything the C kernels offer to Swift.
#pragma once

#include "nibble_attention.h"
#include "nibble_levels.h"
#include "nibble_experts.h"
#include "nibble_linear.h"
#include "nibble_memory.h"
#include "nibble_operations.h"
#include "nibble_pool.h"
#include "nibble_quantize.h"
#include "nibble_recurrence.h"
#include "nibble_route.h"
#include "nibble_selection.h"
#include "nibble_stored.h"
