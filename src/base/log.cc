#include "base/log.h"

#include <sys/time.h>

#include <atomic>
#include <cstdio>
#include <ctime>
#include <string>

#include "base/error.h"

namespace tinyserve {
namespace {
std::atomic<LogLevel> g_level{LogLevel::kInfo};
}

void set_log_level(LogLevel level) { g_level.store(level, std::memory_order_relaxed); }

LogLevel parse_log_level(std::string_view name) {
  if (name == "debug") return LogLevel::kDebug;
  if (name == "info") return LogLevel::kInfo;
  if (name == "warn") return LogLevel::kWarn;
  if (name == "error") return LogLevel::kError;
  if (name == "off") return LogLevel::kOff;
  throw InputError("log level '" + std::string(name) + "' is not one of debug, info, warn, error, off");
}

void log(LogLevel level, std::string_view message) {
  if (level < g_level.load(std::memory_order_relaxed) || level == LogLevel::kOff) return;
  static constexpr const char* kNames[] = {"DEBUG", "INFO", "WARN", "ERROR"};
  timeval now{};
  gettimeofday(&now, nullptr);
  tm parts{};
  localtime_r(&now.tv_sec, &parts);
  char stamp[32];
  std::strftime(stamp, sizeof stamp, "%Y-%m-%d %H:%M:%S", &parts);
  // One call, so that lines of several threads do not mix.
  std::fprintf(stderr, "%s.%03d %-5s %.*s\n", stamp, static_cast<int>(now.tv_usec / 1000),
               kNames[static_cast<int>(level)], static_cast<int>(message.size()), message.data());
}

}  // namespace tinyserve
