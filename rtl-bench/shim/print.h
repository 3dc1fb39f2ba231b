// Seen first by Verilator's runtime, whose output goes here by the macro VL_PRINTF.
#ifndef CRYPTONIC_PRINT_H
#define CRYPTONIC_PRINT_H

extern "C" int cryptonic_rtl_print(const char* format, ...) __attribute__((format(printf, 1, 2)));

#endif  // CRYPTONIC_PRINT_H
