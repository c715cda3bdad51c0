#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <new>

#include "base/error.h"
#include "text/unicode.h"

namespace tinyserve {
namespace {

// PCRE2's match limit counts the steps of backtracking at one start position. A pattern like \s*[\r\n]+ goes back over
// a whole run of spaces, so the limit grows with the text. Start positions are tried a window at a time, sized so that
// a window costs at most about 0.2 s, and the clock is read after each: without that, a pattern that fails slowly at
// each of a million start positions would never stop.
constexpr uint32_t kBaseSteps = 1'000'000;
constexpr uint32_t kStepsPerByte = 4;
constexpr uint32_t kStepsPerWindow = 50'000'000;
constexpr size_t kMinWindow = 8, kMaxWindow = 4096;
constexpr int kSearchesPerClock = 16;  // reading the clock at each search would cost a tenth of the time
constexpr uint32_t kHeapLimitKib = 64 * 1024;
constexpr size_t kJitStackBytes = 1 << 20;

}  // namespace

struct Regex::Scratch::Impl {
  std::chrono::steady_clock::time_point deadline;
  int searches_left = kSearchesPerClock;
  size_t window = kMaxWindow;  // start positions per call
  // Made at the first search: decoding a token makes a scratch and seldom searches.
  pcre2_match_data* data = nullptr;
  pcre2_match_context* context = nullptr;
  pcre2_jit_stack* stack = nullptr;
  uint32_t match_limit = kBaseSteps;

  ~Impl() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
  void make() {
    data = pcre2_match_data_create(1, nullptr);
    context = pcre2_match_context_create(nullptr);
    stack = pcre2_jit_stack_create(32 * 1024, kJitStackBytes, nullptr);
    if (!data || !context || !stack) throw std::bad_alloc();
    pcre2_set_match_limit(context, match_limit);
    pcre2_set_heap_limit(context, kHeapLimitKib);
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
};

Regex::Scratch::Scratch() : impl_(std::make_unique<Impl>()) { start(0); }
Regex::Scratch::~Scratch() = default;

void Regex::Scratch::start(size_t text_bytes) {
  using namespace std::chrono;
  impl_->deadline = steady_clock::now() + seconds(5) + microseconds(5 * text_bytes);
  impl_->searches_left = kSearchesPerClock;
  impl_->match_limit = static_cast<uint32_t>(
      std::min<uint64_t>(kBaseSteps + uint64_t{kStepsPerByte} * text_bytes, std::numeric_limits<int32_t>::max()));
  if (impl_->context) pcre2_set_match_limit(impl_->context, impl_->match_limit);
  impl_->window = std::clamp<size_t>(kStepsPerWindow / impl_->match_limit, kMinWindow, kMaxWindow);
}

struct Regex::Impl {
  pcre2_code* code = nullptr;
  std::string what;
  bool jit = false;
  ~Impl() { pcre2_code_free(code); }
};

Regex::Regex(std::string_view pattern, std::string_view what) : impl_(std::make_unique<Impl>()) {
  const std::string translated = translate_regex(pattern, what);
  impl_->what = fmt::format("{}: the pattern {:?}", what, pattern.substr(0, 200));
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  if (!context) throw std::bad_alloc();
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context, 100);
  pcre2_set_max_pattern_length(context, 1 << 20);
  int error = 0;
  size_t offset = 0;
  impl_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C |
                                  PCRE2_USE_OFFSET_LIMIT, &error, &offset, context);
  pcre2_compile_context_free(context);
  if (!impl_->code) {
    char message[256] = "";
    pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(message), sizeof message);
    throw InputError(fmt::format("{} is not usable: {}", impl_->what, message));
  }
  impl_->jit = pcre2_jit_compile(impl_->code, PCRE2_JIT_COMPLETE) == 0;
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

size_t Regex::char_step(char lead) { return unicode::char_length(lead); }

bool Regex::find(std::string_view text, size_t from, Scratch& scratch, Match& match) const {
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  auto& s = *scratch.impl_;
  if (!s.stack) s.make();
  int rc = PCRE2_ERROR_NOMATCH;
  for (size_t start = from; start <= text.size(); start += s.window + 1) {
    while (start < text.size() && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) ++start;
    pcre2_set_offset_limit(s.context, start + s.window);
    rc = impl_->jit ? pcre2_jit_match(impl_->code, subject, text.size(), start, PCRE2_NO_UTF_CHECK, s.data, s.context)
                    : PCRE2_ERROR_JIT_STACKLIMIT;
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)  // the interpreter keeps its backtracking points on the heap
      rc = pcre2_match(impl_->code, subject, text.size(), start, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, s.data, s.context);
    if (--s.searches_left <= 0 || rc == PCRE2_ERROR_NOMATCH) {
      s.searches_left = kSearchesPerClock;
      if (std::chrono::steady_clock::now() > s.deadline)
        throw InputError(fmt::format("{} takes too long to split this text (stopped at byte {} of {})", impl_->what, start,
                                     text.size()));
    }
    if (rc != PCRE2_ERROR_NOMATCH) break;
  }
  if (rc == PCRE2_ERROR_NOMATCH) return false;
  if (rc < 0) {
    char message[256] = "";
    pcre2_get_error_message(rc, reinterpret_cast<PCRE2_UCHAR*>(message), sizeof message);
    throw InputError(fmt::format("{} cannot split this text within its limits ({}, from byte {} of {})", impl_->what,
                                 message, from, text.size()));
  }
  const size_t* ends = pcre2_get_ovector_pointer(s.data);
  // \K may set a begin outside the searched part; such a match has no sensible extent.
  match.begin = std::clamp(ends[0], from, ends[1]);
  match.end = ends[1];
  return true;
}

}  // namespace tinyserve
