"""Named arrays in a file, as a trial's predictions and probabilities are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cnnsearch.errors import ResultsError
from cnnsearch.storage.reading import read_bytes
from cnnsearch.words import printable


def read_arrays(file: Path, most: int) -> dict[str, NDArray[Any]]:
    """Read the arrays of a safetensors file of at most `most` bytes; {} where there is no file. Raises ResultsError."""
    from safetensors.numpy import load

    try:
        arrays: dict[str, NDArray[Any]] = load(read_bytes(file, most))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ResultsError(f"{file} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # whatever it is that damaged bytes cause
        raise ResultsError(f"{file} is not what was written: {printable(str(error))}") from None
    return arrays
