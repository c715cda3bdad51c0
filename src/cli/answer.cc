#include "cli/answer.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "base/check.h"
#include "cli/interrupt.h"
#include "cli/output_queue.h"
#include "engine/engine_thread.h"

namespace tinyserve::cli {
namespace {

double now_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// However the answer ends, nothing of it goes on: cancelling a request that is done does nothing.
class CancelAtEnd {
 public:
  CancelAtEnd(EngineThread& engine, uint64_t id, InterruptHandler& interrupts)
      : engine_(engine), id_(id), interrupts_(interrupts) {}
  ~CancelAtEnd() {
    interrupts_.set_wake(nullptr);
    engine_.cancel(id_);
  }

 private:
  EngineThread& engine_;
  uint64_t id_;
  InterruptHandler& interrupts_;
};

const char* finish_text(const Answer& a) {
  if (a.interrupted) return "interrupted";
  switch (a.finish) {
    case FinishReason::kStop: return "complete";
    case FinishReason::kLength: return "cut off by the length limit";
    default: return "aborted";
  }
}

}  // namespace

Answer stream_answer(EngineThread& engine, Request request, InterruptHandler& interrupts,
                     const std::function<void(std::string_view)>& write) {
  TS_CHECK(request.sampling.n == 1, "one answer at a time");
  // Shared with the sink: should `write` throw, the engine may still push to it before it hears of the cancellation.
  const auto queue = std::make_shared<OutputQueue>();
  Answer answer;
  interrupts.take();  // a Ctrl-C from before the question is not about the answer
  const double start = now_s();
  const uint64_t id = engine.submit(std::move(request), [queue](Output&& output) { queue->push(std::move(output)); });
  const CancelAtEnd cancel(engine, id, interrupts);
  interrupts.set_wake(queue->semaphore());
  for (bool done = false; !done;) {
    std::optional<Output> output = queue->pop();
    if (interrupts.take() && !answer.interrupted) {
      answer.interrupted = true;
      engine.cancel(id);
    }
    if (!output) continue;
    if (output->first) {
      answer.prompt_tokens = output->prompt_tokens;
      answer.cached_prompt_tokens = output->cached_prompt_tokens;
    }
    if (!output->token_ids.empty() && answer.tokens == 0) answer.first_token_s = now_s() - start;
    answer.tokens += static_cast<int32_t>(output->token_ids.size());
    if (!output->text.empty() && !answer.interrupted) {
      answer.text += output->text;
      write(output->text);
    }
    if (output->finish != FinishReason::kNone) answer.finish = output->finish;
    done = output->request_done;
    if (done) answer.selection = output->selection;
  }
  answer.total_s = now_s() - start;
  return answer;
}

std::string describe(const Answer& a) {
  std::string text = fmt::format("{} prompt tokens", a.prompt_tokens);
  if (a.cached_prompt_tokens > 0) text += fmt::format(" ({} cached)", a.cached_prompt_tokens);
  text += fmt::format(", first token after {:.0f} ms; {} tokens", a.first_token_s * 1e3, a.tokens);
  const double decode_s = a.total_s - a.first_token_s;
  if (a.tokens > 1 && decode_s > 0) text += fmt::format(" at {:.1f} tokens/s", (a.tokens - 1) / decode_s);
  return text + ", " + finish_text(a);
}

std::string describe_selection(const SelectionAccount& read) {
  if (read.reads == 0) return {};
  const auto n = static_cast<double>(read.reads);
  std::string text =
      fmt::format("read 1/{:.1f} of K/V: {:.1f}% of the attention exactly, {:.1f}% in codes, {:.2f}% estimated",
                  read.dense_bytes / read.bytes, 100 * read.exact_share / n, 100 * read.coded_share / n,
                  100 * read.estimated_share / n);
  const AuditSums& a = read.audit;
  if (a.reads == 0) return text;
  const Interval error = a.estimated_error.interval(a.reads);
  const double counted = a.estimated / static_cast<double>(a.reads);
  text +=
      fmt::format("; audited: {:.2f}% ({:.2f}% to {:.2f}%) estimated, off by {:+.2f}%", 100 * (counted + error.mean),
                  100 * std::max(0.0, counted + error.low), 100 * (counted + error.high), 100 * error.mean);
  if (a.checked > 0)
    text += fmt::format("; recomputed densely: {:.2f}%, output off by {:.1f}%",
                        100 * a.true_estimated / static_cast<double>(a.checked),
                        100 * a.output_error / static_cast<double>(a.checked));
  return text;
}

std::string terminal_safe(std::string_view text) {
  std::string safe;
  safe.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    // C1 controls are two bytes in UTF-8: C2 80 to C2 9F.
    const bool c1 = c == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0;
    if (c1) {
      safe += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[++i]));
    } else if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f) {
      safe += fmt::format("\\x{:02x}", c);
    } else {
      safe += text[i];
    }
  }
  return safe;
}

}  // namespace tinyserve::cli
