"""Images and outputs of frozen layers exist once on a machine, whatever the number of trials."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from cnnsearch.execution.events import EpochDone, Event
from cnnsearch.prepare import prepared
from cnnsearch.session import execute
from cnnsearch.spec.load import load_sweep
from tests.faults.running import workers

SWEEP = """
name: memory
data: {image_size: 32}
train: {model: plain, width: 0.1, fine_tune: last-1-convs, epochs: 60, precision: fp32}
run: {dashboard: false, trials_at_once: 2}
stages:
  - name: grid
    space: {lr: {grid: [0.001, 0.002, 0.003, 0.004]}}
"""


class Mapped:
    """Memory of this run's processes that maps a file, at the moment when they hold most of it."""

    def __init__(self, *names: str) -> None:
        self.found: dict[str, list[tuple[int, int]]] = {name: [] for name in names}
        """Part of a file's path -> resident and proportional bytes in each process."""

    def __call__(self, event: Event) -> None:
        if not isinstance(event, EpochDone):
            return
        mapped = [worker.memory_maps(grouped=True) for worker in workers()]
        for name, most in self.found.items():
            # A worker that has just begun another trial maps a file twice.
            parts = [[part for part in maps if name in part.path] for maps in mapped]
            now = [(max(part.rss for part in some), sum(part.pss for part in some)) for some in parts if some]
            if (len(now), sum(rss for rss, _ in now)) >= (len(most), sum(rss for rss, _ in most)):
                self.found[name] = now


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not hasattr(psutil.Process, "memory_maps"), reason="the system tells of no mappings")
def test_two_trials_share_images_and_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each worker has what it needs of a file in its memory, and together they take that memory once."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("CNNSEARCH_CACHE", str(cache))
    (tmp_path / "sweep.yaml").write_text(SWEEP, encoding="utf-8")
    with prepared(load_sweep(str(tmp_path / "sweep.yaml")), tmp_path / "out") as ready:
        images = ready.dataset.images_path
        mapped = Mapped(str(images), str(cache / "features"))
        finished = execute(ready, listen=mapped)
    assert finished.exit_code == 0
    (features,) = (cache / "features").glob("*.pt")
    for name, file in ((str(images), images), (str(cache / "features"), features)):
        (rss, pss), (other_rss, other_pss) = mapped.found[name]
        size = file.stat().st_size
        assert min(rss, other_rss) > 0.25 * size  # not all of it: test images are not read before a trial's end
        assert pss + other_pss < 0.75 * (rss + other_rss)
        assert pss + other_pss < 1.02 * size + 2**16
