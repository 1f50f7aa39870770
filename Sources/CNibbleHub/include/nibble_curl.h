// HTTP with the system's libcurl, which is opened with dlopen: no header, no library and no TLS code is needed to build.
#pragma once

#include <stddef.h>

// Opens the library at `path`. Returns 0, or -1 with the reason in `error`. The first library that opens stays.
int nibble_curl_open(const char *path, char *error, size_t errorSize);

// A connection cache with room for one request at a time. Null without a library or without memory.
typedef struct NibbleCurl NibbleCurl;
NibbleCurl *nibble_curl_new(void);
void nibble_curl_free(NibbleCurl *curl);

typedef struct {
  // GET, HEAD, POST …
  const char *method;
  const char *url;
  // Lines such as "Name: value".
  const char *const *headers;
  int headerCount;
  // Null for none.
  const void *body;
  size_t bodySize;
  // host:port, or null for a direct connection. The environment's proxy is never used.
  const char *proxy;
  const char *proxyUser;
  const char *proxyPassword;
  // Limits in milliseconds, 0 for none: until there is a connection, until the head of the answer is there, and how long a
  // body may bring nothing.
  long connectLimit;
  long answerLimit;
  long silenceLimit;
  // Called on the caller's thread. A value other than 0 ends the transfer with NIBBLE_CURL_STOPPED.
  void *context;
  // One line of the head. A line that begins with "HTTP/" begins a new head.
  int (*onHeader)(void *context, const char *bytes, size_t count);
  int (*onBody)(void *context, const char *bytes, size_t count);
  // Asked ten times a second at least.
  int (*isCancelled)(void *context);
} NibbleCurlRequest;

enum {
  NIBBLE_CURL_STOPPED = -1,
  NIBBLE_CURL_TIMED_OUT = -2,
};

typedef struct {
  // 0, one of the above, or the number of a CURLcode.
  int code;
  // The status that the proxy answered CONNECT with; 0 where none was asked.
  long proxyStatus;
  // errno of the failed connection, or 0.
  long systemError;
  char message[256];
} NibbleCurlOutcome;

// Performs one request and does not follow redirects. Blocks until it has ended.
NibbleCurlOutcome nibble_curl_perform(NibbleCurl *curl, const NibbleCurlRequest *request);
