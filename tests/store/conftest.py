"""The store under test: the one of KCR_STORE_*, else one after the other of the servers started here.

Everything is written under one random prefix, which is removed in the end. One line per store says whether
it works for KubeCodeRun; for a given store it is the last one.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from built import NotBuiltError
from store.bucket import Bucket, tidy
from store.exchange import UnfitError, exchange_with
from store.servers import serving
from store.target import Signer, Target
from store.verdict import Need, Result, verdicts

LOCAL = ("versitygw", "minio")
_RESULTS = pytest.StashKey[list[Result]]()

if os.environ.get("KCR_STORE_ENDPOINT"):
    # about the suite, not about a store
    collect_ignore = ["test_suite.py"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(need): what KubeCodeRun needs the tested ability for")
    config.stash[_RESULTS] = []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "target" in metafunc.fixturenames:
        names = ["given"] if os.environ.get("KCR_STORE_ENDPOINT") else LOCAL
        metafunc.parametrize("target", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The store to test."""
    if request.param == "given":
        try:
            given = Target.from_environment(os.environ)
        except ValueError as error:
            pytest.exit(str(error), returncode=2)
        assert given is not None
        yield given
        return
    try:
        with serving(request.param, tmp_path_factory.mktemp(request.param)) as running:
            yield running.target
    except NotBuiltError as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def signer(target: Target) -> Signer:
    """Signs for the store."""
    return Signer(target)


@pytest.fixture(scope="session")
def prefix(target: Target, signer: Signer) -> Iterator[str]:
    """What all keys of this run begin with; all that is there is removed after the last test."""
    chosen = f"kubecoderun-store-suite-{secrets.token_hex(8)}"
    yield chosen

    async def remove() -> None:
        async with exchange_with(target) as exchange:
            await tidy(Bucket(exchange, signer), chosen)

    asyncio.run(remove())


@pytest.fixture
async def bucket(target: Target, signer: Signer, prefix: str) -> AsyncIterator[Bucket]:
    """The store's bucket, with connections of this test's own."""
    async with exchange_with(target) as exchange:
        yield Bucket(exchange, signer)


def _need(item: pytest.Item) -> Need | None:
    mark = item.get_closest_marker("needs")
    return mark.args[0] if mark else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    need = _need(item)
    if need is None:
        return report
    if call.excinfo is not None and report.failed:
        if isinstance(call.excinfo.value, UnfitError):
            # what is at fault is the store: no traceback of this suite
            report.longrepr = f"{call.excinfo.value}\n{need.explain()}"
        else:
            report.sections.append(("what this is needed for", need.explain()))
    if report.when == "call" or report.failed:
        # one that is expected to fail counts as what it is
        store = item.callspec.params.get("target", "") if hasattr(item, "callspec") else ""
        if store == "given":
            store = item.funcargs["target"].name if "target" in item.funcargs else "the store"
        item.config.stash[_RESULTS].append(Result(store, need, report.passed))
    return report


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not os.environ.get("KCR_STORE_ENDPOINT"):
        _tell(terminalreporter, config)


def pytest_unconfigure(config: pytest.Config) -> None:
    # for a given store the verdict is what was asked for: nothing comes after it
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("KCR_STORE_ENDPOINT") and isinstance(reporter, pytest.TerminalReporter):
        _tell(reporter, config)


def _tell(reporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in verdicts(config.stash[_RESULTS]):
        reporter.write_line(line)
