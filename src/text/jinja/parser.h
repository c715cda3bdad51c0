#pragma once
// Builds the tree of a template. Everything that is wrong with the template's text is found here, when the model is
// loaded, and not in the middle of a request.

#include <string>
#include <string_view>

#include "text/jinja/ast.h"

namespace tinyserve::jinja {

/// Throws LocatedError: syntax errors, unknown tags, filters and tests, constructs that are not supported (template
/// inheritance, includes, imports, autoescape), trees deeper than limits.h allows.
Body parse(std::string_view source, const std::string& name);

}  // namespace tinyserve::jinja
