"""Holds an interpreter up while it starts, so that a program finds its modules already loaded.

The spare is an ordinary `python main.py` with this folder first in PYTHONPATH, so site initialisation runs
this file before CPython opens main.py. It loads modules, reports, waits for the word to go on, removes its
traces and returns: what runs then is CPython's own way of running a script, with none of our frames on the
stack.

Messages on the control socket: to PID 1 the line-separated top-level names that were loaded, an empty
line, then `module: error` lines, ended by NUL; back come the arguments, each followed by NUL, after a
length of eight hex digits.
"""

import os
import sys


def _hold_up() -> bool:
    import atexit
    import gc

    control = int(os.environ.pop("KCR_SPARE_CONTROL"))
    modules = os.environ.pop("KCR_SPARE_MODULES").split(",")
    _remove_traces(os.path.dirname(__file__))
    chained = _chain()
    baseline = set(sys.modules)
    held: list[object] = []
    held.append(held)
    atexit.register(_keep_from_shutdown, held)
    failed = _load(modules)
    loaded = set(sys.modules) - baseline
    held.extend(name for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names)
    gc.collect()
    gc.freeze()
    _renew_main()
    tops = sorted({name.partition(".")[0] for name in loaded})
    _send(control, ("\n".join(tops) + "\n\n" + "\n".join(failed)).encode() + b"\0")
    args = _receive(control)
    os.close(control)
    sys.argv[1:] = args
    sys.orig_argv[2:] = args
    return chained


def _remove_traces(folder: str) -> None:
    """Nothing the program can see says how it was started."""
    own, _, rest = os.environ.pop("PYTHONPATH").partition(os.pathsep)
    if rest:
        os.environ["PYTHONPATH"] = rest
    sys.path[:] = [entry for entry in sys.path if entry not in (own, folder)]
    sys.path_importer_cache.pop(own, None)
    sys.path_importer_cache.pop(folder, None)


def _chain() -> bool:
    """Run the image's own sitecustomize, which this one hid. True when there is one."""
    mine = sys.modules.pop("sitecustomize")
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
    except ImportError as error:
        if error.name != "sitecustomize":
            raise
        sys.modules["sitecustomize"] = mine
        return False
    return True


def _load(modules: list[str]) -> list[str]:
    """Import what may be wanted; each failure is reported, none stops the others."""
    import importlib

    failed = []
    for name in filter(None, modules):
        try:
            importlib.import_module(name)
        except BaseException as error:
            failed.append(f"{name}: {type(error).__name__}: {error}".replace("\n", " ")[:300])
    return failed


def _keep_from_shutdown(held: list[object]) -> None:
    """Keep the loaded third-party modules out of interpreter shutdown, which would take them apart piece
    by piece.

    Registered before they are loaded, so it runs after every other atexit function. `held` refers to
    itself and is frozen, so nothing ever frees what it holds; the kernel does. Modules of the standard
    library, and the program's own, are taken down as usual: their __del__ methods and buffers matter.
    """
    held.extend([sys.modules.pop(str(name), None) for name in held[1:]])
    sys.zz_last_flush = _LastFlush()  # type: ignore[attr-defined]


class _LastFlush:
    """Writes what finalizers have printed, when the very last module (sys) is taken down.

    Usually the streams' own end does that. But a module that is kept may know them, and then they do not end.
    """

    def __init__(self) -> None:
        self._streams = (sys.__stdout__, sys.__stderr__)

    def __del__(self) -> None:
        for stream in self._streams:
            try:
                if stream is not None and not stream.closed:
                    stream.flush()
            except (OSError, ValueError):
                continue  # nobody reads any more, which the interpreter has already reported


def _renew_main() -> None:
    """Give the program a __main__ that is not frozen: at the end the garbage collector has to see into it."""
    old = sys.modules["__main__"]
    new = type(sys)("__main__")
    new.__dict__.clear()
    new.__dict__.update(old.__dict__)
    sys.modules["__main__"] = new


def _send(control: int, data: bytes) -> None:
    while data:
        data = data[os.write(control, data) :]


def _receive(control: int) -> list[str]:
    """The program's arguments. PID 1 closing the socket means that the spare is not wanted any more."""
    length = int(_exactly(control, 8), 16)
    return [os.fsdecode(arg) for arg in _exactly(control, length).split(b"\0")[:-1]]


def _exactly(control: int, length: int) -> bytes:
    data = b""
    while len(data) < length:
        piece = os.read(control, length - len(data))
        if not piece:
            os._exit(0)
        data += piece
    return data


if not _hold_up():
    # Told this way, the import system forgets the module, as if there had never been one.
    raise ImportError(name="sitecustomize")
