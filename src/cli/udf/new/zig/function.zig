//! `udf.{{camel}}(value, low, high)`: where a value lies between two bounds, 0 to 1.
//!
//! What the canonical ABI of WebAssembly components asks for is a few lines: a result that is not one number is a struct in
//! memory, and its address is what the export gives. A call's memory is freed when forebay has read it.

const std = @import("std");

fn fractionOf(value: f64, low: f64, high: f64) error{BoundsInDisorder}!f64 {
    if (!(low < high)) return error.BoundsInDisorder;
    return std.math.clamp((value - low) / (high - low), 0, 1);
}

// --- the export, by the name and types of `wit/world.wit`

const String = extern struct { text: [*]const u8, length: usize };

/// `result<f64, string>`: a tag, then what the tag says.
const Answer = extern struct { is_error: u8, of: extern union { value: f64, message: String } };

fn exported(value: f64, low: f64, high: f64) callconv(.c) *const Answer {
    const answer = arena.allocator().create(Answer) catch @trap();
    if (fractionOf(value, low, high)) |fraction| {
        answer.* = .{ .is_error = 0, .of = .{ .value = fraction } };
    } else |err| switch (err) {
        error.BoundsInDisorder => {
            const words = "low must be below high";
            answer.* = .{ .is_error = 1, .of = .{ .message = .{ .text = words.ptr, .length = words.len } } };
        },
    }
    return answer;
}

fn freeAll(_: usize) callconv(.c) void {
    _ = arena.reset(.retain_capacity);
}

comptime {
    @export(&exported, .{ .name = "{{kebab}}" });
    @export(&freeAll, .{ .name = "cabi_post_{{kebab}}" });
}

/// All memory of one call: of results, and of texts and lists among the arguments.
var arena: std.heap.ArenaAllocator = .init(std.heap.wasm_allocator);

export fn cabi_realloc(old: ?[*]u8, old_size: usize, alignment: usize, new_size: usize) ?[*]u8 {
    const block = arena.allocator().rawAlloc(new_size, .fromByteUnits(alignment), @returnAddress()) orelse @trap();
    if (old) |bytes| @memcpy(block[0..@min(old_size, new_size)], bytes[0..@min(old_size, new_size)]);
    return block;
}
