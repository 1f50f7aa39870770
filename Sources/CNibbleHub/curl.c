#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "include/nibble_curl.h"

// Types, numbers and functions of libcurl's binary interface (libcurl.so.4), which has been stable since 2006.

typedef void Easy;
typedef void Multi;
struct curl_slist;

typedef struct {
  int kind;
  Easy *easy;
  union {
    void *any;
    int result;
  } data;
} Message;

enum {
  OPTION_WRITE_DATA = 10001,
  OPTION_URL = 10002,
  OPTION_PROXY = 10004,
  OPTION_ERROR_BUFFER = 10010,
  OPTION_POST_FIELDS = 10015,
  OPTION_HTTP_HEADER = 10023,
  OPTION_HEADER_DATA = 10029,
  OPTION_METHOD = 10036,
  OPTION_NO_BODY = 44,
  OPTION_POST = 47,
  OPTION_PROXY_TUNNEL = 61,
  OPTION_HTTP_VERSION = 84,
  OPTION_BUFFER_SIZE = 98,
  OPTION_NO_SIGNAL = 99,
  OPTION_CONNECT_LIMIT = 156,
  OPTION_NO_PROXY = 10177,
  OPTION_PROXY_USER = 10175,
  OPTION_PROXY_PASSWORD = 10176,
  OPTION_PROTOCOLS = 181,
  OPTION_KEEP_ALIVE = 213,
  OPTION_SUPPRESS_CONNECT_HEADERS = 265,
  OPTION_WRITE_FUNCTION = 20011,
  OPTION_HEADER_FUNCTION = 20079,
  OPTION_POST_FIELD_SIZE = 30120,
};

enum { INFO_PROXY_STATUS = 0x200000 + 22, INFO_SYSTEM_ERROR = 0x200000 + 25 };
enum { GLOBAL_ALL = 3, HTTP_1_1 = 2, HTTP_AND_HTTPS = 3, CODE_TIMED_OUT = 28, CODE_OUT_OF_MEMORY = 27 };

#define FUNCTIONS(X)                                                             \
  X(int, curl_global_init, (long))                                               \
  X(Easy *, curl_easy_init, (void))                                              \
  X(void, curl_easy_cleanup, (Easy *))                                           \
  X(void, curl_easy_reset, (Easy *))                                             \
  X(int, curl_easy_setopt, (Easy *, int, ...))                                   \
  X(int, curl_easy_getinfo, (Easy *, int, ...))                                  \
  X(const char *, curl_easy_strerror, (int))                                     \
  X(struct curl_slist *, curl_slist_append, (struct curl_slist *, const char *)) \
  X(void, curl_slist_free_all, (struct curl_slist *))                            \
  X(Multi *, curl_multi_init, (void))                                            \
  X(int, curl_multi_cleanup, (Multi *))                                          \
  X(int, curl_multi_add_handle, (Multi *, Easy *))                               \
  X(int, curl_multi_remove_handle, (Multi *, Easy *))                            \
  X(int, curl_multi_perform, (Multi *, int *))                                   \
  X(int, curl_multi_poll, (Multi *, void *, unsigned, int, int *))               \
  X(Message *, curl_multi_info_read, (Multi *, int *))

#define MEMBER(result, name, parameters) result(*name) parameters;
static struct {
  FUNCTIONS(MEMBER)
} lib;

int nibble_curl_open(const char *path, char *error, size_t errorSize) {
  static void *library;
  if (library) return 0;
  void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    const char *reason = dlerror();
    snprintf(error, errorSize, "%s", reason ? reason : "dlopen failed");
    return -1;
  }
  const char *missing = NULL;

#define LOOK_UP(result, name, parameters)     \
  *(void **)&lib.name = dlsym(handle, #name); \
  if (!lib.name && !missing) missing = #name;
  FUNCTIONS(LOOK_UP)

  if (missing) {
    snprintf(error, errorSize, "%s has no function %s: it is older than 7.66", path, missing);
  } else if (lib.curl_global_init(GLOBAL_ALL) != 0) {
    snprintf(error, errorSize, "%s cannot be initialized", path);
  } else {
    library = handle;
    return 0;
  }
  memset(&lib, 0, sizeof lib);
  dlclose(handle);
  return -1;
}

struct NibbleCurl {
  Multi *multi;
  Easy *easy;
  const NibbleCurlRequest *request;
  int stopped;
  int hasHead;
  // When the head or a piece of the body last came, or the request began.
  long last;
};

NibbleCurl *nibble_curl_new(void) {
  if (!lib.curl_easy_init) return NULL;
  NibbleCurl *curl = calloc(1, sizeof *curl);
  if (!curl) return NULL;
  curl->multi = lib.curl_multi_init();
  curl->easy = lib.curl_easy_init();
  if (curl->multi && curl->easy) return curl;
  nibble_curl_free(curl);
  return NULL;
}

void nibble_curl_free(NibbleCurl *curl) {
  if (!curl) return;
  if (curl->easy) lib.curl_easy_cleanup(curl->easy);
  if (curl->multi) lib.curl_multi_cleanup(curl->multi);
  free(curl);
}

static long milliseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

// An answer of fewer bytes than `count` ends the transfer.
static size_t header(const char *bytes, size_t size, size_t count, void *context) {
  NibbleCurl *curl = context;
  count *= size;
  // An empty line ends the head.
  if (count <= 2) {
    curl->hasHead = 1;
    curl->last = milliseconds();
  }
  if (!curl->stopped && curl->request->onHeader(curl->request->context, bytes, count)) curl->stopped = 1;
  return curl->stopped ? 0 : count;
}

static size_t body(const char *bytes, size_t size, size_t count, void *context) {
  NibbleCurl *curl = context;
  count *= size;
  curl->last = milliseconds();
  if (!curl->stopped && curl->request->onBody(curl->request->context, bytes, count)) curl->stopped = 1;
  // What the caller did with the bytes is no silence of the server's.
  curl->last = milliseconds();
  return curl->stopped ? 0 : count;
}

static void configure(NibbleCurl *curl, struct curl_slist *headers, char *message) {
  const NibbleCurlRequest *request = curl->request;
  Easy *easy = curl->easy;
  lib.curl_easy_reset(easy);
  lib.curl_easy_setopt(easy, OPTION_URL, request->url);
  lib.curl_easy_setopt(easy, OPTION_PROTOCOLS, (long)HTTP_AND_HTTPS);
  // One connection for each request: on a shared one, all downloads together get the speed of one.
  lib.curl_easy_setopt(easy, OPTION_HTTP_VERSION, (long)HTTP_1_1);
  lib.curl_easy_setopt(easy, OPTION_HTTP_HEADER, headers);
  lib.curl_easy_setopt(easy, OPTION_NO_SIGNAL, 1L);
  lib.curl_easy_setopt(easy, OPTION_KEEP_ALIVE, 1L);
  lib.curl_easy_setopt(easy, OPTION_BUFFER_SIZE, 256L << 10);
  lib.curl_easy_setopt(easy, OPTION_CONNECT_LIMIT, request->connectLimit);
  lib.curl_easy_setopt(easy, OPTION_ERROR_BUFFER, message);
  lib.curl_easy_setopt(easy, OPTION_HEADER_FUNCTION, header);
  lib.curl_easy_setopt(easy, OPTION_HEADER_DATA, curl);
  lib.curl_easy_setopt(easy, OPTION_WRITE_FUNCTION, body);
  lib.curl_easy_setopt(easy, OPTION_WRITE_DATA, curl);
  // Empty texts keep the environment's variables out.
  lib.curl_easy_setopt(easy, OPTION_PROXY, request->proxy ? request->proxy : "");
  lib.curl_easy_setopt(easy, OPTION_NO_PROXY, "");
  if (request->proxy) {
    lib.curl_easy_setopt(easy, OPTION_PROXY_TUNNEL, 1L);
    lib.curl_easy_setopt(easy, OPTION_SUPPRESS_CONNECT_HEADERS, 1L);
    lib.curl_easy_setopt(easy, OPTION_PROXY_USER, request->proxyUser);
    lib.curl_easy_setopt(easy, OPTION_PROXY_PASSWORD, request->proxyPassword);
  }
  if (request->body) {
    lib.curl_easy_setopt(easy, OPTION_POST, 1L);
    lib.curl_easy_setopt(easy, OPTION_POST_FIELDS, request->body);
    lib.curl_easy_setopt(easy, OPTION_POST_FIELD_SIZE, (long long)request->bodySize);
  }
  if (strcmp(request->method, "HEAD") == 0) {
    lib.curl_easy_setopt(easy, OPTION_NO_BODY, 1L);
  } else {
    lib.curl_easy_setopt(easy, OPTION_METHOD, request->method);
  }
}

static int isLate(const NibbleCurl *curl) {
  long limit = curl->hasHead ? curl->request->silenceLimit : curl->request->answerLimit;
  return limit > 0 && milliseconds() - curl->last > limit;
}

// Runs the transfer that has been added to the multi handle. Returns its code.
static int transfer(NibbleCurl *curl) {
  const NibbleCurlRequest *request = curl->request;
  while (1) {
    int running = 0;
    if (lib.curl_multi_perform(curl->multi, &running) != 0) return CODE_OUT_OF_MEMORY;
    if (curl->stopped) return NIBBLE_CURL_STOPPED;
    int left;
    for (Message *message; (message = lib.curl_multi_info_read(curl->multi, &left));) {
      int code = message->data.result;
      return code == CODE_TIMED_OUT ? NIBBLE_CURL_TIMED_OUT : code;
    }
    if (request->isCancelled(request->context)) return NIBBLE_CURL_STOPPED;
    if (isLate(curl)) return NIBBLE_CURL_TIMED_OUT;
    if (lib.curl_multi_poll(curl->multi, NULL, 0, 100, NULL) != 0) return CODE_OUT_OF_MEMORY;
  }
}

NibbleCurlOutcome nibble_curl_perform(NibbleCurl *curl, const NibbleCurlRequest *request) {
  NibbleCurlOutcome outcome = {.code = CODE_OUT_OF_MEMORY};
  struct curl_slist *headers = NULL;
  for (int index = 0; index < request->headerCount; index++) {
    struct curl_slist *longer = lib.curl_slist_append(headers, request->headers[index]);
    if (!longer) {
      lib.curl_slist_free_all(headers);
      return outcome;
    }
    headers = longer;
  }
  curl->request = request;
  curl->stopped = curl->hasHead = 0;
  curl->last = milliseconds();
  configure(curl, headers, outcome.message);
  if (lib.curl_multi_add_handle(curl->multi, curl->easy) == 0) {
    outcome.code = transfer(curl);
    lib.curl_easy_getinfo(curl->easy, INFO_PROXY_STATUS, &outcome.proxyStatus);
    lib.curl_easy_getinfo(curl->easy, INFO_SYSTEM_ERROR, &outcome.systemError);
    lib.curl_multi_remove_handle(curl->multi, curl->easy);
  }
  if (!outcome.message[0] && outcome.code > 0) {
    snprintf(outcome.message, sizeof outcome.message, "%s", lib.curl_easy_strerror(outcome.code));
  }
  lib.curl_easy_reset(curl->easy);
  lib.curl_slist_free_all(headers);
  curl->request = NULL;
  return outcome;
}
