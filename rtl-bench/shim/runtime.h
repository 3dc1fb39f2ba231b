// What becomes of assertions, $stop, $finish, $display and fatal errors: Verilator's own answer is to print and to
// abort, and here they are recorded with the unit that they happened in.
#ifndef CRYPTONIC_RUNTIME_H
#define CRYPTONIC_RUNTIME_H

#include <string>

class VerilatedContext;

// What a unit said, and its first failure.
class Record {
 public:
  void print(const std::string& text);
  void fail(const std::string& text);
  // The first failure with what was printed before it, or null.
  const char* failure() const { return failed_ ? failure_.c_str() : nullptr; }
  // Whether a fatal error is thrown.
  bool throws = true;

 private:
  std::string printed_;
  std::string failure_;
  bool failed_ = false;
};

// While it lives, this thread runs the unit with this record and context. They nest.
class Entered {
 public:
  Entered(Record& record, VerilatedContext& context);
  ~Entered();
  Entered(const Entered&) = delete;
  Entered& operator=(const Entered&) = delete;

 private:
  Record* record_before_;
  VerilatedContext* context_before_;
};

// While it lives, fatal errors are recorded only. A full disk is one, and the writer of waveforms, which goes on by
// itself, also writes in its destructor.
class NoThrow {
 public:
  explicit NoThrow(Record& record) : record_{record}, before_{record.throws} { record_.throws = false; }
  ~NoThrow() { record_.throws = before_; }
  NoThrow(const NoThrow&) = delete;
  NoThrow& operator=(const NoThrow&) = delete;

 private:
  Record& record_;
  bool before_;
};

// Thrown by a fatal error, which was recorded.
struct Fatal {};

#endif  // CRYPTONIC_RUNTIME_H
