// udf.{{camel}}(value, low, high): where a value lies between two bounds, 0 to 1.
//
// There is no libc and there are no bindings; what the canonical ABI of WebAssembly components asks for is a few lines. A
// result that is not one number is a struct in memory, and its address is what the function gives. forebay reads it, then
// calls `cabi_post_…`.

#include <stddef.h>
#include <stdint.h>

#define EXPORT(name) __attribute__((export_name(name)))

// --- memory for the arguments: texts and lists come as address and length. Free again with the next call.

extern unsigned char __heap_base;
static uintptr_t next;

EXPORT("cabi_realloc") void *cabi_realloc(void *old, size_t old_size, size_t align, size_t new_size) {
    if (!next) next = (uintptr_t)&__heap_base;
    uintptr_t start = (next + align - 1) & ~(uintptr_t)(align - 1);
    uintptr_t end = start + new_size;
    uintptr_t have = (uintptr_t)__builtin_wasm_memory_size(0) << 16;
    if (end < start) __builtin_trap();
    if (end > have && __builtin_wasm_memory_grow(0, ((end - have) + 0xffff) >> 16) == (size_t)-1) __builtin_trap();
    next = end;
    if (old) __builtin_memcpy((void *)start, old, old_size < new_size ? old_size : new_size);
    return (void *)start;
}

// --- the function

typedef struct { const char *text; size_t length; } string;
typedef struct { uint8_t is_error; union { double value; string message; }; } fraction_or_error;

#define TEXT(literal) ((string){literal, sizeof literal - 1})

// The one result that there is at a time.
static fraction_or_error answer;

EXPORT("{{kebab}}") fraction_or_error *{{snake}}(double value, double low, double high) {
    if (!(low < high)) {
        answer = (fraction_or_error){.is_error = 1, .message = TEXT("low must be below high")};
        return &answer;
    }
    double fraction = (value - low) / (high - low);
    answer = (fraction_or_error){.value = fraction < 0 ? 0 : fraction > 1 ? 1 : fraction};
    return &answer;
}

EXPORT("cabi_post_{{kebab}}") void answer_was_read(fraction_or_error *given) { next = 0; }
