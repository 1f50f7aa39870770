#include "CNibblePage.h"

static const unsigned char page[] = {
#embed "page/index.html"
};

const unsigned char *nibble_page(size_t *count) {
  *count = sizeof page;
  return page;
}
