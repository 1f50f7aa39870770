#ifndef NIBBLE_PAGE_H
#define NIBBLE_PAGE_H

#include <stddef.h>

/// The page that the server answers at `/`: UTF-8, not terminated.
const unsigned char *nibble_page(size_t *count);

/// The description of the server's API, OpenAPI 3.1: UTF-8, not terminated.
const unsigned char *nibble_api(size_t *count);

#endif
