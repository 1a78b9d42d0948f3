"""Where the acts play: a scenario, its traffic, and the panel that follows both."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

import yaml
from rich.live import Live

from inference_common.errors import KubeError
from support.demo.view import Row, Said, Scene, panel
from support.repository import EXAMPLES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from rich.console import Console

    from support.scenario import Scenario
    from support.traffic import Traffic, Window

_REFRESH_S: Final = 0.5
ANSWERS_PER_STEP: Final = 200


class UnexpectedVerdictError(Exception):
    """The analysis said something else than the act is about; a busy machine can do that."""


class Stage:
    """One act: it shows each command that a user would type, and keeps a row for each step."""

    def __init__(
        self,
        console: Console,
        scenario: Scenario,
        *,
        title: str,
        versions: Sequence[str],
        weights: Callable[[], Awaitable[Mapping[str, int | None]]],
    ) -> None:
        """``weights`` reads the weights from the object that carries them."""
        self.rows: list[Row] = []
        self.verdicts: list[Said] = []
        self.scenario = scenario
        self._console = console
        self._title = title
        self._versions = versions
        self._read_weights = weights
        self._traffic: Traffic | None = None
        self._scene = Scene(
            title=title,
            command="",
            waiting_for="",
            weights={},
            versions=versions,
            window=None,
            failed_total=0,
        )

    @contextlib.asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """Show the live panel for as long as the act plays."""
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            task = asyncio.create_task(self._refresh(live))
            try:
                yield
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    def follow(self, traffic: Traffic) -> None:
        """Count the answers of this traffic from now on."""
        self._traffic = traffic

    async def apply_example(self, name: str) -> None:
        """Apply a file of manifests/examples as it is."""
        self.command(f"kubectl apply -f manifests/examples/{name}")
        await self.scenario.apply(*yaml.safe_load_all((EXAMPLES / name).read_text()))

    async def argo(self, *args: str) -> None:
        """Show and run ``kubectl argo rollouts ARGS``."""
        self.command("kubectl argo rollouts " + " ".join(args))
        await self.scenario.argo(*args)

    def command(self, text: str) -> None:
        """Show what a user would type for what happens next."""
        self._change(command=text)
        if not self._console.is_terminal:
            self._console.print(f"$ {text}", highlight=False, markup=False)

    def verdict(self, phase: str, text: str, *, expected: str) -> None:
        """Keep and show what the analysis said at the end of an AnalysisRun.

        Raises UnexpectedVerdictError, because the act cannot go on.
        """
        if phase != expected:
            raise UnexpectedVerdictError(
                f"{self._title}: the AnalysisRun is {phase}, not {expected}.\n{text}\nThe "
                "simulated servers share this machine: where it is busy they differ by themselves. "
                "Try again when it is idle."
            )
        self.verdicts.append(Said(act=self._title, phase=phase, text=text))
        self._change(said=text)
        if not self._console.is_terminal:
            shown = "\n".join(f"  | {line}" for line in text.splitlines())
            self._console.print(shown, highlight=False, markup=False)

    async def wait(self, what: str, condition: Awaitable[Any]) -> None:
        """Say what is awaited, and await it."""
        self._change(waiting_for=what)
        if not self._console.is_terminal:
            self._console.print(f"  waiting for {what}", highlight=False)
        await condition

    async def record(self, step: str, answers: int = ANSWERS_PER_STEP) -> Window:
        """Collect that many answers under the present weights and keep them as a row."""
        if self._traffic is None:
            raise RuntimeError("record needs traffic: call follow first")
        self._traffic.mark()
        self._change(waiting_for=f"{answers} answers at these weights")
        window = await self._traffic.until_answers(answers)
        await self._keep(step, window)
        return window

    async def record_harm(self, step: str, window: Window) -> None:
        """Keep the answers of a time in which requests fail, as the act wants it, as a row."""
        await self._keep(step, window, harmed=True)

    async def _keep(self, step: str, window: Window, *, harmed: bool = False) -> None:
        row = Row(
            act=self._title,
            step=step,
            weights=await self._read_weights(),
            versions=self._versions,
            window=window,
            harmed=harmed,
        )
        self.rows.append(row)

    def _change(self, **what: Any) -> None:
        fields = {name: getattr(self._scene, name) for name in Scene.__slots__}
        self._scene = Scene(**(fields | what))

    async def _refresh(self, live: Live) -> None:
        while True:
            with contextlib.suppress(KubeError):
                self._change(weights=await self._read_weights())
            if self._traffic is not None:
                self._change(
                    window=self._traffic.window(), failed_total=len(self._traffic.failures)
                )
            live.update(panel(self._scene), refresh=self._console.is_terminal)
            await asyncio.sleep(_REFRESH_S)
