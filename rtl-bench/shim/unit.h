// One unit behind a C interface: the table of functions that Rust calls, and the template that makes it.
//
// A cycle of the unit, as step() runs it:
//
//            cycle n             cycle n + 1
//          ┌─────────┐         ┌─────────┐
//  clk_i ──┘         └─────────┘         └──
//          ▲         ▲         ▲
//          │         │         └ registers take their next values: step() for cycle n returns
//          │         └ inputs of cycle n are driven, outputs of cycle n are read
//          └ cycle n begins
//
// A waveform has one nanosecond for a cycle, so that its time reads as the cycle's number.
#ifndef CRYPTONIC_UNIT_H
#define CRYPTONIC_UNIT_H

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>

#include "runtime.h"
#include "verilated.h"
#include "verilated_vcd_c.h"

extern "C" {

// What one build of a unit offers. No function lets an exception out.
struct UnitFunctions {
  uint32_t input_words;
  uint32_t output_words;
  // A unit before reset, with this mutant (0: none) and registers at values from this seed; null if it cannot be made.
  void* (*create)(uint32_t mutant, uint32_t seed);
  void (*destroy)(void* unit);
  // Two cycles in reset, with these inputs. Time goes on.
  void (*reset)(void* unit, const uint32_t* inputs);
  // One cycle.
  void (*step)(void* unit, const uint32_t* inputs, uint32_t* outputs);
  // The outputs that registers alone decide, as the next cycle will show them.
  void (*look)(void* unit, uint32_t* outputs);
  // Text of the first assertion or other failure since creation, or null. Valid until destroy().
  const char* (*failure)(void* unit);
  // Cycles since creation.
  uint64_t (*cycle)(void* unit);
  // Starts a waveform. False if the file cannot be opened or the build has no waveforms.
  bool (*trace_open)(void* unit, const char* path);
  void (*trace_close)(void* unit);
};

}  // extern "C"

// A file whose writes never fail towards Verilator: after one that does, its writer forgets to empty its buffer and runs past
// it. The first failure is told as Verilator tells its own, and the rest is thrown away.
class WaveFile final : public VerilatedVcdFile {
 public:
  void begin() { failed_ = false; }
  bool failed() const { return failed_; }

  ssize_t write(const char* octets, ssize_t length) override {
    if (failed_) return length;
    const ssize_t written = VerilatedVcdFile::write(octets, length);
    if (written >= 0) return written;
    if (errno == EAGAIN || errno == EINTR) return 0;
    failed_ = true;
    const std::string reason = std::string{"the waveform cannot be written: "} + std::strerror(errno);
    VL_FATAL_MT("", 0, "", reason.c_str());
    return length;
  }

 private:
  bool failed_ = false;
};

// Copies words into a port; bits past its width are dropped.
template <size_t Bits, typename T>
void put(T& port, const uint32_t* words) {
  if constexpr (Bits <= 32) {
    constexpr uint32_t kMask = Bits == 32 ? ~uint32_t{0} : (uint32_t{1} << (Bits % 32)) - 1;
    port = static_cast<T>(words[0] & kMask);
  } else if constexpr (Bits <= 64) {
    constexpr uint64_t kMask = Bits == 64 ? ~uint64_t{0} : (uint64_t{1} << (Bits % 64)) - 1;
    port = (words[0] | uint64_t{words[1]} << 32) & kMask;
  } else {
    constexpr size_t kWords = (Bits + 31) / 32;
    constexpr uint32_t kMask = Bits % 32 == 0 ? ~uint32_t{0} : (uint32_t{1} << (Bits % 32)) - 1;
    for (size_t i = 0; i < kWords; i++) port[i] = words[i];
    port[kWords - 1] &= kMask;
  }
}

// Copies a port out into words.
template <size_t Bits, typename T>
void get(const T& port, uint32_t* words) {
  if constexpr (Bits <= 32) {
    words[0] = port;
  } else if constexpr (Bits <= 64) {
    words[0] = static_cast<uint32_t>(port);
    words[1] = static_cast<uint32_t>(port >> 32);
  } else {
    for (size_t i = 0; i < (Bits + 31) / 32; i++) words[i] = port[i];
  }
}

template <typename Traits>
class Instance {
 public:
  Instance(uint32_t mutant, uint32_t seed) {
    Entered entered{record_, context_};
    // Before the first evaluation, or a waveform can never be had.
    context_.traceEverOn(Traits::kTraced);
    // Registers without a reset begin at any value, as they do in silicon.
    context_.randReset(2);
    context_.randSeed(static_cast<int>(seed & 0x3fffffff) + 1);
    model_ = std::make_unique<typename Traits::Model>(&context_, Traits::kName);
    // The first evaluation must already see it: combinational logic is not woken by this variable.
    Traits::select(*model_, mutant);
    model_->clk_i = 0;
    model_->rst_ni = 1;
    const uint32_t zeros[Traits::kInputWords] = {};
    Traits::drive(*model_, zeros);
    model_->eval();
  }

  ~Instance() {
    trace_close();
    Entered entered{record_, context_};
    model_.reset();
  }

  void reset(const uint32_t* inputs) {
    if (dead_) return;
    Entered entered{record_, context_};
    // A falling edge in any case, for registers with asynchronous reset.
    model_->rst_ni = 0;
    for (int i = 0; i < 2; i++) cycle(inputs, nullptr);
    model_->rst_ni = 1;
  }

  void step(const uint32_t* inputs, uint32_t* outputs) {
    if (dead_) return;
    Entered entered{record_, context_};
    cycle(inputs, outputs);
  }

  void look(uint32_t* outputs) const { Traits::sample(*model_, outputs); }

  const char* failure() const { return record_.failure(); }

  uint64_t cycles() const { return cycle_; }

  bool trace_open(const char* path) {
    if constexpr (Traits::kTraced) {
      trace_close();
      Entered entered{record_, context_};
      NoThrow no_throw{record_};
      wave_.begin();
      trace_ = std::make_unique<VerilatedVcdC>(&wave_);
      constexpr int kAllLevels = 99;
      model_->trace(trace_.get(), kAllLevels);
      trace_->open(path);
      if (trace_->isOpen()) {
        trace_->flush();
        if (!wave_.failed()) return true;
        trace_->close();
      }
      trace_.reset();
    }
    return false;
  }

  void trace_close() {
    if constexpr (Traits::kTraced) {
      Entered entered{record_, context_};
      NoThrow no_throw{record_};
      if (trace_ != nullptr) trace_->close();
      trace_.reset();
    }
  }

 private:
  void cycle(const uint32_t* inputs, uint32_t* outputs) {
    model_->clk_i = 0;
    Traits::drive(*model_, inputs);
    context_.time(cycle_ * kCycle + kCycle / 2);
    evaluate();
    if (outputs != nullptr) Traits::sample(*model_, outputs);
    dump();
    cycle_++;
    model_->clk_i = 1;
    context_.time(cycle_ * kCycle);
    evaluate();
    dump();
  }

  // After a fatal error the model is in no state to go on from.
  void evaluate() {
    try {
      model_->eval();
    } catch (...) {
      dead_ = true;
      throw;
    }
  }

  void dump() {
    if constexpr (Traits::kTraced) {
      NoThrow no_throw{record_};
      if (trace_ != nullptr) trace_->dump(context_.time());
    }
  }

  // Picoseconds, the waveform's precision.
  static constexpr uint64_t kCycle = 1000;

  // Before the model, which refers to it.
  VerilatedContext context_;
  Record record_;
  std::unique_ptr<typename Traits::Model> model_;
  // Before the waveform, which refers to it.
  WaveFile wave_;
  // Null where the build has no waveforms.
  std::unique_ptr<VerilatedVcdC> trace_;
  uint64_t cycle_ = 0;
  bool dead_ = false;
};

// The table of a unit. An error that Verilator cannot go on from is thrown as Fatal, after it was recorded: the
// outputs then keep what they were.
template <typename Traits>
constexpr UnitFunctions unit_functions() {
  using Unit = Instance<Traits>;
  return UnitFunctions{
      Traits::kInputWords,
      Traits::kOutputWords,
      [](uint32_t mutant, uint32_t seed) -> void* {
        try {
          if (mutant != 0 && !Traits::kMutants) return nullptr;
          return new Unit(mutant, seed);
        } catch (...) {
          return nullptr;
        }
      },
      [](void* unit) { delete static_cast<Unit*>(unit); },
      [](void* unit, const uint32_t* inputs) {
        try {
          static_cast<Unit*>(unit)->reset(inputs);
        } catch (...) {
        }
      },
      [](void* unit, const uint32_t* inputs, uint32_t* outputs) {
        try {
          static_cast<Unit*>(unit)->step(inputs, outputs);
        } catch (...) {
        }
      },
      [](void* unit, uint32_t* outputs) { static_cast<const Unit*>(unit)->look(outputs); },
      [](void* unit) { return static_cast<const Unit*>(unit)->failure(); },
      [](void* unit) { return static_cast<const Unit*>(unit)->cycles(); },
      [](void* unit, const char* path) {
        try {
          return static_cast<Unit*>(unit)->trace_open(path);
        } catch (...) {
          return false;
        }
      },
      [](void* unit) {
        try {
          static_cast<Unit*>(unit)->trace_close();
        } catch (...) {
        }
      },
  };
}

#endif  // CRYPTONIC_UNIT_H
