"""CUDA graphs: the kernels of a training step, recorded once and launched together from then on.

A GPU computes a step of a small batch in less time than the host needs to launch its kernels one by one. The rules that
this module follows: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

WARM_UP_STEPS = 3
"""Full batches before the one that is recorded. In them libraries initialise, and the optimizer makes its state."""

_LOG = logging.getLogger(__name__)


class Recorder(Protocol):
    """Runs work on a device, or records it so that it can be repeated."""

    def run(self, work: Callable[[], None]) -> None:
        """Do the work now, in a way that prepares for recording."""

    def record(self, work: Callable[[], None]) -> Callable[[], object]:
        """Record the work without doing it.

        Returns:
            A function that does the work, on the tensors it was recorded with.

        Raises:
            Exception: of any kind, if the work cannot be recorded. Nothing has been done then, and `run` still works.
        """


class ReplayedStep:
    """A training step that is recorded after a few runs and then replayed. Each call is one step in either case.

    Batches of another size than the full one are run, not replayed. So is every batch if recording fails, for example
    because a layer waits for the GPU.
    """

    def __init__(
        self, step: Callable[[Tensor], None], zero_grad: Callable[[], None], batch_size: int, recorder: Recorder
    ) -> None:
        """Wrap a step.

        Args:
            step: takes rows [B] int64. It changes nothing but tensors, in place and on the device. It leaves gradients
                None, so that a replay finds its gradients at the addresses they had when it was recorded.
            zero_grad: drops the gradients of a step that was not finished.
            batch_size: rows in a full batch.
            recorder: records on the device of the rows.
        """
        self._step = step
        self._zero_grad = zero_grad
        self._batch_size = batch_size
        self._recorder = recorder
        self._full_batches = 0
        self._replay: Callable[[Tensor], None] | None = None

    def __call__(self, rows: Tensor) -> None:
        """Take one step on rows [B] int64."""
        is_full = len(rows) == self._batch_size
        if is_full and self._full_batches == WARM_UP_STEPS:
            self._replay = self._recorded(rows)
        self._full_batches += is_full
        if is_full and self._replay is not None:
            self._replay(rows)
        else:
            self._recorder.run(functools.partial(self._step, rows))

    def _recorded(self, rows: Tensor) -> Callable[[Tensor], None] | None:
        """Record the step for batches of this size; None if it cannot be recorded."""
        static = rows.clone()
        try:
            launch = self._recorder.record(functools.partial(self._step, static))
        except Exception as error:  # of any kind: no step has been taken, so this one can still be run
            _LOG.warning("the training step is not recorded as a CUDA graph: %s", " ".join(str(error).split())[:300])
            self._zero_grad()
            return None

        def replay(rows: Tensor) -> None:
            static.copy_(rows)
            launch()

        return replay


class CudaRecorder:
    """A `Recorder` that records CUDA graphs on the current device."""

    def run(self, work: Callable[[], None]) -> None:
        """See Recorder. Runs on the stream that records: libraries make handles and workspaces once for each stream."""
        current, side = torch.cuda.current_stream(), _side_stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            work()
        current.wait_stream(side)

    def record(self, work: Callable[[], None]) -> Callable[[], object]:
        """See Recorder.

        A graph keeps memory of its own, about as much as all steps took so far, so it is recorded only if that much is
        free. After a failure nothing is recorded in this process again, because PyTorch does not clean up after one.
        """
        free, _ = torch.cuda.mem_get_info()
        if free < torch.cuda.max_memory_reserved():
            raise RuntimeError(f"it needs as much memory again, and {free / 1e9:.1f} GB are left")
        if _FAILED:
            raise RuntimeError("recording failed before in this process")
        graph, side = torch.cuda.CUDAGraph(), _side_stream()
        try:
            # The outer context leaves the stream even if the inner one fails to.
            with torch.cuda.stream(side), torch.cuda.graph(graph, stream=side):
                work()
        except BaseException:
            _FAILED.append(graph)
            # Otherwise dropout would find its generator still recording.
            generator = torch.cuda.default_generators[torch.cuda.current_device()]
            generator.graphsafe_set_state(generator.clone_state())
            raise
        return graph.replay


_FAILED: list[torch.cuda.CUDAGraph] = []
"""Graphs whose recording failed, kept because the allocator goes on asking them whether they still record."""

RECORDERS: dict[str, Callable[[], Recorder]] = {"cuda": CudaRecorder}
"""Device -> what records on it. Recording gains nothing on other devices."""


@functools.cache
def _side_stream() -> torch.cuda.Stream:
    """Return one stream for all trials of this process: libraries never free a stream's workspaces."""
    return torch.cuda.Stream()
