#include "CNibblePage.h"

static const unsigned char page[] = {
#embed "page/index.html"
};

static const unsigned char api[] = {
#embed "api/openapi.json"
};

const unsigned char *nibble_page(size_t *count) {
  *count = sizeof page;
  return page;
}

const unsigned char *nibble_api(size_t *count) {
  *count = sizeof api;
  return api;
}
