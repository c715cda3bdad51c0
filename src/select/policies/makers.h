#pragma once
// What policies.cc knows of the files beside this one.

#include <memory>

#include "select/policies.h"

namespace tinyserve {

std::unique_ptr<Selector> make_tinyserve(const PolicyContext& context);
std::unique_ptr<Selector> make_streaming(const PolicyContext& context);
std::unique_ptr<Selector> make_quest(const PolicyContext& context);
std::unique_ptr<Selector> make_moments(const PolicyContext& context);
std::unique_ptr<Selector> make_oracle(const PolicyContext& context);
std::unique_ptr<Selector> make_h2o(const PolicyContext& context);
std::unique_ptr<Selector> make_snapkv(const PolicyContext& context);
std::unique_ptr<Selector> make_pyramidkv(const PolicyContext& context);

}  // namespace tinyserve
