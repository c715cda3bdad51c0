#pragma once
// Ctrl-C. SIGINT is turned into a flag that the code in charge asks for, and a post on its semaphore so that it need
// not poll.

#include <semaphore.h>

namespace tinyserve::cli {

/// While it lives, SIGINT no longer ends the program: it sets a flag and posts `wake`. System calls that wait (reading
/// a terminal) return with EINTR. One at a time.
class InterruptHandler {
 public:
  InterruptHandler();
  ~InterruptHandler();
  InterruptHandler(const InterruptHandler&) = delete;
  InterruptHandler& operator=(const InterruptHandler&) = delete;

  /// Whether SIGINT came since the last call.
  bool take();
  /// Posted once per SIGINT while not null.
  void set_wake(sem_t* wake);
};

/// Threads that start while it lives leave SIGINT to the thread that made it, which hears of it again afterwards.
class BlockInterrupts {
 public:
  BlockInterrupts();
  ~BlockInterrupts();
  BlockInterrupts(const BlockInterrupts&) = delete;
  BlockInterrupts& operator=(const BlockInterrupts&) = delete;
};

}  // namespace tinyserve::cli
