#pragma once
// Regular expressions as tokenizer files write them (Oniguruma, Ruby syntax), run by PCRE2 with its JIT compiler.

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace tinyserve {

/// `pattern` in PCRE2's syntax: classes (\s \d \w \h \p{..}) spelt out as the `tokenizers` package's tables have them,
/// Ruby's ^ $ (every line) and (?m) (dot matches newline), {n,m}+ as a repeat and not possessive.
/// Throws InputError for what has no equivalent (nested classes, &&, unknown escapes).
std::string translate_regex(std::string_view pattern, std::string_view what);

/// The pattern that matches exactly `literal`.
std::string escape_regex(std::string_view literal);

/// A compiled pattern. const and safe to use from many threads, each with its own Scratch.
class Regex {
 public:
  /// Memory that matching needs, and how much time is left for it: made once a thread or once a call, not once a match.
  class Scratch {
   public:
    Scratch();
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

    /// Starts the clock of one piece of work: every search from now on, together, may take 5 s and 5 us a byte. (Ten
    /// times slower than the slowest pattern seen on real text; only a hostile pair of pattern and text takes longer.)
    void start(size_t text_bytes);

   private:
    friend class Regex;
    struct Impl;
    std::unique_ptr<Impl> impl_;
  };

  struct Match {
    size_t begin, end;  ///< bytes
  };

  /// Throws InputError, which names `what` and the pattern, when it does not compile.
  Regex(std::string_view pattern, std::string_view what);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  /// Leftmost match that begins at `from` or later in `text` (valid UTF-8); `from` is at a character boundary.
  /// Returns false when there is none. Throws InputError when the scratch's time is over or one attempt takes more
  /// steps of backtracking than its limit, so that no pair of pattern and text can hold a processor for long.
  bool find(std::string_view text, size_t from, Scratch& scratch, Match& match) const;

  /// Calls visit(begin, end) for every match, leftmost first, without overlap. An empty match just behind another match
  /// does not count.
  template <typename Visit>
  void for_each_match(std::string_view text, Scratch& scratch, Visit&& visit) const {
    size_t from = 0, last_end = static_cast<size_t>(-1);
    Match match;
    while (from <= text.size() && find(text, from, scratch, match)) {
      if (match.begin == match.end && match.end == last_end) {
        from += from < text.size() ? char_step(text[from]) : 1;
        continue;
      }
      visit(match.begin, match.end);
      from = last_end = match.end;
    }
  }

 private:
  static size_t char_step(char lead);

  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tinyserve
