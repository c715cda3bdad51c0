#pragma once
// Flags, declared once each: name, where the value goes (its present value is the default), range, help. Everything that
// --help shows about a flag comes from that one declaration. The only files that know the parsing library are flags.cc
// and main.cc.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace CLI {
class App;
}

namespace tinyserve::cli {

/// What the chosen subcommand does once the command line has been read; returns the exit code.
using Action = std::function<int()>;

/// A heading in --help and the flags under it. Values are checked while parsing: a bad one ends in exit code 2 with a
/// message that names the flag, what was given and what would do.
class FlagGroup {
 public:
  FlagGroup(CLI::App& app, std::string heading) : app_(app), heading_(std::move(heading)) {}

  /// A whole number from `low` to `high`. `zero_means`, when not empty, says in the help what 0 stands for.
  FlagGroup& number(const std::string& name, int32_t& value, int64_t low, int64_t high, const std::string& help,
                    const std::string& zero_means = {});
  FlagGroup& number(const std::string& name, int64_t& value, int64_t low, int64_t high, const std::string& help,
                    const std::string& zero_means = {});
  /// A whole number that may be left out; `absent` says what that means.
  FlagGroup& number(const std::string& name, std::optional<int32_t>& value, int64_t low, int64_t high,
                    const std::string& help, const std::string& absent);
  FlagGroup& number(const std::string& name, std::optional<uint64_t>& value, const std::string& help,
                    const std::string& absent);
  /// A decimal number from `low` to `high`.
  FlagGroup& decimal(const std::string& name, float& value, double low, double high, const std::string& help,
                     const std::string& zero_means = {});
  FlagGroup& decimal(const std::string& name, double& value, double low, double high, const std::string& help,
                     const std::string& zero_means = {});
  FlagGroup& decimal(const std::string& name, std::optional<float>& value, double low, double high, const std::string& help,
                     const std::string& absent);
  /// Whole numbers separated by commas.
  FlagGroup& numbers(const std::string& name, std::vector<int32_t>& value, int64_t low, int64_t high,
                     const std::string& help);
  /// Bytes: a number with B, KiB, MiB, GiB, TiB (powers of 1024) or kB, MB, GB, TB (of 1000).
  FlagGroup& bytes(const std::string& name, int64_t& value, int64_t low, int64_t high, const std::string& help,
                   const std::string& zero_means = {});
  /// Any text; `default_text` stands in the help for the default when the value itself would not explain it.
  FlagGroup& text(const std::string& name, std::string& value, const std::string& type, const std::string& help,
                  const std::string& default_text = {});
  FlagGroup& text(const std::string& name, std::optional<std::string>& value, const std::string& type, const std::string& help);
  /// May be given several times.
  FlagGroup& texts(const std::string& name, std::vector<std::string>& value, const std::string& type,
                   const std::string& help);
  /// One of a few names; the first is the default.
  FlagGroup& choice(const std::string& name, const std::vector<std::string>& names, const std::string& help,
                    std::function<void(const std::string&)> set);
  /// --NAME and --no-NAME.
  FlagGroup& toggle(const std::string& name, bool& value, const std::string& help);
  /// A flag without a value, off unless given.
  FlagGroup& flag(const std::string& name, bool& value, const std::string& help);

 private:
  using Parse = std::function<void(const std::string&)>;
  void add(const std::string& name, const std::string& type, const std::string& help, const std::string& notes,
           Parse parse);

  CLI::App& app_;
  std::string heading_;
};

/// Lays out --help as all commands do.
void use_help_format(CLI::App& app);
/// Adds the subcommand `name`; when it is the one given, `action` becomes `run`.
CLI::App& add_command(CLI::App& parent, const std::string& name, const std::string& help, Action& action, Action run);
/// Adds a command that only groups others, one of which must be given.
CLI::App& add_command_group(CLI::App& parent, const std::string& name, const std::string& help);

/// The whole program: declares every subcommand, reads the command line, runs what it names. Returns the exit code:
/// 0 done, 1 input that cannot be used (one line "error: ..." on stderr), 2 a wrong command line, 130 interrupted.
int run_program(int argc, const char* const* argv);

// One per subcommand, each in the file of its name.
void add_serve(CLI::App& root, Action& action);
void add_generate(CLI::App& root, Action& action);
void add_bench(CLI::App& root, Action& action);
void add_info(CLI::App& root, Action& action);
void add_replay(CLI::App& root, Action& action);
void add_eval(CLI::App& root, Action& action);
void add_learn(CLI::App& root, Action& action);

}  // namespace tinyserve::cli
