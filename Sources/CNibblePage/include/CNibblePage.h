#ifndef NIBBLE_PAGE_H
#define NIBBLE_PAGE_H

#include <stddef.h>

/// The page that the server answers at `/`: UTF-8, not terminated.
const unsigned char *nibble_page(size_t *count);

#endif
