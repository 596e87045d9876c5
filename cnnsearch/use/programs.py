"""A network with its normalisation as programs that run without this package: torch.export's, and ONNX."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cnnsearch.data.images import Interpolation
from cnnsearch.use.choose import Chosen
from cnnsearch.use.classifier import classifier

INPUT, OUTPUT = "images", "probabilities"


class StandAlone(nn.Module):
    """A network that takes images as they are decoded, in fp32 on the CPU.

    Shapes: images [B, 3, S, S] uint8, RGB -> probabilities [B, classes].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor, size: int, interpolation: Interpolation) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.contiguous_format)
        self.image_size = size
        self.interpolation: Interpolation = interpolation
        self.register_buffer("mean", mean.view(3, 1, 1))
        self.register_buffer("std", std.view(3, 1, 1))

    @classmethod
    def of(cls, chosen: Chosen, data: str | None = None) -> StandAlone:
        """Build that of a trial; `data` as for `classifier`."""
        found = classifier(chosen, data, device="cpu").network
        mean, std = (torch.tensor(values, dtype=torch.float32) for values in (found.inputs.mean, found.inputs.std))
        size = chosen.record.settings.image_size
        made = cls(found.model, mean, std, size, found.inputs.interpolation)
        return made.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        logits = self.network((images.float() - self.mean) / self.std)
        return cast(Tensor, logits.softmax(1))

    @torch.inference_mode()
    def answer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The same, of arrays."""
        found: NDArray[np.float32] = self(torch.from_numpy(images)).numpy()
        return found


def save_weights(module: StandAlone, chosen: Chosen, file: Path) -> None:
    """Write the network's state dict, without the normalisation."""
    from safetensors.torch import save_file

    weights = {name: value.contiguous().clone() for name, value in module.network.state_dict().items()}
    settings = chosen.record.settings
    facts = {"format": "pt", "model": settings.model, "trial": chosen.record.trial_id}
    save_file(weights, file, metadata=facts)


def exported_program(module: StandAlone) -> torch.export.ExportedProgram:
    """The program of a module, for any number of images at a time."""
    example = torch.zeros((2, 3, module.image_size, module.image_size), dtype=torch.uint8)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, (example,), dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}})
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names files of this machine
    return program


def save_pt2(program: torch.export.ExportedProgram, file: Path) -> None:
    """Write a program so that torch alone reads it."""
    torch.export.save(program, file)


def save_onnx(program: torch.export.ExportedProgram, file: Path) -> None:
    """Write a program as ONNX."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            program,
            (),
            file,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def pt2_answer(file: Path) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """What a program of torch.export answers, read from its file."""
    program = torch.export.load(file).module()

    def answer(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.no_grad():
            found: NDArray[np.float32] = program(torch.from_numpy(images)).numpy()
        return found

    return answer


def onnx_answer(file: Path) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """What onnxruntime answers with a program, read from its file."""
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def answer(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = session.run(None, {INPUT: images})[0]
        return found

    return answer
