"""Brings a program's figures back as PNG files in its folder: those it shows, and those open at its end.

matplotlib without a screen shows nothing. Here `show` saves what a screen would have shown, and a blocking
`pyplot.show` then closes it, as happens when somebody closes the windows. A figure the program itself has
saved in its folder, and has not changed since, is not saved again; an empty one never is.

This works for every backend without windows, whichever way it is chosen, because it changes what they all
inherit. Nothing else can be told: wrapped methods leave no frame in tracebacks, and warnings name the line
they would name otherwise.
"""

from __future__ import annotations

import atexit
import importlib
import io
import os
import sys
import types
import warnings
import weakref
from collections.abc import Callable
from functools import update_wrapper
from typing import Any


def install(folder: str) -> None:
    """Prepare matplotlib, which must be importable; files go to `folder`, the program's own."""
    backend_bases = importlib.import_module("matplotlib.backend_bases")
    figure = importlib.import_module("matplotlib.figure")
    open_figures = importlib.import_module("matplotlib._pylab_helpers").Gcf
    saver = _Saver(folder, figure.Figure.savefig)

    def show(self: Any) -> None:
        """For GUI backends, show the figure window and redraw."""
        saver.save(self.canvas.figure)

    def close_all(*_cls: object) -> None:
        open_figures.destroy_all()

    def save_open() -> None:
        for manager in sorted(open_figures.get_all_fig_managers(), key=lambda one: str(one.num).zfill(12)):
            saver.save(manager.canvas.figure)

    backend_bases.FigureManagerBase.show = show
    # A backend's main loop ends when its last window has been closed. Both ways matplotlib knows to name one:
    backend_bases.FigureManagerBase.start_main_loop = classmethod(close_all)
    backend_bases._Backend.mainloop = staticmethod(close_all)
    _wrap(figure, figure.Figure, "savefig", after=saver.note_saved)
    _wrap(figure, figure.Figure, "draw", before=saver.note_drawn)
    # After matplotlib's own function, which closes everything, so it is called before that.
    atexit.register(_in_this_process(save_open))


class _Saver:
    """Knows which figures are in files already."""

    def __init__(self, folder: str, savefig: Callable[..., None]) -> None:
        self._folder = os.path.realpath(folder)
        self._savefig = savefig
        self._saved: weakref.WeakSet[Any] = weakref.WeakSet()
        """Figures that are as they were when they were saved, as long as they are not stale."""

    def save(self, figure: Any) -> None:
        """Write figure-N.png, if there is something new to see."""
        if (figure in self._saved and not figure.stale) or _is_empty(figure):
            return
        picture = io.BytesIO()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # nobody asked for this picture
                self._savefig(figure, picture, format="png")
            self._write(picture.getbuffer())
        except Exception as error:
            print(f"A figure could not be saved: {type(error).__name__}: {error}", file=sys.stderr)
            return
        self._mark(figure)

    def note_saved(self, figure: Any, target: Any = None, **more: Any) -> None:
        """The program has called savefig."""
        if self._stays(more.get("fname", target)):
            self._mark(figure)

    def note_drawn(self, figure: Any, *_args: Any, **_more: Any) -> None:
        """The figure is about to be drawn, after which it is not stale any more."""
        if figure.stale and not getattr(figure.canvas, "_is_saving", False):
            self._saved.discard(figure)

    def _mark(self, figure: Any) -> None:
        # Saving leaves it stale, as it changes the resolution and back.
        figure.stale = False
        self._saved.add(figure)

    def _stays(self, target: Any) -> bool:
        """Whether what was saved there comes back with the program's files."""
        if isinstance(target, io.BytesIO | io.StringIO):
            return False
        if not isinstance(target, str | bytes | os.PathLike):
            target = getattr(target, "name", None)
            if not isinstance(target, str):
                return True  # a document that takes figures as its pages, for example
        path = os.path.realpath(os.fsdecode(target))
        return path.startswith(self._folder + os.sep)

    def _write(self, picture: memoryview) -> None:
        number = 1
        while True:
            path = os.path.join(self._folder, f"figure-{number}.png")
            try:
                with open(path, "xb") as file:
                    file.write(picture)
                return
            except FileExistsError:
                number += 1
            except OSError:
                if os.path.lexists(path):
                    os.unlink(path)
                raise


def _is_empty(figure: Any) -> bool:
    """No axes with anything in them, and nothing beside them."""
    own = (figure.lines, figure.patches, figure.texts, figure.images, figure.artists, figure.legends)
    if any(map(len, own)) or not all(map(_is_empty, figure.subfigs)):
        return False
    return not any(
        axes.has_data() or len(axes.texts) or len(axes.tables) or len(axes.artists)
        for axes in figure.get_axes()
    )


def _in_this_process(work: Callable[[], None]) -> Callable[[], None]:
    """`work`, but not in processes that are forked off."""
    own = os.getpid()

    def only_here() -> None:
        if os.getpid() == own:
            work()

    return only_here


def _nothing(*_args: Any, **_more: Any) -> None:
    return


def _wrap(
    module: Any,
    owner: Any,
    name: str,
    *,
    before: Callable[..., None] = _nothing,
    after: Callable[..., None] = _nothing,
) -> None:
    """Call `before` and `after` around a method of a class in `module`, with its arguments."""
    original = getattr(owner, name)

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        before(self, *args, **kwargs)
        try:
            result = original(self, *args, **kwargs)
        except BaseException as error:
            # The frame of this function is the first entry; a bare raise does not add it again.
            if error.__traceback__ is not None:
                error.__traceback__ = error.__traceback__.tb_next
            raise
        after(self, *args, **kwargs)
        return result

    # matplotlib's warnings name the innermost line outside of matplotlib, by module or by file.
    code = method.__code__.replace(co_filename=module.__file__)
    disguised = types.FunctionType(code, module.__dict__, name, None, method.__closure__)
    setattr(owner, name, update_wrapper(disguised, original))
