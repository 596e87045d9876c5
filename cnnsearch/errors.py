"""The exceptions this package raises on purpose.

Each takes a single message, written for the person who made the request, so that it survives pickling between processes
and prints without a traceback.
"""

from __future__ import annotations


class CnnsearchError(Exception):
    """Base of every error below; `exit_code` is what the commands end with."""

    exit_code = 1


class RequestError(CnnsearchError):
    """The request was wrong: nothing was started and nothing was lost."""

    exit_code = 2


class SpecError(RequestError):
    """A sweep file, profile or `--set` that asks for something impossible."""


class DataError(RequestError):
    """Images that are missing, unreadable, or too few for the split."""


class ResultsError(RequestError):
    """A results folder that cannot be read, written or locked."""


class RunError(CnnsearchError):
    """Something outside the trials stopped the run, such as Ray going away."""


class OutOfMemoryError(RunError):
    """A trial needs more memory than its machine could give it."""


class DiskError(RunError):
    """A file cannot be written: the disk is full, read-only or gone."""


class RemoteError(DiskError):
    """A URI that cannot be reached, read or written."""
