#pragma once
// TS_CHECK(condition, "message"): an invariant of our own code. Always on. Not for outside input: see error.h.

#include <string_view>

namespace tinyserve {

[[noreturn]] void check_failed(const char* file, int line, const char* condition, std::string_view message);

}  // namespace tinyserve

#define TS_CHECK(condition, ...)                                                              \
  do {                                                                                        \
    if (!(condition)) [[unlikely]]                                                            \
      ::tinyserve::check_failed(__FILE__, __LINE__, #condition, ::std::string_view{__VA_ARGS__}); \
  } while (0)

#ifdef NDEBUG
#define TS_DCHECK(condition, ...) \
  do {                            \
    (void)sizeof(condition);      \
  } while (0)
#else
#define TS_DCHECK(condition, ...) TS_CHECK(condition, __VA_ARGS__)
#endif
