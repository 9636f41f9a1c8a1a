//! The guests that the tests run, as text: commands of WASI preview 1, and components.

/// A command: imports of WASI, one page of memory or more, and what its `_start` does.
pub fn command(start: &str) -> String {
    format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "environ_sizes_get"
                (func $environ_sizes_get (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "environ_get" (func $environ_get (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "path_open"
                (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
            (memory (export "memory") 2)
            (data (i32.const 100) "said on stderr\n")
            (data (i32.const 200) "greeting.txt")
            (data (i32.const 300) "0")
            ;; Prints these bytes to a descriptor, all of them.
            (func $print (param $fd i32) (param $at i32) (param $bytes i32)
                (block $done (loop $more
                    (br_if $done (i32.eqz (local.get $bytes)))
                    (i32.store (i32.const 0) (local.get $at))
                    (i32.store (i32.const 4) (local.get $bytes))
                    (br_if $done (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)))
                    (local.set $at (i32.add (local.get $at) (i32.load (i32.const 8))))
                    (local.set $bytes (i32.sub (local.get $bytes) (i32.load (i32.const 8))))
                    (br $more))))
            ;; Prints all that can be read from a descriptor.
            (func $copy (param $from i32) (param $to i32)
                (block $done (loop $more
                    (i32.store (i32.const 0) (i32.const 1024))
                    (i32.store (i32.const 4) (i32.const 4096))
                    (br_if $done (call $fd_read (local.get $from) (i32.const 0) (i32.const 1) (i32.const 8)))
                    (br_if $done (i32.eqz (i32.load (i32.const 8))))
                    (call $print (local.get $to) (i32.const 1024) (i32.load (i32.const 8)))
                    (br $more))))
            (func $complain (call $print (i32.const 2) (i32.const 100) (i32.const 15)))
            (func $recurse (param i32) (result i32)
                (i32.add (local.get 0) (call $recurse (i32.add (local.get 0) (i32.const 1)))))
            (func (export "_start") {start}))"#
    )
}

/// Its standard input is its output.
pub const ECHO: &str = "(call $copy (i32.const 0) (i32.const 1))";

/// It never ends.
pub const SPIN: &str = "(call $complain) (loop $on (br $on))";

/// It prints its arguments, then its environment, each with a zero byte.
pub const TELL: &str = "
    (drop (call $args_sizes_get (i32.const 16) (i32.const 20)))
    (drop (call $args_get (i32.const 1024) (i32.const 8192)))
    (call $print (i32.const 1) (i32.const 8192) (i32.load (i32.const 20)))
    (drop (call $environ_sizes_get (i32.const 16) (i32.const 20)))
    (drop (call $environ_get (i32.const 1024) (i32.const 8192)))
    (call $print (i32.const 1) (i32.const 8192) (i32.load (i32.const 20)))";

/// It wants all the memory that there is.
pub const GROW: &str =
    "(loop $on (br_if $on (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)";

/// It prints without end.
pub const FLOOD: &str = "(loop $on (call $print (i32.const 1) (i32.const 1024) (i32.const 65536)) (br $on))";

/// It waits for an hour.
pub const SLEEP: &str = "
    (i32.store (i32.const 1040) (i32.const 1))
    (i64.store (i32.const 1048) (i64.const 3600000000000))
    (drop (call $poll_oneoff (i32.const 1024) (i32.const 2048) (i32.const 1) (i32.const 16)))";

/// It prints `greeting.txt` of its first folder, then tries to make another file, and prints the error's digit.
pub const READ_FOLDER: &str = "
    (if (i32.eqz (call $path_open (i32.const 3) (i32.const 0) (i32.const 200) (i32.const 12)
            (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 24)))
        (then (call $copy (i32.load (i32.const 24)) (i32.const 1))))
    (if (call $path_open (i32.const 3) (i32.const 0) (i32.const 201) (i32.const 11)
            (i32.const 1) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 24))
        (then (call $print (i32.const 1) (i32.const 300) (i32.const 1))))";

/// It opens `greeting.txt` again and again.
pub const OPEN: &str = "
    (loop $on
        (drop (call $path_open (i32.const 3) (i32.const 0) (i32.const 200) (i32.const 12)
            (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 24)))
        (br $on))";

/// A component with `run`; `body` leaves the address of its answer, and may call `$answer` to make one.
pub fn function(body: &str) -> String {
    format!(
        r#"(component
            (core module $code
                (memory (export "memory") 1)
                (global $runs (mut i32) (i32.const 0))
                (func (export "realloc") (param i32 i32 i32) (param $bytes i32) (result i32)
                    (block $fits (loop $more
                        (br_if $fits (i32.ge_u
                            (i32.mul (memory.size) (i32.const 65536))
                            (i32.add (local.get $bytes) (i32.const 4096))))
                        (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))
                        (unreachable)))
                    (i32.const 4096))
                ;; The answer is an error or not, and a text.
                (func $answer (param $is_err i32) (param $at i32) (param $bytes i32) (result i32)
                    (i32.store (i32.const 16) (local.get $is_err))
                    (i32.store (i32.const 20) (local.get $at))
                    (i32.store (i32.const 24) (local.get $bytes))
                    (i32.const 16))
                (func (export "run") (param $at i32) (param $bytes i32) (result i32)
                    (local $left i32)
                    (global.set $runs (i32.add (global.get $runs) (i32.const 1)))
                    {body}))
            (core instance $made (instantiate $code))
            (func $run (param "input" string) (result (result string (error string)))
                (canon lift (core func $made "run")
                    (memory (core memory $made "memory")) (realloc (core func $made "realloc"))))
            (export "run" (func $run)))"#
    )
}

/// Its input is its answer.
pub const SAME: &str = "(call $answer (i32.const 0) (local.get $at) (local.get $bytes))";

/// Its input is why it failed.
pub const REFUSE: &str = "(call $answer (i32.const 1) (local.get $at) (local.get $bytes))";

/// How often this instance has run, as one digit.
pub const COUNT: &str = "
    (i32.store8 (i32.const 32) (i32.add (global.get $runs) (i32.const 48)))
    (call $answer (i32.const 0) (i32.const 32) (i32.const 1))";

/// As [`COUNT`]; but an input that is longer than `{}` makes it trap.
pub const COUNT_OR_TRAP: &str = "
    (if (i32.gt_u (local.get $bytes) (i32.const 2)) (then (unreachable)))
    (i32.store8 (i32.const 32) (i32.add (global.get $runs) (i32.const 48)))
    (call $answer (i32.const 0) (i32.const 32) (i32.const 1))";

/// As [`COUNT`]; but an input that is longer than `{}` makes it go on for ever.
pub const COUNT_OR_SPIN: &str = "
    (if (i32.gt_u (local.get $bytes) (i32.const 2)) (then (loop $on (br $on))))
    (i32.store8 (i32.const 32) (i32.add (global.get $runs) (i32.const 48)))
    (call $answer (i32.const 0) (i32.const 32) (i32.const 1))";

/// It works for some milliseconds, then answers as [`COUNT`].
pub const WORK: &str = "
    (local.set $left (i32.const 20000000))
    (loop $on (br_if $on (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    (i32.store8 (i32.const 32) (i32.add (global.get $runs) (i32.const 48)))
    (call $answer (i32.const 0) (i32.const 32) (i32.const 1))";

/// It answers with 8 MiB of zeros.
pub const LONG: &str = "
    (drop (memory.grow (i32.const 128)))
    (call $answer (i32.const 0) (i32.const 0) (i32.const 8388608))";

/// A component of the world `wasi:cli/command` that prints `"hello"`, then succeeds or not.
pub fn command_component(is_err: bool) -> String {
    let is_err = u8::from(is_err);
    format!(
        r#"(component
            (import "wasi:io/error@0.2.0" (instance $io-error (export "error" (type (sub resource)))))
            (alias export $io-error "error" (type $error))
            (import "wasi:io/streams@0.2.0" (instance $streams
                (export "output-stream" (type $stream (sub resource)))
                (alias outer 1 $error (type $outer-error))
                (export "error" (type $own-error (eq $outer-error)))
                (type $failure (variant (case "last-operation-failed" (own $own-error)) (case "closed")))
                (export "stream-error" (type $stream-error (eq $failure)))
                (export "[method]output-stream.blocking-write-and-flush"
                    (func (param "self" (borrow $stream)) (param "contents" (list u8))
                        (result (result (error $stream-error)))))))
            (alias export $streams "output-stream" (type $stream))
            (import "wasi:cli/stdout@0.2.0" (instance $stdout
                (alias outer 1 $stream (type $outer-stream))
                (export "output-stream" (type $own-stream (eq $outer-stream)))
                (export "get-stdout" (func (result (own $own-stream))))))
            (core module $memory (memory (export "memory") 1))
            (core instance $memory (instantiate $memory))
            (core func $get-stdout (canon lower (func $stdout "get-stdout")))
            (core func $write (canon lower
                (func $streams "[method]output-stream.blocking-write-and-flush")
                (memory (core memory $memory "memory"))))
            (core module $code
                (import "host" "memory" (memory 1))
                (import "host" "get-stdout" (func $get-stdout (result i32)))
                (import "host" "write" (func $write (param i32 i32 i32 i32)))
                (data (i32.const 64) "\"hello\"")
                (func (export "run") (result i32)
                    (call $write (call $get-stdout) (i32.const 64) (i32.const 7) (i32.const 16))
                    (i32.const {is_err})))
            (core instance $made (instantiate $code (with "host" (instance
                (export "memory" (memory $memory "memory"))
                (export "get-stdout" (func $get-stdout))
                (export "write" (func $write))))))
            (func $run (result (result)) (canon lift (core func $made "run")))
            (instance $cli (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $cli)))"#
    )
}

/// A component that connects to that port of this machine, and says how far it came.
pub fn connecting(port: u16) -> String {
    format!(
        r#"(component
            (import "wasi:io/poll@0.2.0" (instance $poll (export "pollable" (type (sub resource)))))
            (import "wasi:io/streams@0.2.0" (instance $streams
                (export "input-stream" (type (sub resource)))
                (export "output-stream" (type (sub resource)))))
            (alias export $streams "input-stream" (type $in))
            (alias export $streams "output-stream" (type $out))
            (import "wasi:sockets/network@0.2.0" (instance $network
                (export "network" (type (sub resource)))
                (type $code (enum "unknown" "access-denied" "not-supported" "invalid-argument" "out-of-memory"
                    "timeout" "concurrency-conflict" "not-in-progress" "would-block" "invalid-state"
                    "new-socket-limit" "address-not-bindable" "address-in-use" "remote-unreachable"
                    "connection-refused" "connection-reset" "connection-aborted" "datagram-too-large"
                    "name-unresolvable" "temporary-resolver-failure" "permanent-resolver-failure"))
                (export "error-code" (type (eq $code)))
                (type $family (enum "ipv4" "ipv6"))
                (export "ip-address-family" (type (eq $family)))
                (type $v4 (tuple u8 u8 u8 u8))
                (export "ipv4-address" (type $v4named (eq $v4)))
                (type $v6 (tuple u16 u16 u16 u16 u16 u16 u16 u16))
                (export "ipv6-address" (type $v6named (eq $v6)))
                (type $at4 (record (field "port" u16) (field "address" $v4named)))
                (export "ipv4-socket-address" (type $at4named (eq $at4)))
                (type $at6 (record (field "port" u16) (field "flow-info" u32) (field "address" $v6named)
                    (field "scope-id" u32)))
                (export "ipv6-socket-address" (type $at6named (eq $at6)))
                (type $at (variant (case "ipv4" $at4named) (case "ipv6" $at6named)))
                (export "ip-socket-address" (type (eq $at)))))
            (alias export $network "network" (type $net))
            (alias export $network "error-code" (type $err))
            (alias export $network "ip-address-family" (type $family))
            (alias export $network "ip-socket-address" (type $address))
            (import "wasi:sockets/instance-network@0.2.0" (instance $own
                (alias outer 1 $net (type $n)) (export "network" (type $named (eq $n)))
                (export "instance-network" (func (result (own $named))))))
            (import "wasi:sockets/tcp@0.2.0" (instance $tcp
                (alias outer 1 $in (type $i)) (export "input-stream" (type $instream (eq $i)))
                (alias outer 1 $out (type $o)) (export "output-stream" (type $outstream (eq $o)))
                (alias outer 1 $net (type $n)) (export "network" (type $net (eq $n)))
                (alias outer 1 $err (type $e)) (export "error-code" (type $err (eq $e)))
                (alias outer 1 $address (type $a)) (export "ip-socket-address" (type $address (eq $a)))
                (export "tcp-socket" (type $socket (sub resource)))
                (export "[method]tcp-socket.start-connect" (func (param "self" (borrow $socket))
                    (param "network" (borrow $net)) (param "remote-address" $address)
                    (result (result (error $err)))))
                (export "[method]tcp-socket.finish-connect" (func (param "self" (borrow $socket))
                    (result (result (tuple (own $instream) (own $outstream)) (error $err)))))))
            (alias export $tcp "tcp-socket" (type $socket))
            (import "wasi:sockets/tcp-create-socket@0.2.0" (instance $create
                (alias outer 1 $err (type $e)) (export "error-code" (type $err (eq $e)))
                (alias outer 1 $family (type $f)) (export "ip-address-family" (type $family (eq $f)))
                (alias outer 1 $socket (type $s)) (export "tcp-socket" (type $socket (eq $s)))
                (export "create-tcp-socket" (func (param "address-family" $family)
                    (result (result (own $socket) (error $err)))))))
            (core module $memory (memory (export "memory") 1))
            (core instance $m (instantiate $memory))
            (core func $own (canon lower (func $own "instance-network")))
            (core func $create (canon lower (func $create "create-tcp-socket") (memory (core memory $m "memory"))))
            (core func $connect
                (canon lower (func $tcp "[method]tcp-socket.start-connect") (memory (core memory $m "memory"))))
            (core func $finish
                (canon lower (func $tcp "[method]tcp-socket.finish-connect") (memory (core memory $m "memory"))))
            (core module $code
                (import "host" "memory" (memory 1))
                (import "host" "finish" (func $finish (param i32 i32)))
                (import "host" "own" (func $own (result i32)))
                (import "host" "create" (func $create (param i32 i32)))
                (import "host" "connect" (func $connect
                    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
                (data (i32.const 200) "\22no socket\22\22denied\22\22connected\22")
                (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
                (func $answer (param $at i32) (param $bytes i32) (result i32)
                    (i32.store (i32.const 16) (i32.const 0))
                    (i32.store (i32.const 20) (local.get $at))
                    (i32.store (i32.const 24) (local.get $bytes))
                    (i32.const 16))
                (func (export "run") (param i32 i32) (result i32)
                    (call $create (i32.const 0) (i32.const 64))
                    (if (i32.load8_u (i32.const 64)) (then (return (call $answer (i32.const 200) (i32.const 11)))))
                    (call $connect (i32.load (i32.const 68)) (call $own) (i32.const 0) (i32.const {port})
                        (i32.const 127) (i32.const 0) (i32.const 0) (i32.const 1)
                        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                        (i32.const 80))
                    (if (i32.load8_u (i32.const 80)) (then (unreachable)))
                    (loop $wait
                        (call $finish (i32.load (i32.const 68)) (i32.const 96))
                        (if (i32.load8_u (i32.const 96)) (then
                            ;; would-block
                            (br_if $wait (i32.eq (i32.load8_u (i32.const 100)) (i32.const 8)))
                            ;; access-denied
                            (if (i32.eq (i32.load8_u (i32.const 100)) (i32.const 1)) (then
                                (return (call $answer (i32.const 211) (i32.const 8)))))
                            (unreachable))))
                    (call $answer (i32.const 219) (i32.const 11))))
            (core instance $c (instantiate $code (with "host" (instance
                (export "memory" (memory $m "memory")) (export "own" (func $own))
                (export "create" (func $create)) (export "connect" (func $connect))
                (export "finish" (func $finish))))))
            (func $run (param "input" string) (result (result string (error string)))
                (canon lift (core func $c "run")
                    (memory (core memory $m "memory")) (realloc (core func $c "realloc"))))
            (export "run" (func $run)))"#
    )
}
