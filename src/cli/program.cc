#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <new>
#include <stdexcept>

#include "base/error.h"
#include "cli/flags.h"

namespace tinyserve::cli {
namespace {

constexpr int kBadInput = 1;
constexpr int kUsage = 2;

int fail(const std::string& message, int code) {
  fmt::print(stderr, "error: {}\n", message);
  return code;
}

}  // namespace

int run_program(int argc, const char* const* argv) {
  CLI::App app("tinyserve: a serving engine for language models", "tinyserve");
  app.set_version_flag("--version", "tinyserve " TINYSERVE_VERSION, "Print the version and exit");
  app.require_subcommand(0, 1);  // none is noticed below, so that an unknown one is named as such
  use_help_format(app);
  app.failure_message([](const CLI::App*, const CLI::Error& e) { return std::string(e.what()); });
  Action action;
  add_serve(app, action);
  add_generate(app, action);
  add_bench(app, action);
  add_info(app, action);
  add_replay(app, action);
  add_eval(app, action);
  add_learn(app, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {  // --help and --version
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    return fail(fmt::format("{} (see tinyserve --help)", e.what()), kUsage);
  } catch (const InputError& e) {
    return fail(e.what(), kUsage);
  }
  if (!action) {
    const CLI::App* named = app.get_subcommands().empty() ? &app : app.get_subcommands().front();
    std::string names;
    for (const CLI::App* sub : named->get_subcommands({})) names += (names.empty() ? "" : ", ") + sub->get_name();
    return fail(fmt::format("a command is missing after {}: {} (see {} --help)", named->get_name(), names,
                            named == &app ? "tinyserve" : "tinyserve " + named->get_name()), kUsage);
  }
  try {
    return action();
  } catch (const InputError& e) {
    return fail(e.what(), kBadInput);
  } catch (const std::bad_alloc&) {
    return fail("out of memory; a smaller --kv-memory or --max-context needs less", kBadInput);
  }
}

}  // namespace tinyserve::cli
