#include "cli/flags.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "cli/units.h"

namespace tinyserve::cli {
namespace {

int64_t parse_whole(const std::string& text, int64_t low, int64_t high) {
  int64_t v = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (error != std::errc() || end != text.data() + text.size() || v < low || v > high)
    throw InputError(fmt::format("must be a whole number from {} to {}", low, high));
  return v;
}

double parse_decimal(const std::string& text, double low, double high) {
  double v = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(v) || v < low || v > high)
    throw InputError(fmt::format("must be a number from {} to {}", low, high));
  return v;
}

std::string default_note(const std::string& value) { return fmt::format("[default: {}]", value); }

template <class T>
std::string number_note(T value, const std::string& zero_means) {
  return default_note(value == T{} && !zero_means.empty() ? zero_means : fmt::format("{}", value));
}

constexpr size_t kNameColumn = 32, kLineWidth = 110;

/// Names in one column, what they mean wrapped in the next.
class HelpFormatter : public CLI::Formatter {
 public:
  std::string make_option(const CLI::Option* option, bool is_positional) const override {
    std::string name = option->get_name(is_positional, !is_positional);
    // "--x,--no-x{false}": the value behind a negated flag is of no use to the reader.
    for (size_t at; (at = name.find("{false}")) != std::string::npos;) name.erase(at, 7);
    for (size_t at = 0; (at = name.find(',', at)) != std::string::npos; at += 2) name.insert(at + 1, " ");
    if (option->get_type_size() != 0) name += " " + option->get_type_name();
    return entry("  " + name, option->get_description());
  }
  std::string make_subcommand(const CLI::App* app) const override {
    return entry("  " + app->get_name(), app->get_description());
  }

 private:
  static std::string entry(std::string line, const std::string& description) {
    std::string out;
    if (line.size() + 2 > kNameColumn) {
      out = line + "\n";
      line.clear();
    }
    line.resize(kNameColumn, ' ');
    for (size_t begin = 0; begin < description.size();) {
      const size_t end = std::min(description.find(' ', begin), description.size());
      if (line.size() > kNameColumn && line.size() + 1 + end - begin > kLineWidth) {
        out += line + "\n";
        line.assign(kNameColumn, ' ');
      }
      if (line.size() > kNameColumn) line += ' ';
      line.append(description, begin, end - begin);
      begin = end + 1;
    }
    return out + line + "\n";
  }
};

}  // namespace

void FlagGroup::add(const std::string& name, const std::string& type, const std::string& help,
                    const std::string& notes, Parse parse) {
  const bool positional = name[0] != '-';
  CLI::callback_t callback = [name, parse](const CLI::results_t& results) {
    for (const std::string& text : results) {
      try {
        parse(text);
      } catch (const InputError& e) {
        throw CLI::ValidationError(name, fmt::format("'{}' {}", text, e.what()));
      }
    }
    return true;
  };
  CLI::Option* option = app_.add_option(name, callback, notes.empty() ? help : help + " " + notes);
  option->type_name(type)->type_size(1)->group(positional ? "Arguments" : heading_);
}

FlagGroup& FlagGroup::number(const std::string& name, int32_t& value, int64_t low, int64_t high,
                             const std::string& help, const std::string& zero_means) {
  add(name, "N", help, number_note(value, zero_means),
      [&value, low, high](const std::string& t) { value = static_cast<int32_t>(parse_whole(t, low, high)); });
  return *this;
}

FlagGroup& FlagGroup::number(const std::string& name, int64_t& value, int64_t low, int64_t high,
                             const std::string& help, const std::string& zero_means) {
  add(name, "N", help, number_note(value, zero_means),
      [&value, low, high](const std::string& t) { value = parse_whole(t, low, high); });
  return *this;
}

FlagGroup& FlagGroup::number(const std::string& name, std::optional<int32_t>& value, int64_t low, int64_t high,
                             const std::string& help, const std::string& absent) {
  add(name, "N", help, default_note(value ? std::to_string(*value) : absent),
      [&value, low, high](const std::string& t) { value = static_cast<int32_t>(parse_whole(t, low, high)); });
  return *this;
}

FlagGroup& FlagGroup::number(const std::string& name, std::optional<uint64_t>& value, const std::string& help,
                             const std::string& absent) {
  add(name, "N", help, default_note(value ? std::to_string(*value) : absent), [&value](const std::string& t) {
    value = static_cast<uint64_t>(parse_whole(t, 0, std::numeric_limits<int64_t>::max()));
  });
  return *this;
}

FlagGroup& FlagGroup::decimal(const std::string& name, float& value, double low, double high, const std::string& help,
                              const std::string& zero_means) {
  add(name, "X", help, number_note(value, zero_means),
      [&value, low, high](const std::string& t) { value = static_cast<float>(parse_decimal(t, low, high)); });
  return *this;
}

FlagGroup& FlagGroup::decimal(const std::string& name, double& value, double low, double high, const std::string& help,
                              const std::string& zero_means) {
  add(name, "X", help, number_note(value, zero_means),
      [&value, low, high](const std::string& t) { value = parse_decimal(t, low, high); });
  return *this;
}

FlagGroup& FlagGroup::decimal(const std::string& name, std::optional<float>& value, double low, double high,
                              const std::string& help, const std::string& absent) {
  add(name, "X", help, default_note(value ? fmt::format("{}", *value) : absent),
      [&value, low, high](const std::string& t) { value = static_cast<float>(parse_decimal(t, low, high)); });
  return *this;
}

FlagGroup& FlagGroup::numbers(const std::string& name, std::vector<int32_t>& value, int64_t low, int64_t high,
                              const std::string& help) {
  add(name, "N,N,...", help, default_note(fmt::format("{}", fmt::join(value, ","))),
      [&value, low, high](const std::string& t) {
        std::vector<int32_t> parsed;
        for (size_t begin = 0; begin <= t.size();) {
          const size_t comma = std::min(t.find(',', begin), t.size());
          parsed.push_back(static_cast<int32_t>(parse_whole(t.substr(begin, comma - begin), low, high)));
          begin = comma + 1;
        }
        value = parsed;
      });
  return *this;
}

FlagGroup& FlagGroup::bytes(const std::string& name, int64_t& value, int64_t low, int64_t high, const std::string& help,
                            const std::string& zero_means) {
  const std::string shown = value == 0 && !zero_means.empty() ? zero_means : format_bytes(value);
  add(name, "BYTES", help, default_note(shown), [&value, low, high](const std::string& t) {
    const int64_t v = parse_bytes(t);
    if (v < low || v > high)
      throw InputError(fmt::format("must be from {} to {}", format_bytes(low), format_bytes(high)));
    value = v;
  });
  return *this;
}

FlagGroup& FlagGroup::text(const std::string& name, std::string& value, const std::string& type,
                           const std::string& help, const std::string& default_text) {
  const std::string& shown = default_text.empty() ? value : default_text;
  add(name, type, help, shown.empty() ? "" : default_note(shown), [&value](const std::string& t) { value = t; });
  return *this;
}

FlagGroup& FlagGroup::text(const std::string& name, std::optional<std::string>& value, const std::string& type,
                           const std::string& help) {
  add(name, type, help, "", [&value](const std::string& t) { value = t; });
  return *this;
}

FlagGroup& FlagGroup::texts(const std::string& name, std::vector<std::string>& value, const std::string& type,
                            const std::string& help) {
  app_.add_option(name, value, help + " [default: none; may be given several times]")
      ->type_name(type)
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->group(heading_);
  return *this;
}

FlagGroup& FlagGroup::choice(const std::string& name, const std::vector<std::string>& names, const std::string& help,
                             std::function<void(const std::string&)> set) {
  add(name, fmt::format("{}", fmt::join(names, "|")), help, default_note(names.front()),
      [names, set](const std::string& t) {
        if (std::find(names.begin(), names.end(), t) == names.end())
          throw InputError(fmt::format("must be one of {}", fmt::join(names, ", ")));
        set(t);
      });
  return *this;
}

FlagGroup& FlagGroup::toggle(const std::string& name, bool& value, const std::string& help) {
  const std::string bare = name.substr(2);
  app_.add_flag(fmt::format("--{},!--no-{}", bare, bare), value, help + " " + default_note(value ? "on" : "off"))
      ->group(heading_);
  return *this;
}

FlagGroup& FlagGroup::flag(const std::string& name, bool& value, const std::string& help) {
  app_.add_flag(name, value, help + " [default: off]")->group(heading_);
  return *this;
}

void use_help_format(CLI::App& app) { app.formatter(std::make_shared<HelpFormatter>()); }

CLI::App& add_command(CLI::App& parent, const std::string& name, const std::string& help, Action& action, Action run) {
  CLI::App* app = parent.add_subcommand(name, help);
  use_help_format(*app);
  app->callback([&action, run] { action = run; });
  return *app;
}

CLI::App& add_command_group(CLI::App& parent, const std::string& name, const std::string& help) {
  CLI::App* app = parent.add_subcommand(name, help);
  use_help_format(*app);
  app->require_subcommand(0, 1);
  return *app;
}

}  // namespace tinyserve::cli
