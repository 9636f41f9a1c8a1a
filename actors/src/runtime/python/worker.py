"""The worker of the python runtime: loads one source, keeps its handler warm and answers one request at a time.

Started as `python3 worker.py SOURCE HANDLER FOLDER`, or with this text after `-c`. HANDLER may be empty. Descriptor 3
brings requests, 4 takes answers, one JSON document a line; 1 and 2 are the log. It ends when
no request can come any more. The standard library of Python 3.8 is all it needs.
"""

import gc
import json
import os
import sys
from time import monotonic

# A pipe each: a socket for both directions costs nearly twice as much a message.
REQUESTS, ANSWERS = 3, 4
PID = os.getpid()

# Bounds of what an error tells: characters of its message, bytes and frames of its traceback.
MAX_MESSAGE = 2_000
MAX_TRACEBACK = 16 * 1024
MAX_FRAMES = 200

EXPECTED = "`handler(input, context)` or one class with `execute(input)` or `eval(input)`"

decode = json.JSONDecoder().raw_decode


class Unusable(Exception):
    """The source has nothing that can be called; the text says what is expected."""


class Context:
    """What a handler may know of the run that it serves."""

    __slots__ = ("execution", "attempt", "definition", "traceparent", "deadline")

    def __init__(self, request):
        self.execution = request["execution"]
        self.attempt = request["attempt"]
        self.definition = request["definition"]
        self.traceparent = request["traceparent"]
        # On the clock of `time.monotonic`, in seconds.
        self.deadline = monotonic() + request["deadline_ms"] / 1000

    def remaining(self):
        """The seconds until the run is ended; never below 0."""
        return max(0.0, self.deadline - monotonic())

    def progress(self, fraction, message=""):
        """Tells whoever listens how far the run is: from 0 to 1."""
        share = min(1.0, max(0.0, float(fraction)))
        log(encode({"progress": share, "message": bounded(str(message))}))

    def log(self, text):
        """Writes to the log, also where standard output was redirected."""
        log(str(text))


def log(text):
    # One write, past the buffers, so that a line is whole also when threads and subprocesses print.
    data = memoryview((text + "\n").encode("utf-8", "backslashreplace"))
    while data:
        data = data[os.write(1, data) :]


def bounded(text):
    return text[:MAX_MESSAGE].encode("utf-8", "backslashreplace").decode()


def relative(text):
    """The text with the folders from which modules come left out: clients need no paths of this machine."""
    folders = [folder.rstrip("/") for folder in sys.path if isinstance(folder, str) and folder.startswith("/")]
    for folder in sorted(filter(None, folders), key=len, reverse=True):
        text = text.replace(folder + "/", "")
    return text


# --- JSON --------------------------------------------------------------------------------------------------------


def encoder():
    """Text goes out as UTF-8 and not as escapes: shorter, and a lone surrogate, which no other program would read, is
    found here. A cycle is found by its depth."""
    public = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"), allow_nan=False)
    try:
        # `public.encode` makes one of these at each call, which takes longer than most results do.
        from json.encoder import c_make_encoder, encode_basestring

        made = c_make_encoder(None, public.default, encode_basestring, None, ":", ",", False, False, False)
        if "".join(made({"a": [1, 0.5, None, "é"]}, 0)) == '{"a":[1,0.5,null,"é"]}':
            return lambda value: "".join(made(value, 0))
    except Exception:
        # A Python that has none, or in which it has changed.
        pass
    return public.encode


encode = encoder()


def why_not_json(error):
    if isinstance(error, UnicodeEncodeError):
        reason = "a text in it is not valid Unicode (a lone surrogate)"
    elif isinstance(error, RecursionError):
        reason = "it is nested too deeply, or holds itself"
    elif "Out of range float" in str(error):
        reason = "it holds NaN or an infinity, which JSON does not have"
    else:
        reason = str(error) or type(error).__name__
    return bounded("the handler's result is not JSON: " + reason)


# --- The log -----------------------------------------------------------------------------------------------------


def open_log(descriptor):
    """A stream that writes whole lines; a text that is no valid Unicode does not fail the handler that prints it."""
    return open(descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def own_streams():
    sys.stdout = sys.__stdout__ = open_log(1)
    sys.stderr = sys.__stderr__ = open_log(2)
    return sys.stdout, sys.stderr


def flush(out, err):
    """Brings what was printed into the log, and the worker's own streams back. Returns those that stand now."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
        if sys.stdout is out and sys.stderr is err:
            return out, err
        out.flush()
        err.flush()
    except Exception:
        # A handler closed them, or put something there that is no stream.
        pass
    # New ones: what stood there may hold the old ones' buffers, and closes them when it is collected.
    return own_streams()


# --- Errors ------------------------------------------------------------------------------------------------------


def describe(error, who="the handler"):
    """An exception as its type, message and traceback; also where memory is short or its own `str` raises."""
    kind = type(error).__name__
    try:
        if isinstance(error, MemoryError):
            free(error.__traceback__)
            message = str(error) or "the memory did not suffice"
        elif isinstance(error, SystemExit):
            code = error.code
            how = "" if code is None else f" with status {code}" if isinstance(code, int) else f": {code}"
            message = f"{who} exited{how}"
        else:
            message = str(error)
        message = bounded(relative(message[: 2 * MAX_MESSAGE]))
    except BaseException:
        message = "the error has no readable message"
    try:
        trace = traceback_of(error)
    except BaseException:
        trace = ""
    return {"type": bounded(kind), "message": message, "traceback": trace}


def free(trace):
    """Lets go of what the frames held: telling the error takes memory too."""
    while trace is not None:
        try:
            trace.tb_frame.clear()
        except RuntimeError:
            # It still runs: it is the worker's own.
            pass
        trace = trace.tb_next


def traceback_of(error):
    import traceback

    trace = error.__traceback__
    while trace is not None and is_machinery(trace.tb_frame.f_globals):
        trace = trace.tb_next
    lines = traceback.format_exception(type(error), error, trace, limit=-MAX_FRAMES)
    text = relative("".join(lines)).encode("utf-8", "backslashreplace")
    return text[-MAX_TRACEBACK:].decode("utf-8", "ignore")


def is_machinery(names):
    """Whether a frame is the worker's own, or of what it uses to load a source and to wait."""
    return names is globals() or str(names.get("__name__")).partition(".")[0] in ("asyncio", "importlib")


def describe_and_log(error, who="the handler"):
    described = describe(error, who)
    try:
        log(described["traceback"].rstrip("\n") or f"{described['type']}: {described['message']}")
    except OSError:
        # Nobody reads the log any more, or the handler closed it.
        pass
    return described


# --- The channel -------------------------------------------------------------------------------------------------


def send(data):
    sent = os.write(ANSWERS, data)
    if sent < len(data):
        rest = memoryview(data)[sent:]
        while rest:
            rest = rest[os.write(ANSWERS, rest) :]


def line(answer):
    return encode(answer).encode() + b"\n"


def close_channel():
    for descriptor in {REQUESTS, ANSWERS}:
        try:
            os.close(descriptor)
        except OSError:
            # The handler closed it before.
            pass


def leave_fork(error):
    """Ends a fork of the handler that came back here: it must never answer in the worker's place."""
    if isinstance(error, SystemExit):
        os._exit(error.code & 0xFF if isinstance(error.code, int) else int(error.code is not None))
    if error is not None:
        describe_and_log(error)
    os._exit(1)


# --- The handler -------------------------------------------------------------------------------------------------


def load(source, name, folder):
    """Loads the source and gives its handler as a function of an input and a context."""
    from importlib.machinery import ModuleSpec, SourceFileLoader
    from importlib.util import module_from_spec

    # Else the module's folder would get a `__pycache__`, and a source that changes within a second be stale.
    sys.dont_write_bytecode = True
    # Without `-P` or `-I`, Python put the worker's own folder first. What stands beside the source comes before what
    # stands in the folder of an archive.
    is_safe = sys.flags.isolated or getattr(sys.flags, "safe_path", False)
    sys.path[: 0 if is_safe else 1] = dict.fromkeys([os.path.dirname(source) or folder, folder])
    # Its own name, so that what it defines can be pickled, unless a module has that name already.
    module_name = os.path.basename(source).partition(".")[0]
    if not module_name.isidentifier() or module_name in sys.modules:
        module_name = "org_handler"
    spec = ModuleSpec(module_name, SourceFileLoader(module_name, source), origin=source)
    spec.has_location = True
    module = module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    return adapt(*find(module, name))


def find(module, name):
    """The handler and what it is called in messages."""
    if name:
        if not hasattr(module, name):
            raise Unusable(f"the source has no {name!r}, which the definition names as its handler")
        return callable_of(getattr(module, name), name)
    if hasattr(module, "handler"):
        return callable_of(module.handler, "handler")
    classes = [
        value
        for value in dict.fromkeys(value for value in vars(module).values() if isinstance(value, type))
        if value.__module__ == module.__name__ and method(value) and not getattr(value, "__abstractmethods__", None)
    ]
    # A class from which another one is derived is only its base.
    leaves = [one for one in classes if not any(issubclass(other, one) for other in classes if other is not one)]
    if not leaves:
        raise Unusable(f"the source has no handler; expected is {EXPECTED}")
    if len(leaves) > 1:
        names = ", ".join(one.__name__ for one in leaves)
        raise Unusable(f"the source has more than one class with `execute` or `eval`: {names}; name one as `handler`")
    return callable_of(leaves[0], leaves[0].__name__)


def method(value):
    return next((name for name in ("execute", "eval") if callable(getattr(value, name, None))), None)


def callable_of(value, name):
    """A class is instantiated once, and what it keeps stays warm; its method is the handler."""
    known = method(value)
    if isinstance(value, type):
        if known is None:
            raise Unusable(f"the class {name!r} has neither `execute` nor `eval`; expected is {EXPECTED}")
        return getattr(value(), known), f"{name}.{known}"
    if callable(value):
        return value, name
    if known is None:
        raise Unusable(f"{name!r} cannot be called; expected is {EXPECTED}")
    return getattr(value, known), f"{name}.{known}"


def adapt(handler, name):
    """Decides once how the handler is called: with the input alone, or with the context too."""
    import inspect

    if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None)):
        # Its first run need not wait for this.
        event_loop()
    try:
        signature = signature_of(handler)
    except (TypeError, ValueError):
        # Some that are written in C do not tell.
        return lambda given, context: handler(given)
    parameters = list(signature.parameters.values())
    by_position = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    second = by_position[1] if len(by_position) > 1 else None
    args, names = (None,), {}
    if second is not None and (second.name == "context" or second.default is second.empty):
        args, adapted = (None, None), handler
    elif any(one.name == "context" and one.kind is one.KEYWORD_ONLY for one in parameters):
        names, adapted = {"context": None}, lambda given, context: handler(given, context=context)
    elif any(one.kind is one.VAR_POSITIONAL for one in parameters):
        args, adapted = (None, None), handler
    else:
        adapted = lambda given, context: handler(given)
    try:
        signature.bind(*args, **names)
    except TypeError:
        raise Unusable(f"`{name}{signature}` cannot be called with `(input)` or `(input, context)`") from None
    return adapted


def signature_of(handler):
    import inspect

    try:
        return inspect.signature(handler)
    except NameError:
        # From Python 3.14 on annotations are evaluated here, and may name what only a type checker imports.
        from annotationlib import Format

        return inspect.signature(handler, annotation_format=Format.STRING)


# --- Coroutines --------------------------------------------------------------------------------------------------

LOOP = None


def event_loop():
    """The one loop of this process. Not an `asyncio.Runner`, which hands the context variables of one run to the
    next and sets a signal handler for each."""
    global LOOP
    import asyncio

    if LOOP is None or LOOP.is_closed():
        LOOP = asyncio.new_event_loop()
        asyncio.set_event_loop(LOOP)
    return LOOP


def wait(awaitable):
    """The result of a coroutine; the tasks that it leaves behind end with it."""
    loop = event_loop()
    try:
        return loop.run_until_complete(awaitable)
    finally:
        # A fork of the handler shares the loop's selector with the worker, and must not touch it.
        if os.getpid() == PID:
            end_tasks(loop)


def end_tasks(loop):
    import asyncio

    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))


# --- Serving -----------------------------------------------------------------------------------------------------


def serve(handler, out, err):
    # What stands here is paid for by every run: names are local, and nothing is done that need not be.
    environ = os.environ
    folder_of_start = os.open(".", os.O_PATH | os.O_DIRECTORY)
    variables = os.environb
    # The dictionary behind the mapping is compared in no time; a comparison of the mapping makes two copies.
    held = getattr(variables, "_data", variables)
    kept = dict(held)
    chdir, fchdir, getpid = os.chdir, os.fchdir, os.getpid

    for text in open(REQUESTS, "rb", buffering=64 * 1024, closefd=False):
        error, execution = None, b""
        try:
            request = decode(str(text, "utf-8"))[0]
            given = request.pop("input")
            execution = request["execution"].encode()
            variables[b"ORG_EXECUTION"] = kept[b"ORG_EXECUTION"] = execution
            traceparent = request["traceparent"]
            if traceparent is not None:
                variables[b"TRACEPARENT"] = kept[b"TRACEPARENT"] = traceparent.encode()
            elif b"TRACEPARENT" in kept:
                del variables[b"TRACEPARENT"], kept[b"TRACEPARENT"]
            if request["folder"] is not None:
                chdir(request["folder"])
            result = handler(given, Context(request))
            if hasattr(type(result), "__await__"):
                result = wait(result)
        except BaseException as raised:
            error = raised

        out, err = flush(out, err)
        if getpid() != PID:
            leave_fork(error)
        if error is None:
            try:
                answer = b'"ok":' + encode(result).encode() + b"}\n"
            except (TypeError, ValueError, RecursionError) as raised:
                answer = line({"invalid": why_not_json(raised)})[1:]
            except BaseException as raised:
                error = raised
        if error is not None:
            answer = line({"error": describe_and_log(error)})[1:]
        # Each answer bears the name of its execution: what a handler wrote there itself is nobody's.
        send(b'{"for":"' + execution + b'",' + answer)
        # What the handler was given and made must not live until the next run.
        text = request = given = result = error = answer = None

        # After the answer, while its reader works: what a run changed is not there for the next one.
        fchdir(folder_of_start)
        if os.environ is not environ:
            os.environ = environ
        if held != kept:
            put_back(variables, kept)


def put_back(variables, kept):
    for name in [name for name in variables if name not in kept]:
        del variables[name]
    for name, value in kept.items():
        variables[name] = value


def main():
    source, name, folder = sys.argv[1:4]
    # What the handler starts must not hold the channel; the other end may have made it non-blocking.
    for descriptor in {REQUESTS, ANSWERS}:
        os.set_inheritable(descriptor, False)
        os.set_blocking(descriptor, True)
    os.register_at_fork(after_in_child=close_channel)
    out, err = own_streams()
    sys.argv = [source]
    try:
        handler = load(source, name, folder)
        failure = None
    except BaseException as error:
        failure = error
    out, err = flush(out, err)
    if os.getpid() != PID:
        leave_fork(failure)
    if failure is not None:
        send(line({"failed": why_not_loaded(failure)}))
        os._exit(1)
    # What was loaded lives as long as the process: later collections need not look at it.
    gc.collect()
    gc.freeze()
    status = 0
    try:
        send(line({"ready": True, "pid": PID}))
        serve(handler, out, err)
    except ConnectionError:
        # The service is gone.
        pass
    except BaseException as error:
        describe_and_log(error, "the worker")
        status = 1
    # Without waiting for threads that the handler left.
    os._exit(status)


def why_not_loaded(error):
    if isinstance(error, Unusable):
        log(str(error))
        return {"message": str(error), "traceback": ""}
    described = describe_and_log(error, "it")
    message = f"the source cannot be loaded: {described['type']}: {described['message']}"
    return {"message": " ".join(message.split()), "traceback": described["traceback"]}


if __name__ == "__main__":
    main()
