;; The taxi functions by hand, and a scale. A core module: `scale` takes and gives numbers, the others take their arguments
;; as one JSON array and give JSON (see wit/core-abi.md).
;;
;; Memory: names of fields from 0, the result from 256, the arguments from 65536. `alloc` gives that place again and again,
;; grown when it must be.
(module
  (memory (export "memory") 2)

  ;; length, then text: what stands before each argument in the record
  (data (i32.const 0)  "\0c{\"vendorid\":")
  (data (i32.const 16) "\0b,\"weekday\":")
  (data (i32.const 32) "\0e,\"pickuphour\":")
  (data (i32.const 48) "\0d,\"passenger\":")
  (data (i32.const 64) "\0c,\"distance\":")
  (data (i32.const 80) "takes 5 arguments")
  (data (i32.const 128) "the arguments are too long")

  (global $arguments i32 (i32.const 65536))
  (global $result i32 (i32.const 256))
  ;; the result is longer than the arguments by its names, 62 bytes
  (global $room i32 (i32.const 65024))

  ;; what a raw reading of 0 to 4095 (a 12-bit converter) means between `low` and `high`
  (func (export "scale") (param $raw i64) (param $low f64) (param $high f64) (result f64)
    (f64.add (local.get $low)
      (f64.mul (f64.sub (local.get $high) (local.get $low))
        (f64.div (f64.convert_i64_s (local.get $raw)) (f64.const 4095)))))

  (func (export "forebay_alloc") (param $size i32) (result i32)
    (local $missing i32)
    (local.set $missing
      (i32.sub (i32.add (global.get $arguments) (local.get $size)) (i32.mul (memory.size) (i32.const 65536))))
    (if (i32.gt_s (local.get $missing) (i32.const 0))
      (then
        (if (i32.eq (memory.grow (i32.shr_u (i32.add (local.get $missing) (i32.const 65535)) (i32.const 16))) (i32.const -1))
          (then (return (i32.const 0))))))
    (global.get $arguments))

  ;; where the element that begins at $at ends: at the comma or bracket behind it
  (func $end_of_element (param $at i32) (result i32)
    (local $c i32) (local $depth i32)
    (loop $next
      (local.set $c (i32.load8_u (local.get $at)))
      (if (i32.eq (local.get $c) (i32.const 0x22))                        ;; a text: on to its closing quote
        (then
          (loop $text
            (local.set $at (i32.add (local.get $at) (i32.const 1)))
            (local.set $c (i32.load8_u (local.get $at)))
            (if (i32.eq (local.get $c) (i32.const 0x5c))
              (then (local.set $at (i32.add (local.get $at) (i32.const 1))) (br $text)))
            (br_if $text (i32.ne (local.get $c) (i32.const 0x22))))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br $next)))
      (if (i32.eqz (local.get $depth))
        (then (if (i32.or (i32.eq (local.get $c) (i32.const 0x2c)) (i32.eq (local.get $c) (i32.const 0x5d)))
          (then (return (local.get $at))))))
      ;; [ and { differ from ] and } by 2
      (if (i32.or (i32.eq (local.get $c) (i32.const 0x5b)) (i32.eq (local.get $c) (i32.const 0x7b)))
        (then (local.set $depth (i32.add (local.get $depth) (i32.const 1)))))
      (if (i32.or (i32.eq (local.get $c) (i32.const 0x5d)) (i32.eq (local.get $c) (i32.const 0x7d)))
        (then (local.set $depth (i32.sub (local.get $depth) (i32.const 1)))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br $next))
    unreachable)

  ;; how many elements the array at $at has; an empty one ends at once
  (func $count (param $at i32) (result i32)
    (local $n i32)
    (if (i32.eq (i32.load8_u offset=1 (local.get $at)) (i32.const 0x5d)) (then (return (i32.const 0))))
    (loop $next
      (local.set $at (call $end_of_element (i32.add (local.get $at) (i32.const 1))))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $next (i32.eq (i32.load8_u (local.get $at)) (i32.const 0x2c))))
    (local.get $n))

  (func $give (param $p i32) (param $n i32) (result i64)
    (i64.or (i64.shl (i64.extend_i32_u (local.get $p)) (i64.const 32)) (i64.extend_i32_u (local.get $n))))

  (func $fail (param $p i32) (param $n i32) (result i64)
    (i64.or (call $give (local.get $p) (local.get $n)) (i64.const 0x80000000)))

  ;; the array of five is what came
  (func (export "forebay_json_create_array") (param $p i32) (param $n i32) (result i64)
    (if (i32.ne (call $count (local.get $p)) (i32.const 5)) (then (return (call $fail (i32.const 80) (i32.const 17)))))
    (call $give (local.get $p) (local.get $n)))

  (func (export "forebay_json_create_row") (param $p i32) (param $n i32) (result i64)
    (local $name i32) (local $to i32) (local $end i32) (local $length i32)
    (if (i32.ne (call $count (local.get $p)) (i32.const 5)) (then (return (call $fail (i32.const 80) (i32.const 17)))))
    (if (i32.gt_u (local.get $n) (global.get $room)) (then (return (call $fail (i32.const 128) (i32.const 26)))))
    (local.set $to (global.get $result))
    (loop $field
      ;; the name
      (local.set $length (i32.load8_u (local.get $name)))
      (memory.copy (local.get $to) (i32.add (local.get $name) (i32.const 1)) (local.get $length))
      (local.set $to (i32.add (local.get $to) (local.get $length)))
      ;; the value: from behind the bracket or comma
      (local.set $p (i32.add (local.get $p) (i32.const 1)))
      (local.set $end (call $end_of_element (local.get $p)))
      (local.set $length (i32.sub (local.get $end) (local.get $p)))
      (memory.copy (local.get $to) (local.get $p) (local.get $length))
      (local.set $to (i32.add (local.get $to) (local.get $length)))
      (local.set $p (local.get $end))
      (local.set $name (i32.add (local.get $name) (i32.const 16)))
      (br_if $field (i32.lt_u (local.get $name) (i32.const 80))))
    (i32.store8 (local.get $to) (i32.const 0x7d))
    (call $give (global.get $result) (i32.sub (i32.add (local.get $to) (i32.const 1)) (global.get $result)))))
