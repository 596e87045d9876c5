"""CUDA graphs: the kernels of a training step, recorded once and launched together from then on.

A step of a small batch takes a GPU less time than the host needs to launch its kernels one by one. How and why each
part is as it is: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

WARM_UP_STEPS = 3
"""Full batches before the one that is recorded: libraries set themselves up in them, and the optimizer its state."""

_LOG = logging.getLogger(__name__)


class Recorder(Protocol):
    """Runs work on a device, or records it to be repeated."""

    def run(self, work: Callable[[], None]) -> None:
        """Do it now, in a way that prepares for recording."""

    def record(self, work: Callable[[], None]) -> Callable[[], object]:
        """Record it without doing it; calling the result does it, on the tensors it was recorded with.

        Raises whatever stands in the way of recording; nothing has been done then, and `run` still works.
        """


class ReplayedStep:
    """A training step that is recorded once it has run a few times. Each call is one step, as without recording.

    Smaller batches are not replayed, and nothing is where recording fails, because a layer waits for the GPU, say.
    """

    def __init__(
        self, step: Callable[[Tensor], None], zero_grad: Callable[[], None], batch_size: int, recorder: Recorder
    ) -> None:
        """See the class.

        Args:
            step: takes rows [B] int64. It changes nothing but tensors, in place and on the device, and leaves
                gradients None, so that those of a replay lie where they lay when it was recorded.
            zero_grad: drops the gradients of a step that was not finished.
            batch_size: rows of a full batch.
            recorder: of the rows' device.
        """
        self._step = step
        self._zero_grad = zero_grad
        self._batch_size = batch_size
        self._recorder = recorder
        self._full_batches = 0
        self._replay: Callable[[Tensor], None] | None = None

    def __call__(self, rows: Tensor) -> None:
        """Take one step."""
        is_full = len(rows) == self._batch_size
        if is_full and self._full_batches == WARM_UP_STEPS:
            self._replay = self._recorded(rows)
        self._full_batches += is_full
        if is_full and self._replay is not None:
            self._replay(rows)
        else:
            self._recorder.run(functools.partial(self._step, rows))

    def _recorded(self, rows: Tensor) -> Callable[[Tensor], None] | None:
        """The step for any rows as many as these; None where it cannot be recorded."""
        static = rows.clone()
        try:
            launch = self._recorder.record(functools.partial(self._step, static))
        except Exception as error:  # of any kind: no step has been taken, and this one still can be
            _LOG.warning("the training step is not recorded as a CUDA graph: %s", " ".join(str(error).split())[:300])
            self._zero_grad()
            return None

        def replay(rows: Tensor) -> None:
            static.copy_(rows)
            launch()

        return replay


class CudaRecorder:
    """Records CUDA graphs of work on the current device."""

    def run(self, work: Callable[[], None]) -> None:
        """See Recorder. On the stream that records: handles and workspaces are made once for each stream."""
        current, side = torch.cuda.current_stream(), _side_stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            work()
        current.wait_stream(side)

    def record(self, work: Callable[[], None]) -> Callable[[], object]:
        """See Recorder.

        A graph keeps its memory for itself, about as much as all steps took so far: it is recorded where that much is
        left. After a failure, nothing is recorded in this process again: PyTorch does not clean up behind one.
        """
        free, _ = torch.cuda.mem_get_info()
        if free < torch.cuda.max_memory_reserved():
            raise RuntimeError(f"it needs as much memory again, and {free / 1e9:.1f} GB are left")
        if _FAILED:
            raise RuntimeError("recording failed before in this process")
        graph, side = torch.cuda.CUDAGraph(), _side_stream()
        try:
            # The outer context leaves the stream again where the inner one fails to.
            with torch.cuda.stream(side), torch.cuda.graph(graph, stream=side):
                work()
        except BaseException:
            _FAILED.append(graph)
            # Dropout would find its generator still recording.
            generator = torch.cuda.default_generators[torch.cuda.current_device()]
            generator.graphsafe_set_state(generator.clone_state())
            raise
        return graph.replay


_FAILED: list[torch.cuda.CUDAGraph] = []
"""Kept, because the allocator goes on asking them whether they still record."""

RECORDERS: dict[str, Callable[[], Recorder]] = {"cuda": CudaRecorder}
"""Device -> what records on it; a device without one gains nothing from it."""


@functools.cache
def _side_stream() -> torch.cuda.Stream:
    """One for all trials of this process: workspaces of libraries stay with a stream for good."""
    return torch.cuda.Stream()
