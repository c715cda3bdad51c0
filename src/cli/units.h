#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace tinyserve::cli {

/// "2GiB", "1.5 GB", "4096": bytes. KiB, MiB, GiB, TiB are powers of 1024; kB, MB, GB, TB of 1000; K, M, G, T as KiB...
/// Throws InputError (without the text itself) for anything else, for negative and for too large values.
int64_t parse_bytes(std::string_view text);
/// "2 GiB", "1.5 MiB", "17 B": binary units, at most two decimals.
std::string format_bytes(int64_t bytes);
/// "16.1 M", "1.10 B": counts of parameters.
std::string format_count(int64_t count);
/// "1:02:03", "2:03" or "4 s", for times still to go.
std::string format_duration(double seconds);

}  // namespace tinyserve::cli
