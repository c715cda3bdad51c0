#pragma once
#include "select/selection_request.h"
#include "server/json_fields.h"

namespace tinyserve {

/// The field "tinyserve" of a request, an object or absent: how its answers attend to a long context on a server that
/// was started with `server`. Throws ApiError 400 naming the member at fault.
SelectionRequest read_selection(const Fields& fields, const SelectionConfig& server);

}  // namespace tinyserve
