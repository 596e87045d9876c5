"""The table of faults: what is done to a run, and what is promised to come of it.

A test of a row carries `@pytest.mark.row(n)`; `make test-faults` runs them all and prints the table with results.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One fault."""

    what: str
    """What is done to a run."""
    promise: str
    """What comes of it."""


ROWS = {
    1: Row(
        "SIGKILL a worker in the middle of an epoch",
        "the trial goes on from its last checkpoint; on a CPU the numbers equal an undisturbed run's bit for bit",
    ),
    2: Row(
        "the same trial's worker dies more than the retry limit",
        "failed with cause; the others finish; exit 1",
    ),
    3: Row(
        "SIGKILL the driver at random instants",
        "the same command ends with exactly the planned trials, none twice, same numbers",
    ),
    4: Row(
        "SIGKILL in the middle of writing a checkpoint, a record, a table",
        "the previous whole one is used; partial files are ignored and swept away",
    ),
    5: Row(
        "kill Ray's GCS or raylet",
        "ends within two minutes, with a message and exit 1 unless all is done; the same command continues",
    ),
    6: Row("SIGSTOP a worker", "a watchdog kills and retries it"),
    7: Row(
        "Ctrl-C; Ctrl-C twice; SIGTERM",
        "clean stop within 5 s, exit 130; twice: at once, state intact; SIGTERM as Ctrl-C",
    ),
    8: Row(
        "the disk fills",
        "one clear message, non-zero exit, what was committed stays readable, goes on after space is freed",
    ),
    9: Row(
        "two starts on one results folder",
        "the second is refused and names the owner; a stale lock is taken over",
    ),
    10: Row(
        "a truncated or bit-flipped Parquet table, record, checkpoint or cache file",
        "found by checksum; never silent",
    ),
    11: Row("a results folder of an older schema", "reads; new columns are null"),
    12: Row("the clock jumps a day while it runs", "durations, order and continuing are unaffected"),
    13: Row(
        "NaN or infinite loss",
        "diverged, stopped, never best; all diverged: the report says so, exit 1",
    ),
    14: Row(
        "out of memory in one trial",
        "classified; retried within a limit with less packing; others live",
    ),
    15: Row(
        "an exception in one trial",
        "failed, frame and one-line cause; the worker process is replaced",
    ),
    16: Row(
        "YAML with object tags, an alias bomb, 10 MB of nesting",
        "refused quickly, no code runs",
    ),
    17: Row(
        "a 30,000 x 30,000 px PNG of a few KB, a truncated JPEG, a zip named .jpg, dotfiles, Thumbs.db, an SVG",
        "refused by name before decoding or skipped with a count, as data.on_bad_image says",
    ),
    18: Row(
        "class and file names with spaces, Unicode, right-to-left text, quotes, `<script>`, leading dashes, 255 bytes",
        "round-trip through tables and report; inert in HTML",
    ),
    19: Row(
        "`..`, absolute paths and symlinks out of the tree in names that become paths",
        "refused",
    ),
    20: Row("weights that are a malicious pickle", "refused, payload not run"),
    21: Row("more CPUs or GPUs asked for than exist", "an error, not waiting for ever"),
    22: Row(
        "port 8265 taken; no /dev/shm to speak of; read-only home",
        "works, or one clear message",
    ),
    23: Row("after any exit", "no process that it started remains; temporary folders gone"),
    24: Row(
        "10,000 finished trials, same command",
        "plans and ends in under 10 s, memory under 1 GB",
    ),
    25: Row(
        "disk use",
        "best weights kept for what needs them, others dropped; predicted in the plan",
    ),
}
