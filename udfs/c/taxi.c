// The taxi functions in C, and a filter. No libc and no bindings: what the canonical ABI asks for is a few lines.
//
// Texts and lists arrive as (pointer, length) in memory that `cabi_realloc` gave. A result that is not one number is a
// struct in memory, laid out as in C, and its address is what the function gives. All of a call's memory is freed at
// once, by `cabi_post_…`, which the host calls when it has read the result.

#include <stddef.h>
#include <stdint.h>

#define EXPORT(name) __attribute__((export_name(name)))

// --- memory: a bump allocator that starts afresh with each call

extern unsigned char __heap_base;
static uintptr_t next;

static void *allocate(size_t align, size_t size) {
    if (!next) next = (uintptr_t)&__heap_base;
    uintptr_t start = (next + align - 1) & ~(uintptr_t)(align - 1);
    uintptr_t end = start + size;
    uintptr_t have = (uintptr_t)__builtin_wasm_memory_size(0) << 16;
    if (end < start) __builtin_trap();
    if (end > have && __builtin_wasm_memory_grow(0, ((end - have) + 0xffff) >> 16) == (size_t)-1) __builtin_trap();
    next = end;
    return (void *)start;
}

EXPORT("cabi_realloc") void *cabi_realloc(void *old, size_t old_size, size_t align, size_t new_size) {
    void *block = allocate(align, new_size);
    if (old) __builtin_memcpy(block, old, old_size < new_size ? old_size : new_size);
    return block;
}

static void free_all(void) { next = 0; }

// --- what WIT's types are in memory

typedef struct { const char *text; size_t length; } string;
typedef struct { string vendorid, weekday, pickuphour, passenger, distance; } features;
typedef struct { int64_t vendorid; string weekday; int64_t pickuphour, passenger; double distance; } row;
typedef struct { const double *items; size_t length; } doubles;
typedef struct { uint8_t is_error; union { doubles values; string message; }; } smoothed;

#define TEXT(literal) ((string){literal, sizeof literal - 1})

// --- the functions

EXPORT("create-array")
features *create_array(const char *v, size_t v_length, const char *w, size_t w_length, const char *h, size_t h_length, const char *p,
                       size_t p_length, const char *d, size_t d_length) {
    features *result = allocate(_Alignof(features), sizeof *result);
    *result = (features){{v, v_length}, {w, w_length}, {h, h_length}, {p, p_length}, {d, d_length}};
    return result;
}

EXPORT("create-row")
row *create_row(int64_t vendorid, const char *w, size_t w_length, int64_t pickuphour, int64_t passenger, double distance) {
    row *result = allocate(_Alignof(row), sizeof *result);
    *result = (row){vendorid, {w, w_length}, pickuphour, passenger, distance};
    return result;
}

// The tangent between 0 and pi/2, by its continued fraction: there is no libm here.
static double tangent(double x) {
    double square = x * x, fraction = 0;
    for (int k = 25; k >= 3; k -= 2) fraction = square / (k - fraction);
    return x / (1 - fraction);
}

EXPORT("smooth")
smoothed *smooth(const double *values, size_t length, double cutoff) {
    smoothed *result = allocate(_Alignof(smoothed), sizeof *result);
    if (!(cutoff > 0 && cutoff < 0.5)) {
        *result = (smoothed){.is_error = 1, .message = TEXT("cutoff is a fraction of the sampling rate, between 0 and 0.5")};
        return result;
    }
    // the bilinear transform of 1 / (s^2 + sqrt(2) s + 1)
    double k = tangent(3.14159265358979323846 * cutoff), root2 = 1.41421356237309504880;
    double norm = 1 / (1 + root2 * k + k * k);
    double b = k * k * norm, a1 = 2 * (k * k - 1) * norm, a2 = (1 - root2 * k + k * k) * norm;
    double *filtered = allocate(_Alignof(double), length * sizeof *filtered);
    // as if the first value had been there for ever: no swing at the start
    double x1 = length ? values[0] : 0, x2 = x1, y1 = x1, y2 = x1;
    for (size_t i = 0; i < length; i++) {
        double x = values[i], y = b * (x + 2 * x1 + x2) - a1 * y1 - a2 * y2;
        x2 = x1, x1 = x, y2 = y1, y1 = y;
        filtered[i] = y;
    }
    *result = (smoothed){.values = {filtered, length}};
    return result;
}

EXPORT("cabi_post_create-array") void free_array(features *result) { free_all(); }
EXPORT("cabi_post_create-row") void free_row(row *result) { free_all(); }
EXPORT("cabi_post_smooth") void free_smoothed(smoothed *result) { free_all(); }
