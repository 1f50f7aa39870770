// What downloads need from C: HTTP by the system's libcurl, and the hashes of the Hub.
#pragma once

#include "nibble_curl.h"
#include "nibble_hash.h"
