#include "nibble_version.h"

#define TEXT(x) #x
#define TEXT_OF(x) TEXT(x)

const char *nibble_commit(void) { return TEXT_OF(NIBBLE_COMMIT); }
