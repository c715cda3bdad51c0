#include "cli/interrupt.h"

#include <csignal>

#include <atomic>

#include "base/check.h"

namespace tinyserve::cli {
namespace {

// A signal handler can reach nothing but globals.
std::atomic<bool> interrupted{false};
std::atomic<sem_t*> wake_semaphore{nullptr};
std::atomic<bool> installed{false};
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<sem_t*>::is_always_lock_free);

extern "C" void on_interrupt(int) {
  interrupted.store(true);
  if (sem_t* s = wake_semaphore.load()) sem_post(s);
}

void mask_interrupts(int how) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  pthread_sigmask(how, &set, nullptr);
}

}  // namespace

InterruptHandler::InterruptHandler() {
  TS_CHECK(!installed.exchange(true), "only one InterruptHandler at a time");
  interrupted = false;
  struct sigaction action = {};
  action.sa_handler = on_interrupt;  // no SA_RESTART: reading a terminal must return
  sigaction(SIGINT, &action, nullptr);
}

InterruptHandler::~InterruptHandler() {
  std::signal(SIGINT, SIG_DFL);
  wake_semaphore = nullptr;
  installed = false;
}

bool InterruptHandler::take() { return interrupted.exchange(false); }
void InterruptHandler::set_wake(sem_t* wake) { wake_semaphore = wake; }

BlockInterrupts::BlockInterrupts() { mask_interrupts(SIG_BLOCK); }
BlockInterrupts::~BlockInterrupts() { mask_interrupts(SIG_UNBLOCK); }

}  // namespace tinyserve::cli
