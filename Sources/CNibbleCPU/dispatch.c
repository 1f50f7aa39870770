#include "nibble_cpu.h"
