#include "ops/cpu/linear_onednn.h"

#include <oneapi/dnnl/dnnl.hpp>
#include <string_view>
#include <vector>

#include "ops/cpu/linear_kernels.h"

extern "C" void omp_set_num_threads(int);  // omp.h needs a compiler flag that nothing else here wants

namespace tinyserve::ops::linear {
namespace {

// oneDNN asks OpenMP how many threads it may use; the answer is per thread.
void forbid_openmp() {
  thread_local const bool done = (omp_set_num_threads(1), true);
  (void)done;
}

class Tile : public OneDnnTile {
 public:
  Tile(const dnnl::engine& engine, const dnnl::matmul::primitive_desc& description, int num_threads)
      : primitive_(description), stream_(engine) {
    for (int t = 0; t < num_threads; ++t)
      threads_.push_back({{description.src_desc(), engine, nullptr},
                          {description.weights_desc(), engine, nullptr},
                          {description.dst_desc(), engine, nullptr},
                          {description.scratchpad_desc(), engine}});
  }

  void run(const std::byte* panel, const std::byte* x, float* acc, int thread) override {
    forbid_openmp();
    const Memory& m = threads_[static_cast<size_t>(thread)];
    // The C interface: the C++ one builds a hash map in each call.
    dnnl_memory_set_data_handle(m.x.get(), const_cast<std::byte*>(x));
    dnnl_memory_set_data_handle(m.w.get(), const_cast<std::byte*>(panel));
    dnnl_memory_set_data_handle(m.y.get(), acc);
    const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, m.x.get()},
                                         {DNNL_ARG_WEIGHTS, m.w.get()},
                                         {DNNL_ARG_DST, m.y.get()},
                                         {DNNL_ARG_SCRATCHPAD, m.scratch.get()}};
    dnnl::error::wrap_c_api(dnnl_primitive_execute(primitive_.get(), stream_.get(), 4, arguments), "oneDNN matmul");
  }

 private:
  struct Memory {
    dnnl::memory x, w, y, scratch;
  };
  dnnl::matmul primitive_;
  dnnl::stream stream_;
  std::vector<Memory> threads_;
};

std::unique_ptr<OneDnnTile> make_tile(WeightFormat format, int64_t groups, int num_threads) {
  using dnnl::memory;
  if (format == WeightFormat::kInt8) return nullptr;
  forbid_openmp();
  const bool f32 = format == WeightFormat::kF32;
  const memory::data_type type = f32 ? memory::data_type::f32 : memory::data_type::bf16;
  const memory::dim k = groups * kGroup;
  try {
    const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    const memory::desc x({OneDnnTile::kRows, k}, type, memory::format_tag::ab);
    const memory::desc w({k, kPanelWidth}, type, f32 ? memory::format_tag::BA16a64b : memory::format_tag::BA16a64b2a);
    const memory::desc y({OneDnnTile::kRows, kPanelWidth}, memory::data_type::f32, memory::format_tag::ab);
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    const dnnl::matmul::primitive_desc description({x, w, y}, attributes, engine);
    // Anything but its batch-reduce kernels would first reorder the weights, or is the slow reference.
    if (!std::string_view(description.impl_info_str()).starts_with("brg")) return nullptr;
    return std::make_unique<Tile>(engine, description, num_threads);
  } catch (const dnnl::error&) {  // not on this machine: our own kernels do it
    return nullptr;
  }
}

}  // namespace

OneDnnTile* OneDnn::tile(WeightFormat format, int64_t groups) {
  const auto [entry, added] = tiles_.try_emplace({format, groups});
  if (added) entry->second = make_tile(format, groups, num_threads_);
  return entry->second.get();
}

}  // namespace tinyserve::ops::linear
