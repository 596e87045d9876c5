"""Files of weights as people save them: the dictionaries of tensors in one, or what the file is instead.

Nothing in a file is run. A torch file may wrap its weights, as in `{"epoch": 3, "model_state_dict": …}`, so all
dictionaries of tensors are found; which of them fits a model is for the caller to say.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from cnnsearch.errors import RequestError
from cnnsearch.storage.contents import HEAD, is_lfs_pointer, is_web_page, kind_of, text_of
from cnnsearch.storage.reading import opened
from cnnsearch.words import LISTED, printable

State = dict[str, Tensor]

_MOST_HEADER = 2**30
"""Most bytes of the JSON at the beginning of a safetensors file."""
_DEEPEST = 3
"""Most keys on the way to a dictionary of tensors."""
_PICKLE = b"\x80"
"""First byte of every pickle that torch has written."""


def read_states(file: Path) -> dict[str, State]:
    """Read every dictionary of tensors in a safetensors or torch file. Code in a pickle is refused, not run.

    Returns:
        Keys that lead to it, joined by dots ("" where the file is nothing else) -> name -> tensor. At least one.

    Raises:
        RequestError: the file cannot be read, or holds no weights; the message says what it is.
    """
    try:
        with opened(file, follow=True) as content:
            return _read(file, content)
    except FileNotFoundError:
        raise RequestError(f"there is no file of weights {file}") from None
    except OSError as error:
        raise RequestError(f"{file} cannot be read as weights: {error.strerror or error}") from None


def _read(file: Path, content: IO[bytes]) -> dict[str, State]:
    head = content.read(HEAD)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < _MOST_HEADER:
        try:
            return {"": load_file(file)}
        except Exception as error:  # whatever it is that damaged bytes cause
            raise RequestError(f"{file} is damaged: it begins like safetensors ({_line(error)})") from None
    is_zip = head.startswith(b"PK\x03\x04")
    if not is_zip and not head.startswith(_PICKLE):
        raise RequestError(f"{file} {_no_weights(head)}")
    content.seek(0)
    if is_zip and (problem := _zip_problem(content)):
        raise RequestError(f"{file} {problem}")
    content.seek(0)
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns of unknown pickles before it refuses them
            tree: Any = torch.load(content, map_location="cpu", weights_only=True)
    except MemoryError:
        raise RequestError(f"{file} needs more memory than there is") from None
    except Exception as error:  # unpickling damaged bytes raises a dozen types; here they mean the same
        raise RequestError(f"{file} {_refused(error)}") from None
    found = dict(_states(tree))
    if not found:
        raise RequestError(f"{file} holds no weights, that is, no names with tensors; {_keys(tree)}")
    return found


def _states(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, State]]:
    if not isinstance(tree, dict) or len(path) > _DEEPEST:
        return
    if tree and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in tree.items()):
        yield ".".join(path), dict(tree)
    for key, value in tree.items():
        if isinstance(key, str):
            yield from _states(value, (*path, key))


def _keys(tree: Any) -> str:
    if not isinstance(tree, dict):
        return f"its content is a {type(tree).__name__}"
    names = [printable(str(key)) for key in tree]
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"its keys are {', '.join(names[:LISTED])}{more}" if names else "it is an empty dictionary"


def _no_weights(head: bytes) -> str:
    """Say what a file is that is neither safetensors nor torch's; worded to follow its name."""
    text = text_of(head)
    if not head:
        return "is empty (0 bytes)"
    if text is not None and is_lfs_pointer(text):
        return "is a Git LFS pointer, not the weights themselves; run git lfs pull"
    if not head.strip(b"\0"):
        return "is not weights (it begins with zeros alone)"
    what = "of no known kind"
    if text is not None:
        what = "a web page" if is_web_page(text) else "text"
    what = kind_of(head) or what
    return f"is not weights (its content is {what}); safetensors and torch state dicts can be read"


def _zip_problem(content: IO[bytes]) -> str | None:
    """Say why a file that begins like a zip archive is no torch file; None if it is one."""
    try:
        with zipfile.ZipFile(content) as archive:
            names = [name.rpartition("/")[2] for name in archive.namelist()]
    except Exception:  # whatever it is that damaged bytes cause
        return "is damaged or not complete: it begins like a torch file, and its end is missing"
    if "constants.pkl" in names:
        return "is a TorchScript program, which could run code; save the state_dict() of its model"
    return None if "data.pkl" in names else "is not weights (its content is a zip archive)"


def _refused(error: Exception) -> str:
    """Say why torch did not load a file; worded to follow its name."""
    if told := re.search(r"[Uu]nsupported (?:(?:global: )?GLOBAL|class) ([\w.]+)", str(error)):
        return f"holds more than tensors ({told[1]}), which could run code; save model.state_dict() alone"
    if isinstance(error, pickle.UnpicklingError):
        return "is a pickle that torch did not write, or is damaged; save model.state_dict() with torch.save"
    return f"is damaged or not complete ({_line(error)})"


def _line(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return printable(lines[0][:120])
