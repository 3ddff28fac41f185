//! The taxi functions in Zig, and a checksum. As in C (`../c/taxi.c`), the canonical ABI is a few lines: texts arrive as
//! pointer and length, a result is a struct in memory, and a call's memory is freed at once when the host has read it.

const std = @import("std");

/// All memory of one call; what it holds is kept for the next.
var arena: std.heap.ArenaAllocator = .init(std.heap.wasm_allocator);

export fn cabi_realloc(old: ?[*]u8, old_size: usize, alignment: usize, new_size: usize) ?[*]u8 {
    const block = arena.allocator().rawAlloc(new_size, .fromByteUnits(alignment), @returnAddress()) orelse @trap();
    if (old) |bytes| @memcpy(block[0..@min(old_size, new_size)], bytes[0..@min(old_size, new_size)]);
    return block;
}

fn freeAll(_: usize) callconv(.c) void {
    _ = arena.reset(.retain_capacity);
}

const String = extern struct {
    text: [*]const u8,
    length: usize,

    fn of(text: []const u8) String {
        return .{ .text = text.ptr, .length = text.len };
    }
};

const Row = extern struct { vendorid: i64, weekday: String, pickuphour: i64, passenger: i64, distance: f64 };

fn result(value: anytype) *const @TypeOf(value) {
    const place = arena.allocator().create(@TypeOf(value)) catch @trap();
    place.* = value;
    return place;
}

fn createArray(vendorid: String, weekday: String, pickuphour: String, passenger: String, distance: String) [5]String {
    return .{ vendorid, weekday, pickuphour, passenger, distance };
}

/// CRC-16/MODBUS of one byte each, made when this is compiled.
const table: [256]u16 = blk: {
    @setEvalBranchQuota(10_000);
    var entries: [256]u16 = undefined;
    for (&entries, 0..) |*entry, byte| {
        var crc: u16 = byte;
        for (0..8) |_| crc = if (crc & 1 == 1) (crc >> 1) ^ 0xA001 else crc >> 1;
        entry.* = crc;
    }
    break :blk entries;
};

fn crc16(frame: []const u8) error{ InvalidCharacter, InvalidLength }!u16 {
    if (frame.len % 2 != 0) return error.InvalidLength;
    var crc: u16 = 0xFFFF;
    var rest = frame;
    while (rest.len > 0) : (rest = rest[2..]) {
        const byte = try std.fmt.charToDigit(rest[0], 16) * 16 + try std.fmt.charToDigit(rest[1], 16);
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF];
    }
    return crc;
}

/// `result<u16, string>`: a tag, then what the tag says.
const Checked = extern struct { is_error: u8, of: extern union { crc: u16, message: String } };

fn checked(frame: []const u8) Checked {
    const crc = crc16(frame) catch |err| return .{ .is_error = 1, .of = .{ .message = .of(switch (err) {
        error.InvalidLength => "a frame has two hex digits a byte",
        error.InvalidCharacter => "a frame has hex digits alone",
    }) } };
    return .{ .is_error = 0, .of = .{ .crc = crc } };
}

// --- the exports, by the names of `../wit/taxi.wit`

fn exportedArray(v: [*]const u8, vn: usize, w: [*]const u8, wn: usize, h: [*]const u8, hn: usize, p: [*]const u8, pn: usize, d: [*]const u8, dn: usize) callconv(.c) *const [5]String {
    return result(createArray(.of(v[0..vn]), .of(w[0..wn]), .of(h[0..hn]), .of(p[0..pn]), .of(d[0..dn])));
}

fn exportedRow(vendorid: i64, w: [*]const u8, wn: usize, pickuphour: i64, passenger: i64, distance: f64) callconv(.c) *const Row {
    return result(Row{ .vendorid = vendorid, .weekday = .of(w[0..wn]), .pickuphour = pickuphour, .passenger = passenger, .distance = distance });
}

fn exportedCrc(text: [*]const u8, length: usize) callconv(.c) *const Checked {
    return result(checked(text[0..length]));
}

comptime {
    @export(&exportedArray, .{ .name = "create-array" });
    @export(&exportedRow, .{ .name = "create-row" });
    @export(&exportedCrc, .{ .name = "crc16" });
    for (.{ "create-array", "create-row", "crc16" }) |name| @export(&freeAll, .{ .name = "cabi_post_" ++ name });
}
