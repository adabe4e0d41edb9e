"""Prepares an interpreter while it starts: its figures will come back (figures.py), and a spare is held up
here, so that a program finds its modules already loaded.

The spare is an ordinary `python main.py` with this folder first in PYTHONPATH, so site initialisation runs
this file before CPython opens main.py. It loads modules, reports, waits for the word to go on, removes its
traces and returns: what runs then is CPython's own way of running a script, with none of our frames on the
stack.

Its first streams are placeholders of the same kind as the program's, which come with the word to go on: so
the shadow (see _start_shadow) does not have them.

Messages on the control socket: to PID 1 the line-separated top-level names that were loaded, an empty line,
`module: error` lines, an empty line, the shadow's process id, ended by NUL; back come eight hex digits, with
the three streams as descriptors, and so many bytes of arguments, each followed by NUL.
"""

import os
import sys

_FOLDER = os.path.dirname(__file__)


def _begin() -> bool:
    """Whether the image has a sitecustomize of its own."""
    control = os.environ.pop("KCR_SPARE_CONTROL", "")
    modules = os.environ.pop("KCR_SPARE_MODULES", "").split(",")
    _remove_traces(_FOLDER)
    chained = _chain()
    if control:
        _hold_up(int(control), modules)
    else:
        _expect_figures()
    return chained


def _hold_up(control: int, modules: list[str]) -> None:
    import atexit
    import gc

    baseline = set(sys.modules)
    held: list[object] = []
    held.append(held)
    foreign: list[str] = []
    atexit.register(_keep_from_shutdown, held, foreign)
    failed = _load(["ctypes", "socket", *modules])  # the first two for ourselves
    _expect_figures()
    loaded = set(sys.modules) - baseline
    foreign.extend(name for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names)
    gc.collect()
    gc.freeze()
    _renew_main()
    shadow = _start_shadow(held)
    tops = sorted({name.partition(".")[0] for name in loaded})
    report = "\n\n".join(("\n".join(tops), "\n".join(failed), str(shadow)))
    _send(control, report.encode() + b"\0")
    args = _receive(control)
    os.close(control)
    sys.argv[1:] = args
    sys.orig_argv[2:] = args


def _expect_figures() -> None:
    """Prepare pyplot when it is loaded, or now if it is."""
    if "matplotlib.pyplot" in sys.modules:
        _bring_figures_back(os.getcwd())
    else:
        _watch_for_pyplot(os.getcwd())


def _watch_for_pyplot(folder: str) -> None:
    """Look on while modules are searched for, in the interpreter's own finder: a program may look at the list
    of finders, and there is no other one in it."""
    finder = sys.modules["_frozen_importlib_external"].PathFinder
    original = vars(finder)["find_spec"]
    find = finder.find_spec

    def find_spec(_cls: object, fullname: str, path: object = None, target: object = None) -> object:
        if fullname == "matplotlib.pyplot":
            finder.find_spec = original
            _bring_figures_back(folder)
        return find(fullname, path, target)

    finder.find_spec = classmethod(find_spec)


def _bring_figures_back(folder: str) -> None:
    from importlib.machinery import SourceFileLoader
    from importlib.util import module_from_spec, spec_from_loader

    loader = SourceFileLoader("kubecoderun_figures", os.path.join(_FOLDER, "figures.py"))
    spec = spec_from_loader(loader.name, loader)
    if spec is None:
        return
    figures = module_from_spec(spec)
    loader.exec_module(figures)
    try:
        figures.install(folder)
    except (ImportError, AttributeError):
        return  # a matplotlib that cannot be loaded, which the program will be told, or one of another kind


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


def _keep_from_shutdown(held: list[object], foreign: list[str]) -> None:
    """Keep the loaded third-party modules out of interpreter shutdown, which would take them apart piece
    by piece.

    Registered before they are loaded, so it runs after every other atexit function. `held` refers to
    itself and is frozen, so nothing ever frees what it holds; the kernel does. Modules of the standard
    library, and the program's own, are taken down as usual: their __del__ methods and buffers matter.
    """
    held.extend(sys.modules.pop(name, None) for name in foreign)
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


def _start_shadow(held: list[object]) -> int:
    """Start a process that shares our memory and does nothing; its id, or 0 where that does not work.

    The kernel takes a hundred megabytes apart before it says that a process has ended. While a shadow
    still holds the memory, the end is known at once, and the rest happens when PID 1 kills the shadow. It
    is a child of PID 1, takes no signals, and has none of the program's descriptors, because they come later.
    """
    import ctypes

    clone_vm, clone_parent, sigchld, stack_bytes, sig_block, sig_setmask = 0x100, 0x8000, 17, 65536, 0, 2
    try:
        libc = ctypes.CDLL(None)
        stack = ctypes.create_string_buffer(stack_bytes)
        every, before = ctypes.create_string_buffer(b"\xff" * 128, 128), ctypes.create_string_buffer(128)
        held.extend((stack, libc))
        top = (ctypes.addressof(stack) + stack_bytes) & ~63
        libc.clone.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
        pause = ctypes.cast(libc.pause, ctypes.c_void_p)
        libc.sigprocmask(sig_block, every, before)
        try:
            shadow = libc.clone(pause, ctypes.c_void_p(top), clone_vm | clone_parent | sigchld, None)
        finally:
            libc.sigprocmask(sig_setmask, before, None)
    except (OSError, AttributeError):
        return 0
    return max(0, int(shadow))


def _send(control: int, data: bytes) -> None:
    while data:
        data = data[os.write(control, data) :]


def _receive(control: int) -> list[str]:
    """Take over the program's streams; its arguments. PID 1 closing the socket means that nobody wants the
    spare."""
    import socket

    connection = socket.socket(fileno=control)
    head, streams, _, _ = socket.recv_fds(connection, 8, 3)
    connection.detach()
    for target, fd in enumerate(streams):
        os.dup2(fd, target)
        os.close(fd)
    length = int(head + _exactly(control, 8 - len(head)), 16)
    return [os.fsdecode(arg) for arg in _exactly(control, length).split(b"\0")[:-1]]


def _exactly(control: int, length: int) -> bytes:
    data = b""
    while len(data) < length:
        piece = os.read(control, length - len(data))
        if not piece:
            os._exit(0)
        data += piece
    return data


if not _begin():
    # Told this way, the import system forgets the module, as if there had never been one.
    raise ImportError(name="sitecustomize")
