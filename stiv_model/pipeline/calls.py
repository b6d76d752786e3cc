"""What diffusers lets one read and change of a call while it runs, from its callback or from another thread."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(eq=False)
class Call:
    """One call of a pipeline; a call has no other's scheduler, and nobody else's values.

    Attributes:
        guidance_scale: of the sampling steps that are left.
        num_timesteps: sampling steps of the whole call.
        interrupt: whether the sampling steps that are left are left out.
        current_timestep: of the sampling step that was made last, from `num_train_timesteps` of the scheduler, noise,
            to 0, data; None outside of sampling.
    """

    guidance_scale: float
    num_timesteps: int
    interrupt: bool = False
    current_timestep: float | None = None


_NESTED: ContextVar[tuple[Call, ...]] = ContextVar("nested", default=())
"""Calls that this thread is in, the outermost first: a callback may call a pipeline."""


@dataclass
class Calls:
    """Those of one pipeline.

    Attributes:
        last: the call that ended last; what a call would be, where there was none.
        running: in all threads, as they began.
    """

    last: Call
    running: list[Call] = field(default_factory=list)

    @contextmanager
    def run(self, call: Call) -> Iterator[Call]:
        """Let `call` be seen while the body runs."""
        token = _NESTED.set((*_NESTED.get(), call))
        self.running.append(call)
        try:
            yield call
        finally:
            self.running.remove(call)
            self.last, call.current_timestep = call, None
            _NESTED.reset(token)

    def seen(self) -> list[Call]:
        """Return which calls are meant here: in a callback its own; elsewhere all that run, else the last."""
        own = [call for call in reversed(_NESTED.get()) if call in self.running]
        return own[:1] or self.running[::-1] or [self.last]


class CallProperties:
    """The names under which pipelines of diffusers show a call and let it be changed.

    `_guidance_scale` and `_interrupt` may be set: in a callback for its own call, elsewhere for all that run. They act
    on the next sampling step.
    """

    _calls: Calls

    @property
    def guidance_scale(self) -> float:
        """Of the call that runs, or ran last; the default before the first."""
        return self._calls.seen()[0].guidance_scale

    @property
    def num_timesteps(self) -> int:
        """Sampling steps of the call that runs, or ran last."""
        return self._calls.seen()[0].num_timesteps

    @property
    def current_timestep(self) -> float | None:
        """Timestep of the sampling step made last, as a callback is told it; None where no call is sampling."""
        return self._calls.seen()[0].current_timestep

    @property
    def interrupt(self) -> bool:
        """Whether the call that runs, or ran last, was told to leave out the sampling steps that were left."""
        return self._calls.seen()[0].interrupt

    @property
    def _guidance_scale(self) -> float:
        return self.guidance_scale

    @_guidance_scale.setter
    def _guidance_scale(self, scale: float) -> None:
        for call in self._calls.seen():
            call.guidance_scale = scale

    @property
    def _interrupt(self) -> bool:
        return self.interrupt

    @_interrupt.setter
    def _interrupt(self, interrupt: bool) -> None:
        for call in self._calls.seen():
            call.interrupt = interrupt
