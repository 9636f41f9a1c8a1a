;; Measures the JSON text of its input: how many bytes it has, and how many characters.
;;
;; A component is WebAssembly with a typed face. This one exports what the executor calls,
;; `run: func(input: string) -> result<string, string>`, and one instance answers many inputs. It is kept as
;; text, so that it can be read; a `.wasm` that `cargo component` or `componentize-py` made does as well.
(component
  (core module $code
    (memory (export "memory") 1)

    ;; The answer is put together at 256; the input stands from 1024 on.
    (data (i32.const 64) "{\"bytes\":")
    (data (i32.const 96) ",\"characters\":")
    (data (i32.const 128) "}")

    ;; Room for an input. Each may overwrite the one before, which was answered.
    (func (export "realloc") (param $old i32) (param $old_bytes i32) (param $align i32) (param $bytes i32)
      (result i32)
      (block $enough
        (loop $more
          (br_if $enough
            (i32.le_u
              (i32.add (local.get $bytes) (i32.const 1024))
              (i32.mul (memory.size) (i32.const 65536))))
          (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
        (unreachable))
      (i32.const 1024))

    ;; Every byte of UTF-8 begins a character, but for those that begin with the bits 10.
    (func $characters (param $at i32) (param $end i32) (result i32)
      (local $count i32)
      (block $done
        (loop $next
          (br_if $done (i32.eq (local.get $at) (local.get $end)))
          (local.set $count
            (i32.add
              (local.get $count)
              (i32.ne
                (i32.and (i32.load8_u (local.get $at)) (i32.const 0xc0))
                (i32.const 0x80))))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br $next)))
      (local.get $count))

    ;; Both give where the text that they wrote ends.
    (func $write (param $at i32) (param $text i32) (param $bytes i32) (result i32)
      (memory.copy (local.get $at) (local.get $text) (local.get $bytes))
      (i32.add (local.get $at) (local.get $bytes)))

    (func $write_number (param $at i32) (param $number i32) (result i32)
      (if (i32.ge_u (local.get $number) (i32.const 10))
        (then
          (local.set $at
            (call $write_number (local.get $at) (i32.div_u (local.get $number) (i32.const 10))))))
      (i32.store8
        (local.get $at)
        (i32.add (i32.const 48) (i32.rem_u (local.get $number) (i32.const 10))))
      (i32.add (local.get $at) (i32.const 1)))

    ;; What comes back is where the result is: 0 for "ok" at 16, the text's address at 20, its length at 24.
    (func (export "run") (param $input i32) (param $bytes i32) (result i32)
      (local $end i32)
      (local.set $end (call $write (i32.const 256) (i32.const 64) (i32.const 9)))
      (local.set $end (call $write_number (local.get $end) (local.get $bytes)))
      (local.set $end (call $write (local.get $end) (i32.const 96) (i32.const 14)))
      (local.set $end
        (call $write_number
          (local.get $end)
          (call $characters (local.get $input) (i32.add (local.get $input) (local.get $bytes)))))
      (local.set $end (call $write (local.get $end) (i32.const 128) (i32.const 1)))
      (i32.store (i32.const 16) (i32.const 0))
      (i32.store (i32.const 20) (i32.const 256))
      (i32.store (i32.const 24) (i32.sub (local.get $end) (i32.const 256)))
      (i32.const 16)))

  (core instance $made (instantiate $code))

  (func $run (param "input" string) (result (result string (error string)))
    (canon lift
      (core func $made "run")
      (memory (core memory $made "memory"))
      (realloc (core func $made "realloc"))))

  (export "run" (func $run)))
