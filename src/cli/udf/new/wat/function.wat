;; udf.{{camel}}(value, low, high): where a value lies between two bounds, 0 to 1. A core module: an export that takes and
;; gives numbers is a function of SQL directly. Texts, records and errors with words go as JSON: see wit/core-abi.md of forebay.
(module
  ;; no number (null in rows) when `low` is not below `high`
  (func (export "{{snake}}") (param $value f64) (param $low f64) (param $high f64) (result f64)
    (if (i32.eqz (f64.lt (local.get $low) (local.get $high))) (then (return (f64.const nan))))
    (f64.min (f64.const 1) (f64.max (f64.const 0)
      (f64.div (f64.sub (local.get $value) (local.get $low)) (f64.sub (local.get $high) (local.get $low)))))))
