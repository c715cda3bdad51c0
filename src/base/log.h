#pragma once
// One line per event on stderr: time, level, message. Messages never carry the text of a prompt or an answer.

#include <string_view>

namespace tinyserve {

enum class LogLevel { kDebug, kInfo, kWarn, kError, kOff };

/// Lines below `level` are dropped. Default kInfo. Thread safe.
void set_log_level(LogLevel level);
/// Parses "debug", "info", "warn", "error" or "off"; throws InputError for anything else.
LogLevel parse_log_level(std::string_view name);

void log(LogLevel level, std::string_view message);
inline void log_debug(std::string_view m) { log(LogLevel::kDebug, m); }
inline void log_info(std::string_view m) { log(LogLevel::kInfo, m); }
inline void log_warn(std::string_view m) { log(LogLevel::kWarn, m); }
inline void log_error(std::string_view m) { log(LogLevel::kError, m); }

}  // namespace tinyserve
