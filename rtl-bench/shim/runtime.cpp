#include "runtime.h"

#include <cstdarg>
#include <cstdio>
#include <string>

#include "print.h"
#include "verilated.h"

namespace {

// The unit that this thread runs.
thread_local Record* current_record = nullptr;

// A design that prints in every cycle must not eat the memory.
constexpr size_t kPrintedMost = 16384;

std::string located(const char* file, int line, const char* text) {
  if (file == nullptr || file[0] == '\0') return text;
  return std::string{file} + ":" + std::to_string(line) + ": " + text;
}

void fail(const std::string& text) {
  if (current_record != nullptr) {
    current_record->fail(text);
  } else {
    std::fprintf(stderr, "%s\n", text.c_str());
  }
}

}  // namespace

void Record::print(const std::string& text) {
  if (printed_.size() < kPrintedMost) printed_ += text;
}

void Record::fail(const std::string& text) {
  if (failed_) return;
  failed_ = true;
  failure_ = printed_ + text;
}

Entered::Entered(Record& record, VerilatedContext& context)
    : record_before_{current_record}, context_before_{Verilated::threadContextp()} {
  current_record = &record;
  Verilated::threadContextp(&context);
}

Entered::~Entered() {
  current_record = record_before_;
  Verilated::threadContextp(context_before_);
}

extern "C" int cryptonic_rtl_print(const char* format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  const int length = std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (current_record != nullptr) current_record->print(text);
  return length;
}

// An assertion has printed its message before it stops; the run goes on.
void vl_stop(const char* file, int line, const char*) { fail(located(file, line, "$stop or a failed assertion")); }

void vl_finish(const char* file, int line, const char*) { fail(located(file, line, "$finish")); }

void vl_fatal(const char* file, int line, const char*, const char* message) {
  fail(located(file, line, message));
  if (current_record == nullptr || current_record->throws) throw Fatal{};
}
