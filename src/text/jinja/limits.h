#pragma once
// What one rendering may cost. Templates come from the model's folder, yet a broken or hostile one must end in an
// error of its own and never hold the server: every loop turn, evaluated node and copied byte is charged here.

#include <cstddef>
#include <cstdint>

namespace tinyserve::jinja {

struct Limits {
  int64_t max_steps = 10'000'000;               ///< nodes evaluated, plus one per item and per 64 bytes handled
  size_t max_output_bytes = size_t{64} << 20;   ///< of the rendered text, and of any one string on the way
  size_t max_memory_bytes = size_t{512} << 20;  ///< of all strings, lists and dicts made while rendering, summed
  int64_t max_range = 100'000;                  ///< items of range(), as in jinja2's sandbox
  int max_depth = 500;                          ///< of nested expressions, blocks and macro calls while rendering
  int max_value_depth = 100;                    ///< of lists and dicts inside each other
};

/// Bounds of the parser. Fixed: they protect the stack of the thread that loads the model.
inline constexpr size_t kMaxTemplateBytes = size_t{4} << 20;
inline constexpr int kMaxParseDepth = 100;  ///< nested brackets, blocks, unary operators
inline constexpr int kMaxNodeDepth = 400;   ///< depth of the tree, which chains (a.b.c, a + b + c) deepen as well

}  // namespace tinyserve::jinja
