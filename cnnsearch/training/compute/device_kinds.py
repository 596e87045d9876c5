"""Kinds of device that torch computes on: what each can do, and torch's functions for it.

Training asks these facts, not for a kind by its name. Of the GPUs only NVIDIA's have run anything yet; what is said of
the others follows torch's documentation and source.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils import _foreach_utils

from cnnsearch.systems import processes


class Device:
    """A kind of device. The facts are a GPU's where a kind does not say otherwise."""

    name: ClassVar[str]
    """As torch and records call it."""
    has_float64: ClassVar[bool] = True
    has_graphs: ClassVar[bool] = False
    """Whether a training step may be recorded and replayed, which asks for a learning rate in the device's memory."""
    memory_format: ClassVar[torch.memory_format] = torch.channels_last
    """Order in memory of images, maps and the weights of convolutions."""
    evaluated_numbers: ClassVar[int] = 4_000_000
    """Count of input numbers that are evaluated at once."""
    probe_width, probe_side = 512, 32
    """Channels and side of the maps with which precisions are timed: large enough that computing takes longer than
    launching kernels."""

    def is_available(self) -> bool:
        """Whether torch can compute on one here."""
        raise NotImplementedError

    def has_bf16(self) -> bool:
        """Whether it computes in bf16. Where it does so slowly, a probe finds that out."""
        return True

    @functools.cached_property
    def has_fused_optimizers(self) -> bool:
        """Whether torch has fused optimizers for it."""
        return self.name in _foreach_utils._get_fused_kernels_supported_devices()

    def gpus(self) -> list[tuple[str, int]]:
        """Return name and memory in bytes of each one; 0 where torch does not say."""
        raise NotImplementedError

    def seed(self, seed: int) -> None:
        """Seed its generator."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Undo what an earlier trial of this process may have left behind."""
        raise NotImplementedError

    def peak_memory_bytes(self) -> int:
        """Return the most memory that its allocator has taken since `prepare`."""
        raise NotImplementedError

    def lent(self) -> contextlib.AbstractContextManager[None]:
        """Put back, after the block, its generators and settings."""
        raise NotImplementedError


class Cpu(Device):
    """The processor."""

    name = "cpu"
    evaluated_numbers = 400_000  # 128 images of 32×32: more is no faster, and the activations take memory
    probe_width, probe_side = 64, 16

    def is_available(self) -> bool:
        """See Device."""
        return True

    def gpus(self) -> list[tuple[str, int]]:
        """See Device."""
        return []

    def seed(self, seed: int) -> None:
        """See Device."""
        torch.default_generator.manual_seed(seed)

    def prepare(self) -> None:
        """See Device. The processor's own state is set by `device.reset_process`."""

    def peak_memory_bytes(self) -> int:
        """Return the most memory of this process so far, with pages that it shares."""
        return processes.peak_memory_bytes()

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """See Device."""
        drawn = torch.get_rng_state()
        try:
            yield
        finally:
            torch.set_rng_state(drawn)


class Cuda(Device):
    """NVIDIA's GPUs."""

    name = "cuda"
    has_graphs = True

    def is_available(self) -> bool:
        """See Device."""
        return torch.cuda.is_available()

    def gpus(self) -> list[tuple[str, int]]:
        """See Device."""
        found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        return [(facts.name, int(facts.total_memory)) for facts in found]

    def seed(self, seed: int) -> None:
        """See Device."""
        torch.cuda.manual_seed(seed)

    def prepare(self) -> None:
        """See Device."""
        torch.set_float32_matmul_precision("high")
        # So that a trial that goes on from a checkpoint ends with the same bits as one that was never stopped.
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def peak_memory_bytes(self) -> int:
        """See Device."""
        return int(torch.cuda.max_memory_reserved())

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """See Device."""
        drawn = torch.cuda.get_rng_state_all()
        matmul, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn
        deterministic, benchmark = cudnn.deterministic, cudnn.benchmark
        try:
            yield
        finally:
            torch.cuda.set_rng_state_all(drawn)
            torch.set_float32_matmul_precision(matmul)
            cudnn.deterministic, cudnn.benchmark = deterministic, benchmark


class Xpu(Device):
    """Intel's GPUs."""

    name = "xpu"

    def is_available(self) -> bool:
        """See Device."""
        return torch.xpu.is_available()

    def has_bf16(self) -> bool:
        """See Device."""
        asked: Any = getattr(torch.xpu, "is_bf16_supported", None)  # torch has it from 2.7 on
        return asked is None or bool(asked())

    def gpus(self) -> list[tuple[str, int]]:
        """See Device."""
        found: list[Any] = [torch.xpu.get_device_properties(index) for index in range(torch.xpu.device_count())]
        return [(str(facts.name), int(facts.total_memory)) for facts in found]

    def seed(self, seed: int) -> None:
        """See Device."""
        torch.xpu.manual_seed(seed)

    def prepare(self) -> None:
        """See Device."""
        torch.xpu.empty_cache()
        torch.xpu.reset_peak_memory_stats()

    def peak_memory_bytes(self) -> int:
        """See Device."""
        return int(torch.xpu.max_memory_reserved())

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """See Device."""
        drawn = torch.xpu.get_rng_state_all()
        try:
            yield
        finally:
            torch.xpu.set_rng_state_all(drawn)


class Mps(Device):
    """The GPU of an Apple computer, which shares the memory of the processor."""

    name = "mps"
    has_float64 = False
    # Where tensors are not in the usual order, some operations of older versions of macOS and torch wrote their results
    # to a copy, and said nothing.
    memory_format = torch.contiguous_format

    def is_available(self) -> bool:
        """See Device."""
        return torch.backends.mps.is_available()

    def has_bf16(self) -> bool:
        """See Device. macOS has it from 14 on."""
        return torch.backends.mps.is_macos_or_newer(14, 0)

    def gpus(self) -> list[tuple[str, int]]:
        """See Device. The memory is what Metal recommends to use at most."""
        asked: Any = getattr(torch.backends.mps, "get_name", None)  # newer versions of torch have it
        return [(str(asked()) if asked else "Apple GPU", int(torch.mps.recommended_max_memory()))]

    def seed(self, seed: int) -> None:
        """See Device."""
        torch.mps.manual_seed(seed)

    def prepare(self) -> None:
        """See Device."""
        torch.mps.empty_cache()

    def peak_memory_bytes(self) -> int:
        """Return what the allocator holds now: it keeps no peak, but keeps most of what it was given."""
        return int(torch.mps.driver_allocated_memory())

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """See Device."""
        drawn = torch.mps.get_rng_state()
        try:
            yield
        finally:
            torch.mps.set_rng_state(drawn)


DEVICES: dict[str, Device] = {device.name: device for device in (Cuda(), Xpu(), Mps(), Cpu())}
"""Every kind by its name; of those that are available, `auto` takes the first."""


def available() -> list[Device]:
    """Return the kinds that this process can compute on, the one to take first; the processor is the last."""
    return [device for device in DEVICES.values() if device.is_available()]


def device_of(tensor: Tensor) -> Device:
    """Return the kind of device that a tensor is on."""
    return DEVICES[tensor.device.type]


def in_order(tensor: Tensor) -> Tensor:
    """Return images or maps [B, C, H, W] in the order that their device takes them in."""
    return tensor.contiguous(memory_format=device_of(tensor).memory_format)
