"""How far one driver goes: very many trials on a made-up cluster, all of it real but the training.

    python -m benchmarks.scale                                       10,000 trials, 200 places
    python -m benchmarks.scale --trials 500 --slots 50 --seconds 5   a minute

Plan, queue, Ray Tune, records, tables and report are those of any run with `--address`; the cluster is one of several
Ray nodes on this machine, and a trial sleeps. Utilisation is the seconds that trials took over places × seconds.
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import psutil
from rich.console import Console

from benchmarks.forked_workers import SETUP, serving
from benchmarks.simulated import Simulated
from cnnsearch.execution.events import Ended, Event, Started
from cnnsearch.execution.executor import Executor
from cnnsearch.execution.machine.hardware import Layout
from cnnsearch.live_view import LiveView
from cnnsearch.planning.queue import Queue
from cnnsearch.prepare import prepared
from cnnsearch.results.folder import Results
from cnnsearch.session import execute
from cnnsearch.spec.sweep import Sweep

NODES = 4
SEEDS = 10


@dataclass(frozen=True)
class Sample:
    """The driver when some trials had ended."""

    ended: int
    seconds: float
    """Since the run began."""
    rss_bytes: int
    cpu_seconds: float


@dataclass
class Watch:
    """Listens to a run, and notes what it costs the driver."""

    slots: int
    every: int
    out: TextIO = field(default_factory=lambda: sys.stdout)  # a live view has it while it is on
    began: float = field(default_factory=time.time)
    filled_at: float | None = None
    """When every place had a trial for the first time."""
    last_started_at: float = 0.0
    last_ended_at: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    _running: int = 0
    _ended: int = 0

    def __call__(self, event: Event) -> None:
        """Take in one event."""
        if isinstance(event, Started):
            self._running += 1
            self.last_started_at = time.time()
            if self._running == self.slots and self.filled_at is None:
                self.filled_at = self.last_started_at
        elif isinstance(event, Ended):
            self._running -= 1
            self._ended += 1
            self.last_ended_at = time.time()
            if self._ended % self.every == 0:
                self.sample()

    def sample(self) -> None:
        """Note how the driver stands, and say it."""
        process = psutil.Process()
        cpu, seconds = process.cpu_times(), time.time() - self.began
        self.samples.append(Sample(self._ended, seconds, process.memory_info().rss, cpu.user + cpu.system))
        print(self.line(len(self.samples) - 1), file=self.out, flush=True)

    def line(self, index: int) -> str:
        """A sample, and what came since the one before."""
        now, before = self.samples[index], self.samples[max(0, index - 1)]
        passed = max(now.seconds - before.seconds, 1e-9)
        rate, core = (now.ended - before.ended) / passed, (now.cpu_seconds - before.cpu_seconds) / passed
        told = f"{now.ended:>7,} ended after {now.seconds:6.1f} s   driver {now.rss_bytes / 1e6:6.0f} MB"
        return told + (f"   {rate:5.1f} trials/s, {core:.0%} of a core" if index else "")

    @property
    def growth(self) -> float:
        """Bytes that the driver grows by with every trial, from when every place had worked; fitted to the samples."""
        late = [one for one in self.samples if one.ended >= 2 * self.slots]
        if len(late) < 2:
            return float("nan")
        return float(np.polyfit([one.ended for one in late], [one.rss_bytes for one in late], 1)[0])


def make_sweep(trials: int, epochs: int) -> Sweep:
    """A grid of that many trials, a multiple of 40: two models, two batch sizes, learning rates, ten seeds."""
    rates = np.geomspace(1e-5, 1e-1, trials // (4 * SEEDS)).tolist()
    space = {
        "model": {"grid": ["plain", "residual"]},
        "lr": {"grid": [float(f"{rate:.6g}") for rate in rates]},
        "batch_size": {"grid": [16, 32]},
    }
    return Sweep.model_validate(
        {
            "name": "scale",
            "data": {"image_size": 8},
            "train": {"epochs": epochs, "width": 0.1},
            "seeds": list(range(SEEDS)),
            "stages": [{"name": "grid", "space": space}],
        }
    )


@contextmanager
def cluster(slots: int, folder: Path) -> Iterator[str]:
    """A Ray cluster of several nodes on this machine, with light workers; its address."""
    from ray.cluster_utils import Cluster

    with serving(folder):
        made = Cluster()
        try:
            for number in range(NODES):
                share = slots // NODES + (number < slots % NODES)
                made.add_node(num_cpus=share, setup_worker_path=str(SETUP), include_dashboard=False)
            yield made.address
        finally:
            made.shutdown()


def busy_share(results: Results, slots: int, start: float, end: float) -> float:
    """Utilisation between two times: what of each trial falls between them."""
    seconds = 0.0
    for record in results.records().values():
        assert record.started_at is not None
        assert record.seconds is not None
        began = record.started_at.timestamp()
        seconds += max(0.0, min(began + record.seconds, end) - max(began, start))
    return seconds / (slots * (end - start))


def measure(trials: int, slots: int, seconds: float, epochs: int) -> bool:
    """Run, and print the figures; whether every trial was recorded."""
    # Ray notes its newest cluster in its temporary folder, where others would find it.
    with tempfile.TemporaryDirectory(prefix="scale-", dir="/tmp", ignore_cleanup_errors=True) as scratch:
        os.environ |= {"RAY_TMPDIR": scratch, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        from cnnsearch.execution.on_ray import schedule
        from cnnsearch.execution.on_ray.cluster import attached

        began = time.monotonic()
        with prepared(make_sweep(trials, epochs), scratch) as found:
            ready = replace(found, layout=Layout("cpu", slots, 1, 0.0))
            print(f"{ready.plan.total:,} trials planned and estimated in {time.monotonic() - began:.1f} s", flush=True)
            with (
                cluster(slots, Path(scratch)) as address,
                attached(address) as there,
                open(os.devnull, "w", encoding="utf-8") as nowhere,
            ):

                def run(queue: Queue, *shared: Any) -> None:
                    queue.cost = lambda trial: math.inf  # none is so short that several would go out at a time
                    simulated(queue, *shared)

                simulated: Executor = functools.partial(schedule.execute, cluster=there, run_job=Simulated(seconds))

                watch = Watch(slots, max(1, min(1000, trials // 10)))
                watch.sample()
                with LiveView(ready, Console(file=nowhere, force_terminal=True)) as view:

                    def listen(event: Event) -> None:
                        watch(event)
                        view(event)

                    finished = execute(ready, listen=listen, executor=run)
                ended = time.time()
            _print_figures(watch, ready.results.here, slots, ended)
            return sum(finished.counts.values()) == len(finished.tables.trials) == trials


def _print_figures(watch: Watch, results: Results, slots: int, ended: float) -> None:
    if watch.filled_at is None:
        print(f"never were all {slots} places taken at once")
        return
    for name, start, end in (
        ("from when all places were taken to the last trial's start", watch.filled_at, watch.last_started_at),
        ("from when all places were taken to the last trial's end", watch.filled_at, watch.last_ended_at),
        ("from the start of the run to the last trial's end", watch.began, watch.last_ended_at),
    ):
        print(f"{busy_share(results, slots, start, end):6.1%} utilisation {name}, {end - start:.0f} s")
    last = watch.samples[-1]
    print(f"{watch.filled_at - watch.began:.0f} s until all {slots} places were taken")
    print(f"{watch.growth / 1e6:.3f} MB a trial that the driver grew by; {last.rss_bytes / 1e6:.0f} MB at the end")
    print(f"{1000 * (last.cpu_seconds - watch.samples[0].cpu_seconds) / last.ended:.0f} ms of the driver's CPU a trial")
    print(f"{ended - watch.last_ended_at:.0f} s from the last trial's end to Ray's end, tables and report")


def main(arguments: list[str] | None = None) -> int:
    """Measure; 1 where a trial is missing."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--trials", type=int, default=10_000, help="a multiple of 40")
    made.add_argument("--slots", type=int, default=200, help="trials at once")
    made.add_argument("--seconds", type=float, default=10.0, help="a trial takes, on average")
    made.add_argument("--epochs", type=int, default=3, help="of a trial")
    options = made.parse_args(arguments)
    return int(not measure(options.trials, options.slots, options.seconds, options.epochs))


if __name__ == "__main__":
    sys.exit(main())
