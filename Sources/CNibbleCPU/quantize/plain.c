// The loops as they are: the plain form.
#define LEVEL generic
#include "templates/loops.inc"
