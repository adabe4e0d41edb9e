"""Sessions that run, end to end through the real operator."""

from contract.fakes.system import operating


async def test_a_run_succeeds_with_exactly_the_expected_writes() -> None:
    async with operating() as system:
        system.pool()
        await system.ready(2)
        mark = len(system.api.log)
        session = system.session("print:hello")
        status = await system.ended(session)
        assert status["phase"] == "Succeeded"
        assert status["result"]["stdout"] == "hello"
