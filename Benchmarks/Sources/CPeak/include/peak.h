// What one core's multipliers give: loops over registers alone.
#pragma once

/// Adds `iterations` × peak_flops_per_iteration() float32 multiplications and additions on the calling thread.
void peak_multiply(long iterations);
double peak_flops_per_iteration(void);
