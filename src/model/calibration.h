#pragma once
#include <functional>
#include <span>

#include "model/model.h"
#include "select/selection_maps.h"

namespace tinyserve {

/// Fits maps of a model's keys to what it makes of `tokens`, read in contexts of up to `context` tokens, one after another. Calls
/// model.reserve(). The backend's memory must be the host's. `progress` hears about tokens done. Throws InputError when the
/// model's heads have no codes (ops::has_codes), no layer can be selected from, the model computes numbers that are not finite, or
/// there are fewer than 64 tokens.
SelectionMaps calibrate(Model& model, ops::Ops& ops, std::span<const int32_t> tokens, int32_t context,
                        const std::function<void(int32_t tokens)>& progress = {});

}  // namespace tinyserve
