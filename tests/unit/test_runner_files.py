"""Files in and out of the working directory, whatever a program has made of it."""

from __future__ import annotations

import json
import os
import resource
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubecoderun_crds import printable
from kubecoderun_runner import delivery, frames, listing, paths
from kubecoderun_runner.collection import Collection
from kubecoderun_runner.delivery import Delivery, UndeliverableError
from kubecoderun_runner.inputs import Delivered
from kubecoderun_runner.listing import Listing, list_outputs
from kubecoderun_runner.orders import FileLimits, Order
from kubecoderun_runner.workspace import open_file, open_folder
from kubecoderun_sidecar import paths as sidecar_paths

LIMITS = FileLimits(64, 1 << 20, 1 << 24)
IS_ROOT = os.geteuid() == 0
NOBODY = 65534


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    """A descriptor of `tmp_path`."""
    fd = open_folder(str(tmp_path))
    yield fd
    os.close(fd)


def find(
    folder: int,
    limits: FileLimits = LIMITS,
    inputs: dict[str, Delivered] | None = None,
    source: str = "main.py",
) -> Listing:
    return list_outputs(folder, source, inputs or {}, limits, lambda: None)


def names(found: Listing) -> list[str]:
    return [file.path for file in found.files]


def order(inputs: list[tuple[str, int]] = (), code: int = 0, **more: object) -> Order:  # type: ignore[assignment]
    sizes = [size for _path, size in inputs]
    return Order("py", [], {}, 1.0, code, 0, len(sizes), sum(sizes), **more)  # type: ignore[arg-type]


def deliver(folder: int, files: list[tuple[str, bytes]], *, read_only: bool = False) -> Delivery:
    """Bring files in, in uneven pieces."""
    taking = Delivery(order([(path, len(data)) for path, data in files]), folder, "main.py")
    taking.begin()
    for path, data in files:
        announce = frames.encode_json(b"N", path=path, bytes=len(data), readOnly=read_only)
        taking.take(b"N", announce[frames.HEADER_BYTES :])
        for start in range(0, len(data), 1000):
            taking.take(b"D", memoryview(data)[start : start + 1000])
    assert taking.complete
    taking.close()
    return taking


# ---- paths


def test_all_three_tables_of_printable_characters_agree() -> None:
    """The CRD's, the sidecar's and the runner's are written out separately, as the three share no code."""
    for point in [*range(0x3000), *range(0xD700, 0x11200), *range(0x13400, 0x13500), *range(0x1BC00, 0x1BD00),
                  *range(0x1D100, 0x1D200), *range(0xE0000, 0xE1100), 0x10FFFF]:  # fmt: skip
        character = chr(point)
        expected = printable.is_printable(character) and character not in "\n\t\\"
        if character in "/.":
            continue
        assert paths.is_proper(character) == expected, hex(point)
        assert sidecar_paths.is_proper(character) == expected, hex(point)


@given(st.text(max_size=300))
def test_runner_and_sidecar_agree_about_paths(path: str) -> None:
    assert paths.is_proper(path) == sidecar_paths.is_proper(path)
    for shown in (
        paths.visible(path),
        sidecar_paths.visible(path),
        sidecar_paths.visible(paths.visible(path)),
    ):
        assert len(shown) <= 256
        assert printable.is_printable(shown)
        assert "\n" not in shown


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("a\nb", "a\\x0ab"),
        ("\x1b[1m", "\\x1b[1m"),
        ("a\udcffb", "a\\xffb"),
        ("\u202e", "\\u202e"),
        ("a\\b", "a\\\\b"),
    ],
)
def test_what_is_refused_is_shown_as_an_escape(path: str, shown: str) -> None:
    assert not paths.is_proper(path)
    assert paths.visible(path) == shown
    assert sidecar_paths.visible(shown) == shown, "and stays as it is"


@pytest.mark.parametrize(
    ("names", "place"),
    [
        ([], None),
        (["a", "b", "a.b", "ab/c", "ab/d"], None),
        (["a", "a"], 1),
        (["a", "a/b"], 1),
        (["a/b", "a"], 1),
        (["a/b/c", "a/b/d", "x", "a/b"], 3),
    ],
)
def test_conflicts(names: list[str], place: int | None) -> None:
    assert sidecar_paths.first_conflict(names) == place


# ---- in


def test_inputs_make_their_folders_and_keep_their_names(tmp_path: Path, folder: int) -> None:
    files = {"main.py": b"mine", "a/b/c d/ünï.txt": b"x" * 5000, "a/empty": b"", "a/b/2": b"2"}
    taken = deliver(folder, list(files.items()))
    assert taken.source_name == "main-1.py"
    for path, data in files.items():
        assert (tmp_path / path).read_bytes() == data
        assert stat.S_IMODE((tmp_path / path).stat().st_mode) == 0o644
    assert names(find(folder, inputs=taken.inputs.delivered, source=taken.source_name)) == []


def test_read_only_inputs_cannot_be_written_and_never_come_back(tmp_path: Path, folder: int) -> None:
    taken = deliver(folder, [("a", b"1"), ("b", b"1")], read_only=True)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o444
    (tmp_path / "a").unlink()
    (tmp_path / "a").write_text("changed")
    (tmp_path / "b").unlink()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "new").write_text("new")
    assert names(find(folder, inputs=taken.inputs.delivered)) == ["b/new"]


@pytest.mark.parametrize(
    "how", ["same bytes", "same length", "longer", "touched", "replaced", "mapped", "moved"]
)
def test_a_changed_input_comes_back(tmp_path: Path, folder: int, how: str) -> None:
    """At once after its delivery: file systems count time in steps."""
    taken = deliver(folder, [("a", b"before"), ("b", b"unchanged")])
    path = tmp_path / "a"
    match how:
        case "same bytes":
            path.write_bytes(b"before")
        case "same length":
            path.write_bytes(b"after!")
        case "longer":
            path.write_bytes(b"much longer")
        case "touched":
            os.utime(path)
        case "replaced":
            (tmp_path / "new").write_bytes(b"before")
            (tmp_path / "new").rename(path)
        case "mapped":
            import mmap

            with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
                mapped[0] = 0
        case "moved":
            path.rename(tmp_path / "c")
    expected = ["c"] if how == "moved" else ["a"]
    assert names(find(folder, inputs=taken.inputs.delivered)) == expected


@pytest.mark.parametrize("how", ["removed", "moved", "link", "folder", "pipe", "its folder is a link"])
def test_an_input_that_is_no_more_is_told(tmp_path: Path, folder: int, how: str) -> None:
    taken = deliver(folder, [("in/a", b"1"), ("in/.hidden/b", b"2"), ("c", b"3")])
    path = tmp_path / "in" / "a"
    if how == "moved":
        path.rename(tmp_path / "d")
    elif how == "its folder is a link":
        (tmp_path / "in").rename(tmp_path / "other")
        (tmp_path / "in").symlink_to("other")
    else:
        path.unlink()
    match how:
        case "link":
            path.symlink_to("/etc/hostname")
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
    gone = ["in/.hidden/b", "in/a"] if how == "its folder is a link" else ["in/a"]
    assert find(folder, inputs=taken.inputs.delivered).deleted == gone


def test_an_input_is_not_called_deleted_for_other_reasons(tmp_path: Path, folder: int) -> None:
    """Changed, too large to come back, in a folder that is not looked into, or beyond the last entry."""
    taken = deliver(folder, [("a", b"1"), ("b", b"1"), (".cache/c", b"1"), ("d", b"1")])
    (tmp_path / "a").write_bytes(b"changed")
    (tmp_path / "b").write_bytes(b"x" * 100)
    found = find(folder, FileLimits(64, 50, 1 << 20), taken.inputs.delivered)
    assert (names(found), found.skipped, found.deleted) == (["a"], [("b", "size")], [])
    (tmp_path / "a").unlink()
    (tmp_path / "a").write_bytes(b"again")
    assert find(folder, inputs=taken.inputs.delivered).deleted == []


def test_a_read_only_input_is_never_called_deleted(tmp_path: Path, folder: int) -> None:
    taken = deliver(folder, [("a", b"1")], read_only=True)
    (tmp_path / "a").unlink()
    assert find(folder, inputs=taken.inputs.delivered).deleted == []


def test_deleted_inputs_that_one_frame_cannot_name_are_left_out(tmp_path: Path, folder: int) -> None:
    files = [(f"{number:03}{'ü' * 120}", b"") for number in range(256)]
    taken = deliver(folder, files)
    for path, _ in files:
        (tmp_path / path).unlink()
    sent: list[bytes] = []
    Collection(folder).announce(b"X....", "main.py", taken.inputs.delivered, LIMITS, sent.append)
    told = json.loads(sent[-1][sent[-1].rindex(b"Z") + frames.HEADER_BYTES :])["deleted"]
    assert told == [path for path, _ in files][: len(told)]
    assert 40 < len(told) < 256


def test_reading_an_input_does_not_change_it(tmp_path: Path, folder: int) -> None:
    taken = deliver(folder, [("a", b"x")])
    (tmp_path / "a").read_bytes()
    assert names(find(folder, inputs=taken.inputs.delivered)) == []


@pytest.mark.parametrize(
    ("files", "index"),
    [
        ([("a", b"1"), ("a", b"1")], 1),
        ([("a", b"1"), ("a/b", b"1")], 1),
        ([("a/b", b"1"), ("a", b"1")], 1),
        ([("ü" * 200, b"1")], 0),
        ([("link/x", b"1")], 0),
        ([("main.py", b""), ("dangling", b"1")], 1),
    ],
    ids=str,
)
def test_a_path_that_cannot_be_made_is_named(
    tmp_path: Path, folder: int, files: list[tuple[str, bytes]], index: int
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UndeliverableError) as caught:
        deliver(folder, files)
    assert (caught.value.kind, caught.value.index) == ("input_path", index)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_files_that_cannot_fit_are_refused_before_they_come(
    folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "free_bytes", lambda _folder: 1000)
    Delivery(order([("a", 1000)]), folder, "main.py").begin()
    with pytest.raises(UndeliverableError) as caught:
        Delivery(order([("b", 999), ("c", 2)]), folder, "main.py").begin()
    assert caught.value.kind == "inputs_too_large"


@pytest.mark.parametrize("kind", [b"D", b"C"])
def test_a_folder_that_is_full_meanwhile(folder: int, kind: bytes) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    taking = Delivery(order([("a", 5000)], code=5000), folder, "main.py")
    taking.begin()
    taking.take(b"N", b'{"path":"a","bytes":5000}')
    if kind == b"C":
        taking.take(b"D", memoryview(bytes(5000)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(UndeliverableError) as caught:
            taking.take(kind, memoryview(bytes(5000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.kind == "inputs_too_large"


@pytest.mark.parametrize(
    "sent",
    [
        [(b"D", b"x")],
        [(b"C", b"x")],
        [(b"N", b'{"path":"a","bytes":3}'), (b"C", b"x")],
        [(b"N", b'{"path":"a","bytes":3}'), (b"D", b"xxxx")],
        [(b"N", b'{"path":"a","bytes":3}'), (b"N", b'{"path":"b","bytes":0}')],
        [(b"N", b'{"path":"a","bytes":4}')],
        [(b"N", b'{"path":"/a","bytes":3}')],
        [(b"N", b'{"path":"../a","bytes":3}')],
        [(b"N", b'{"path":"a/./b","bytes":3}')],
        [(b"N", b'{"path":"a\\u0000","bytes":3}')],
        [(b"N", b'{"path":"","bytes":3}')],
        [(b"N", b'{"path":5,"bytes":3}')],
        [(b"N", b'{"path":"a","bytes":-1}')],
        [(b"N", b'{"path":"a","bytes":3,"readOnly":1}')],
        [(b"N", b"[]")],
    ],
    ids=str,
)
def test_frames_out_of_order_or_out_of_bounds(folder: int, sent: list[tuple[bytes, bytes]]) -> None:
    taking = Delivery(order([("a", 2), ("b", 1)], code=1), folder, "main.py")
    taking.begin()
    *fine, wrong = sent
    for kind, payload in fine:
        taking.take(kind, payload)
    with pytest.raises(frames.FrameError):
        taking.take(*wrong)


# ---- out


def test_new_files_are_found_in_order_and_others_are_not(tmp_path: Path, folder: int) -> None:
    for path in (
        "b",
        "a/z",
        "a/b/c",
        ".env",
        "Ünï ☃.csv",
        "main.py",
        ".cache/x",
        "__pycache__/m.pyc",
        "a/.git/x",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
    assert names(find(folder)) == [".env", "a/b/c", "a/z", "b", "Ünï ☃.csv"]
    assert find(folder).skipped_count == 0


def test_only_plain_files_count(tmp_path: Path, folder: int) -> None:
    (tmp_path / "plain").write_text("x")
    (tmp_path / "hard").hardlink_to(tmp_path / "plain")
    (tmp_path / "soft").symlink_to("plain")
    (tmp_path / "passwd").symlink_to("/etc/passwd")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").symlink_to("/etc")
    (tmp_path / "up").symlink_to("..")
    os.mkfifo(tmp_path / "pipe")
    sock = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        sock.bind("socket")
    finally:
        os.chdir(here)
        sock.close()
    if IS_ROOT:
        os.mknod(tmp_path / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    assert names(find(folder)) == ["hard", "plain"]


@pytest.mark.parametrize(
    ("limits", "expected", "reasons"),
    [
        (FileLimits(3, 100, 1000), ["a", "b", "c"], {"count"}),
        (FileLimits(9, 9, 1000), [], {"size"}),
        (FileLimits(9, 10, 25), ["a", "b"], {"total"}),
        (FileLimits(9, 100, 0), [], {"total"}),
        (FileLimits(1, 10, 5), [], {"count", "total"}),
    ],
)
def test_limits(
    tmp_path: Path, folder: int, limits: FileLimits, expected: list[str], reasons: set[str]
) -> None:
    for name in "abcde":
        (tmp_path / name).write_text("x" * 10)
    found = find(folder, limits)
    assert names(found) == expected
    assert {reason for _path, reason in found.skipped} == reasons
    assert found.skipped_count == 5 - len(expected)


def test_a_smaller_file_may_still_fit(tmp_path: Path, folder: int) -> None:
    for name, size in (("a", 60), ("b", 50), ("c", 40)):
        (tmp_path / name).write_text("x" * size)
    assert names(find(folder, FileLimits(9, 100, 100))) == ["a", "c"]


def test_a_sparse_file_of_a_terabyte_is_skipped_by_its_size(tmp_path: Path, folder: int) -> None:
    with (tmp_path / "huge").open("wb") as file:
        try:
            file.truncate(1 << 40)
        except OSError:
            pytest.skip("the file system of temporary files takes none")
    assert find(folder).skipped == [("huge", "size")]


def test_names_that_nobody_can_print(tmp_path: Path, folder: int) -> None:
    for name in (b"new\nline", b"esc\x1b[1m", b"\xff\xfe", b"back\\slash", "bidi\u202e".encode(), b"fine"):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb"):
            pass
    long = tmp_path / ("x" * 200)
    long.mkdir()
    (long / ("y" * 100)).touch()
    found = find(folder)
    assert names(found) == ["fine"]
    assert found.skipped_count == 6
    shown = [path for path, reason in found.skipped if reason == "path"]
    assert "new\\x0aline" in shown
    assert "\\xff\\xfe" in shown
    assert all(len(path) <= 256 for path in shown)


def test_depth_has_an_end(tmp_path: Path, folder: int) -> None:
    deep = tmp_path.joinpath(*"abcdefghi")
    deep.mkdir(parents=True)
    (deep / "tenth").touch()
    here = os.open(deep, os.O_RDONLY)
    for _ in range(300):  # far deeper than any path can name
        os.mkdir("deeper", dir_fd=here)
        below = os.open("deeper", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    found = find(folder)
    assert names(found) == ["a/b/c/d/e/f/g/h/i/tenth"]
    assert found.skipped == [("a/b/c/d/e/f/g/h/i/deeper", "depth")]


def test_a_hundred_thousand_files_take_neither_time_nor_memory(
    tmp_path: Path, folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MAX_ENTRIES", 3000)
    (tmp_path / "many").mkdir()
    for number in range(4000):
        os.close(os.open(tmp_path / "many" / f"{number:05}", os.O_CREAT))
    pulses = []
    found = list_outputs(folder, "main.py", {}, LIMITS, lambda: pulses.append(1))
    assert len(found.files) == 64
    assert len(found.skipped) == 20
    assert found.skipped_count == 3000 - 64
    assert len(pulses) >= 3000 // 256
    assert {reason for _path, reason in found.skipped} == {"count"}


def test_of_many_files_the_first_by_path_come_back(tmp_path: Path, folder: int) -> None:
    for number in range(500):
        (tmp_path / f"{(number * 7) % 500:03}").touch()
    found = find(folder, FileLimits(10, 1, 1))
    assert names(found) == [f"{number:03}" for number in range(10)]
    assert [path for path, _reason in found.skipped] == [f"{number:03}" for number in range(10, 30)]
    assert found.skipped_count == 490


def test_looking_has_a_bound_in_time(tmp_path: Path, folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAX_SECONDS", -1.0)
    for number in range(600):
        (tmp_path / f"{number:03}").touch()
    found = find(folder, FileLimits(256, 1, 1))
    assert 0 < len(found.files) + found.skipped_count < 600


def test_what_is_closed_to_us_is_reported() -> None:
    """Seen by a user that has no rights over everything, as in a pod."""
    with tempfile.TemporaryDirectory() as base:
        path = Path(base)
        path.chmod(0o777)
        (path / "open").touch()
        (path / "closed").mkdir()
        (path / "closed" / "x").touch()
        (path / "closed").chmod(0)
        (path / "secret").write_text("x")
        (path / "secret").chmod(0)
        seen = as_nobody(lambda: hand_over_everything(base))
        (path / "closed").chmod(0o755)
    unreadable = frames.encode(b"U", b'{"index":1}')
    assert seen == repr(
        (["open", "secret"], [("closed", "unreadable")], [frames.encode(b"D", b""), unreadable])
    )


def hand_over_everything(base: str) -> object:
    folder = open_folder(base)
    found, collection = find(folder), Collection(folder)
    collection.announce(b"", "main.py", {}, LIMITS, lambda _data: None)
    return names(found), found.skipped, [pulled(collection, place) for place in range(len(found.files))]


def as_nobody(work: Callable[[], object]) -> str:
    """What `work` returns in a process without root's rights, as `repr` shows it."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if IS_ROOT:
                os.setresuid(NOBODY, NOBODY, NOBODY)
            os.write(theirs, repr(work()).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as answer:
        seen = answer.read().decode()
    os.waitpid(child, 0)
    return seen


def test_a_folder_that_cannot_be_opened_is_reported(
    tmp_path: Path, folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "a").touch()
    real = os.open

    def refuse(path: str, *more: object, **options: object) -> int:
        if path == "closed":
            raise PermissionError(13, "no")
        return real(path, *more, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(listing.os, "open", refuse)
    found = find(folder)
    assert (names(found), found.skipped) == (["a"], [("closed", "unreadable")])


# ---- handing over


def announced(collection: Collection, limits: FileLimits = LIMITS) -> bytes:
    sent: list[bytes] = []
    collection.announce(b"X....", "main.py", {}, limits, sent.append)
    (data,) = sent
    assert data.startswith((b"X....L", b"X....Z")), "in one write"
    return data


def pulled(collection: Collection, index: int) -> bytes:
    """What is sent when a file is asked for."""
    data = bytes(collection.take(index))
    while collection.pulling:
        data += bytes(collection.piece())
    return data


def test_a_file_is_handed_over_in_full_frames(tmp_path: Path, folder: int) -> None:
    data = os.urandom(frames.PIECE_BYTES * 2 + 5)
    (tmp_path / "a").write_bytes(data)
    (tmp_path / "b").write_bytes(b"b")
    collection = Collection(folder)
    announced(collection)
    for _ in range(2):
        pieces = [
            data[start : start + frames.PIECE_BYTES] for start in range(0, len(data), frames.PIECE_BYTES)
        ]
        assert pulled(collection, 0) == b"".join(frames.encode(b"D", piece) for piece in pieces)
    assert pulled(collection, 1) == frames.encode(b"D", b"b")


@pytest.mark.parametrize("change", ["longer", "shorter", "gone", "link", "pipe", "folder", "other"])
def test_a_file_that_is_not_what_was_listed(tmp_path: Path, folder: int, change: str) -> None:
    path = tmp_path / "sub" / "a"
    path.parent.mkdir()
    path.write_bytes(b"12345")
    collection = Collection(folder)
    announced(collection)
    status = path.stat()
    match change:
        case "longer":
            path.write_bytes(b"123456")
        case "shorter":
            path.write_bytes(b"1")
        case "gone":
            path.unlink()
        case "link":
            path.rename(tmp_path / "moved")
            path.symlink_to(tmp_path / "moved")
        case "pipe":
            path.unlink()
            os.mkfifo(path)
        case "folder":
            path.parent.rename(tmp_path / "moved")
            (tmp_path / "sub").symlink_to(tmp_path / "moved")
        case "other":
            (tmp_path / "new").write_bytes(b"54321")
            os.utime(tmp_path / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
            (tmp_path / "new").rename(path)
    assert pulled(collection, 0) == frames.encode(b"U", b'{"index":0}')


def test_a_file_that_shrinks_while_it_is_handed_over(tmp_path: Path, folder: int) -> None:
    (tmp_path / "a").write_bytes(bytes(frames.PIECE_BYTES * 2))
    collection = Collection(folder)
    announced(collection)
    assert collection.take(0) == b""
    assert bytes(collection.piece()[:1]) == b"D"
    os.truncate(tmp_path / "a", 10)
    assert collection.piece() == frames.encode(b"U", b'{"index":0}')
    assert not collection.pulling


def test_only_listed_files_can_be_asked_for_one_at_a_time(tmp_path: Path, folder: int) -> None:
    (tmp_path / "a").write_bytes(b"1")
    collection = Collection(folder)
    with pytest.raises(frames.FrameError):
        collection.take(0)
    announced(collection)
    with pytest.raises(frames.FrameError):
        collection.take(1)
    collection.take(0)
    with pytest.raises(frames.FrameError):
        collection.take(0)
    collection.close()
    assert not collection.pulling


def test_the_end_does_not_wait_for_a_long_search(
    tmp_path: Path, folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubecoderun_runner.collection._PROMPT_SECONDS", -1.0)
    for number in range(600):
        (tmp_path / f"{number:03}").touch()
    sent: list[bytes] = []
    Collection(folder).announce(b"X....", "main.py", {}, LIMITS, sent.append)
    assert sent[0] == b"X...."
    assert sent[1].startswith(b"L")
    assert len(sent) == 2


def test_opening_never_follows_a_link_or_waits(tmp_path: Path, folder: int) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "etc").symlink_to("/etc")
    os.mkfifo(tmp_path / "pipe")
    for path in ("link", "etc/passwd"):
        with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
            open_file(folder, path)
    os.close(open_file(folder, "pipe"))
