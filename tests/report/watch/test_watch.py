"""The live page: a real server on a real results folder that grows, read by a real client and written by nobody."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from cnnsearch.errors import RequestError
from cnnsearch.prepare import prepared
from cnnsearch.report import watch as watching
from cnnsearch.report.watch import live, making, rendering, serve, server
from cnnsearch.report.watch.live import Live, Page
from cnnsearch.report.watch.making import Made, Maker
from cnnsearch.results import looking
from cnnsearch.results.folder import Results
from cnnsearch.results.looking import Folder
from cnnsearch.session import execute
from cnnsearch.spec.load import load_sweep
from tests.asking import ask
from tests.conftest import SMALL

ONE_RATE = "stages.dropout.space.dropout.grid=[0.1]"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Part 1 at its smallest and with one dropout rate, run once for this module."""
    with prepared(load_sweep("part1", values=[*SMALL, ONE_RATE]), tmp_path_factory.mktemp("results")) as ready:
        return execute(ready, serial=True).results


@pytest.fixture
def folder(recorded: Path, tmp_path: Path) -> Path:
    """Those results as they were before the first trial ended."""
    path = tmp_path / "part1"
    (path / "trials").mkdir(parents=True)
    for name in ("sweep.yaml", "data.json", "choices.json"):
        shutil.copy(recorded / name, path / name)
    return path


@pytest.fixture
def always_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(looking, "SHARE", 0)


def stages(recorded: Path) -> dict[str, list[Path]]:
    """Stage -> folders of its trials."""
    found: dict[str, list[Path]] = {}
    for trial_id, record in Results(recorded).records().items():
        found.setdefault(record.stage, []).append(recorded / "trials" / trial_id)
    return found


def add(folder: Path, trials: Sequence[Path], *, ended: bool = True) -> None:
    """Trials appear in a folder as they do: begun, and with their records where they ended."""
    for trial in trials:
        target = folder / "trials" / trial.name
        target.mkdir(exist_ok=True)
        for file in trial.iterdir():
            if ended or file.name in ("trial.json", "epochs.jsonl"):
                shutil.copyfile(file, target / file.name)


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything in a folder, with size and time."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in [folder, *folder.rglob("*")]
    }


@dataclass
class Client:
    port: int

    def ask(self, path: str, method: str = "GET", hosts: Sequence[str] | None = None) -> tuple[int, Any, str]:
        """Status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.putrequest(method, path, skip_host=True)
        for host in [f"127.0.0.1:{self.port}"] if hosts is None else hosts:
            connection.putheader("Host", host)
        connection.endheaders()
        answer = connection.getresponse()
        try:
            return answer.status, answer.headers, answer.read().decode()
        finally:
            connection.close()

    def get(self, path: str) -> str:
        status, _, body = self.ask(path)
        assert status == 200
        return body

    def state(self, path: str = "/state") -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.get(path))
        return told

    def when(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The state, once something is true of it."""
        deadline = time.monotonic() + 90
        while not holds(told := self.state()):
            assert time.monotonic() < deadline, told
            time.sleep(0.1)
        return told


@contextmanager
def serving(*folders: Path) -> Iterator[Client]:
    with Live(folders) as pages, server.open_server(pages, 0) as opened:
        thread = threading.Thread(target=opened.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield Client(opened.server_port)
        finally:
            opened.shutdown()
            thread.join()


def words(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


@pytest.mark.after
@pytest.mark.usefixtures("always_looking")
def test_the_report_grows_and_nothing_is_written(recorded: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LEAST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(live, "PAUSES", 0)
    of = stages(recorded)
    with serving(folder) as client:
        with Results(folder).locked():
            before = state_of(folder)
            told = client.state()
            first = client.get("/")
            assert "CNN classifiers trained from scratch" in words(first)
            assert "No trial has ended yet" in words(first)
            assert words(told["bar"]).startswith("part1 a run is being prepared 0 of 10 done · 10 to come")
            assert state_of(folder) == before

            add(folder, of["grid"][:3])
            add(folder, of["grid"][3:4], ended=False)
            before = state_of(folder)
            nothing = told["report"]
            told = client.when(lambda told: not told["report"].startswith("none"))
            assert told["report"] != nothing
            assert "part1 running 3 of 10 done · 1 running · 6 to come" in words(told["bar"])
            assert "stages grid 3/8 · dropout 0/2 best so far" in words(told["head"])
            rows = Results(recorded).trial(of["grid"][3].name).epochs()
            assert f"epoch {rows[-1]['epoch']} of 2" in words(told["head"])
            assert f"accuracy {100 * rows[-1]['val_accuracy']:.1f} %" in words(told["head"])
            content = client.get("/report")
            assert "3 of 10 done" in words(content)
            assert content.count("<svg") >= 3
            assert content in client.get("/")
            assert state_of(folder) == before

            add(folder, [*of["grid"], *of["dropout"]])
            before = state_of(folder)
            told = client.when(lambda now: now["report"] != told["report"] and "10 of 10" in now["bar"])
            assert "all trials ended" in told["bar"]
            assert state_of(folder) == before
        told = client.when(lambda now: "finished" in now["bar"])
        assert "10 of 10 done" in words(client.get("/report"))
        assert told["title"] == "10/10 part1"
        assert words(told["head"]) == ""
    assert {name: size for name, (size, _) in state_of(folder).items() if name != "."} == {
        name: size for name, (size, _) in before.items() if name not in (".", ".lock")
    } | {".lock": 0}


def test_a_report_of_tables_alone(tmp_path: Path, recorded: Path) -> None:
    """A folder may have lost its records to save space."""
    path = tmp_path / "part1"
    shutil.copytree(recorded, path, ignore=shutil.ignore_patterns("trials", "report*", "plots"))
    before = state_of(path)
    with serving(path) as client:
        assert "0 of 10" not in client.state()["bar"]
        told = client.when(lambda now: not now["report"].startswith("none"))
        assert "finished 10 of 10 done" in words(told["bar"])
    assert state_of(path) == before


def test_only_this_machine_reaches_it(folder: Path) -> None:
    with serving(folder) as client:
        client.get("/")
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.2", client.port), timeout=5):
            pass


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "ANYTHING"])
def test_other_methods_are_refused(folder: Path, method: str) -> None:
    with serving(folder) as client:
        status, headers, body = client.ask("/", method)
        assert (status, headers["Allow"], body) == (405, "GET, HEAD", "Only GET and HEAD.\n")


def test_head_is_get_without_its_body(folder: Path) -> None:
    with serving(folder) as client:
        for path in ("/", "/report"):
            status, headers, body = client.ask(path, "HEAD")
            assert (status, body) == (200, "")
            assert int(headers["Content-Length"]) == len(client.get(path).encode())


@pytest.mark.parametrize(
    "hosts",
    [["evil.example"], ["evil.example:8420"], ["127.0.0.1.evil.example"], ["127.0.0.1@evil.example"], ["10.0.0.7"],
     [""], [], ["127.0.0.1", "evil.example"], ["localhost:8420/"], ["localhost:٣"]],
)  # fmt: skip
def test_other_names_are_refused(folder: Path, hosts: list[str]) -> None:
    with serving(folder) as client:
        for path in ("/", "/state", "/report"):
            status, _, body = client.ask(path, hosts=[host.encode().decode("latin-1") for host in hosts])
            assert status == 403
            assert "part1" not in body


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "localhost:9000", "LOCALHOST:1"])
def test_the_near_end_of_a_tunnel_is_known(folder: Path, host: str) -> None:
    with serving(folder) as client:
        assert client.ask("/", hosts=[host])[0] == 200


@pytest.mark.parametrize(
    "path",
    ["/sweep.yaml", "/../sweep.yaml", "/%2e%2e/sweep.yaml", "/trials/", "//etc/passwd", "/etc/passwd", "/1/",
     "/1/state", "/state/", "/report.html", "state", "*", "http://127.0.0.1/", "/..", "/\\..\\"],
)  # fmt: skip
def test_no_path_leads_to_a_file(folder: Path, path: str) -> None:
    with serving(folder) as client:
        assert client.ask(path)[0] == 404


def test_what_a_browser_may_do_with_it(folder: Path) -> None:
    with serving(folder) as client:
        nonces = set()
        for _ in range(2):
            _, headers, body = client.ask("/")
            policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
            assert policy["default-src"] == "'none'"
            assert policy["connect-src"] == "'self'"
            assert policy["script-src"] == policy["style-src"]
            (nonce,) = re.findall(r"^'nonce-([\w-]{20,})'$", policy["script-src"])
            assert len(re.findall(f'<(?:script|style) nonce="{nonce}">', body)) == 3
            assert len(re.findall(r"<(?:script|style)\b", body)) == 3
            assert not re.search(r"(?:src|href)=\"?(?:https?:)?//", body)
            nonces.add(nonce)
        assert len(nonces) == 2
        for path in ("/", "/state", "/report"):
            _, headers, _ = client.ask(path)
            assert headers["Cache-Control"] == "no-store"
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_names_from_files_are_data(recorded: Path, tmp_path: Path) -> None:
    path = tmp_path / "<b>part1" / "x"
    (path / "trials").mkdir(parents=True)
    shutil.copy(recorded / "data.json", path / "data.json")
    text = (recorded / "sweep.yaml").read_text()
    text = re.sub(r"^title:.*$", "title: '<script>alert(1)</script>'", text, flags=re.MULTILINE)
    text = re.sub(
        r"^question:.*\n(?:  .*\n)*", "question: '\"><img src=x onerror=alert(2)>'\n", text, flags=re.MULTILINE
    )
    (path / "sweep.yaml").write_text(text)
    (path / "data.json").write_text("{")
    with serving(path) as client:
        page, told = client.get("/"), client.state()
        assert "&lt;script&gt;alert(1)" in page
        assert "&lt;img src=x onerror" in page
        assert "&lt;b&gt;part1" in told["head"]  # the note of what is damaged
        for html in (page, told["head"], told["bar"]):
            assert "<script>alert" not in html
            assert "<img src=x" not in html
            assert "<b>part1</b> <" in html or "<b>part1" not in html


@pytest.mark.usefixtures("always_looking")
def test_what_is_damaged_is_named_and_the_rest_is_shown(recorded: Path, folder: Path) -> None:
    trials = stages(recorded)["grid"]
    with Results(folder).locked(), serving(folder) as client:
        add(folder, trials[:2])
        add(folder, trials[2:5], ended=False)
        first, _, third, fourth, fifth = (folder / "trials" / trial.name for trial in trials[:5])
        (first / "record.json").write_text('{"trial_id": "')
        (third / "trial.json").write_bytes(b"\xff\x00")
        lines = ['{"epoch": 1, "val_acc', "[]", "7", '{"epoch": "1"}', '{"epoch": 1, "val_loss": [1]}']
        (fourth / "epochs.jsonl").write_text("\n".join(lines))
        (fifth / "epochs.jsonl").unlink()
        (folder / "trials" / "stray").write_text("")
        told = client.state()
        assert "1 of 10 done · 2 running" in words(told["bar"])
        assert f"The record of trial {first.name} is damaged" in words(told["head"])
        assert f"What trial {third.name} is cannot be read" in words(told["head"])
        assert words(told["head"]).count("first epoch") == 2
        (folder / "data.json").write_text("{}x")
        assert "data.json is damaged" in client.state()["head"]
        (folder / "sweep.yaml").write_text("name: [")
        assert "sweep.yaml cannot be read" in client.state()["head"]
        shutil.rmtree(folder)
        assert "There is no folder" in client.state()["head"]
        assert client.ask("/")[0] == 200


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["trial.json", "epochs.jsonl", "record.json"]),
    content=st.binary(max_size=60),
    cut=st.integers(0, 400),
)
def test_no_content_of_a_file_is_an_error(recorded: Path, folder: Path, name: str, content: bytes, cut: int) -> None:
    trial = stages(recorded)["grid"][0]
    add(folder, [trial], ended=name == "record.json")
    file = folder / "trials" / trial.name / name
    file.write_bytes(file.read_bytes()[:cut] + content)
    look = Folder(folder).look()
    page = Page([Folder(folder)])
    assert rendering.state(page, [look])["head"] is not None
    shutil.rmtree(folder / "trials" / trial.name)


def test_what_an_earlier_run_left_does_not_run(recorded: Path, folder: Path) -> None:
    one, other = stages(recorded)["grid"][:2]
    add(folder, [one], ended=False)
    look = Folder(folder).look()
    assert [begun.trial_id for begun in look.left] == [one.name]
    assert (look.running, look.is_held) == ((), False)
    with Results(folder).locked():
        now = Results(folder).lock_file.stat().st_mtime
        os.utime(folder / "trials" / one.name / "trial.json", (now - 60, now - 60))
        add(folder, [other], ended=False)
        look = Folder(folder).look()
        assert [begun.trial_id for begun in look.running] == [other.name]
        assert [begun.trial_id for begun in look.left] == [one.name]


@pytest.mark.usefixtures("always_looking")
def test_a_change_is_seen_in_whatever_order_it_comes(recorded: Path, folder: Path) -> None:
    (trial,) = stages(recorded)["grid"][:1]
    watched, target = Folder(folder), folder / "trials" / trial.name
    target.mkdir()
    assert watched.look().running == watched.look().left == ()
    shutil.copyfile(trial / "trial.json", target / "trial.json")
    assert watched.look().left[0].epochs == ()
    lines = (trial / "epochs.jsonl").read_text().splitlines(keepends=True)
    for count in range(1, len(lines) + 1):
        (target / "epochs.jsonl").write_text("".join(lines[:count]))
        assert len(watched.look().left[0].epochs) == count
    assert watched.look().version == ""
    shutil.copyfile(trial / "record.json", target / "record.json")
    assert (watched.look().left, watched.look().ended) == ((), 1)
    version = watched.look().version
    assert version != ""
    (target / "record.json").unlink()  # another run begins it again
    assert (len(watched.look().left), watched.look().ended, watched.look().version) == (1, 0, "")


class NoMaker(Maker):
    """Says that a report was made, and how long it took."""

    def __init__(self, *answers: Made) -> None:
        self.answers = list(answers)

    def make(self, folders: Sequence[Path], links: Sequence[str]) -> Made:
        return self.answers.pop(0)


@pytest.mark.usefixtures("always_looking")
def test_a_report_is_made_only_for_who_looks_and_not_too_often(recorded: Path, folder: Path) -> None:
    trials = stages(recorded)["grid"]
    page = Page([Folder(folder)])
    add(folder, trials[:1])
    assert not page.is_due()  # nobody looks
    page.looks()
    assert page.is_due()
    page.make(NoMaker(Made("<p>one</p>", seconds=0.0)))
    page._due_at = 0.0
    assert not page.is_due()  # it is the one that would be made
    add(folder, trials[1:2])
    assert page.is_due()
    with Results(folder).locked():
        page.make(NoMaker(Made("<p>two</p>", seconds=1000.0)))
        add(folder, trials[2:3])
        assert page.is_behind(page.looks())
        assert not page.is_due()  # it took long, and a run goes on


@pytest.mark.usefixtures("always_looking")
def test_what_cannot_be_made_leaves_the_last_report(recorded: Path, folder: Path) -> None:
    add(folder, stages(recorded)["grid"][:1])
    page = Page([Folder(folder)])
    looks = page.looks()
    page.make(NoMaker(Made("<p>one</p>", counts=[{"done": 1}], planned=[10])))
    digest = page.digest
    page.make(NoMaker(Made(problem="no <space> left")))
    told = rendering.state(page, looks)
    assert (page.digest, rendering.report(page, looks)) == (digest, "<p>one</p>")
    assert "cannot be made just now: no &lt;space&gt; left" in told["head"]


def test_the_maker_outlives_its_errors(folder: Path, tmp_path: Path) -> None:
    asked = "".join(json.dumps({"folders": [str(path)], "links": []}) + "\n" for path in (tmp_path / "none", tmp_path))
    out = io.StringIO()
    making.main(io.StringIO(asked), out)
    problems = [json.loads(line)["problem"] for line in out.getvalue().splitlines()]
    assert problems == [f"there is no folder {tmp_path / 'none'}",
                        f"{tmp_path} is not the results of a sweep: it has no sweep.yaml; give one of those in it: "
                        f"{folder.name}"]  # fmt: skip


@pytest.mark.after
def test_a_maker_that_died_is_started_again(tmp_path: Path) -> None:
    maker = Maker()
    try:
        assert maker.make([tmp_path / "none"], []).problem.startswith("there is no folder")
        assert maker._process is not None
        maker._process.kill()
        maker._process.wait()
        assert maker.make([tmp_path / "none"], []).problem.startswith("there is no folder")
    finally:
        maker.close()


def test_several_folders_have_a_page_each(recorded: Path, folder: Path) -> None:
    with serving(folder, recorded) as client:
        told = client.state()
        assert re.findall(r'<a href="([^"]+)">', told["bar"]) == ["/1/", "/2/"]
        assert f"part1 ({folder})" in words(told["bar"])  # both sweeps have one name
        assert "10 of 10 done" not in client.state("/1/state")["bar"]
        assert "10 of 10 done" in client.state("/2/state")["bar"]
        assert client.ask("/2/")[0] == 200
        assert client.ask("/3/")[0] == 404


def test_the_usual_port_gives_way_and_a_given_one_does_not(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(server, "PORT", port)
        with server.open_server(Live([folder]), None) as opened:
            assert opened.server_port not in (0, port)
        with pytest.raises(RequestError, match=f"port {port} cannot be had: it is taken"):
            server.open_server(Live([folder]), port)


def test_looking_does_not_wait_for_torch_or_ray() -> None:
    code = (
        "import sys; from cnnsearch.report.watch import making, server; from cnnsearch import report;"
        "from cnnsearch.results import tables;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'ray')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def watch(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "cnnsearch.watch", *map(str, arguments)]


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.after)])
def test_the_command_says_where_and_ends_quietly(folder: Path, number: int) -> None:
    with subprocess.Popen(
        watch(folder, "--port", 0), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        told = re.fullmatch(
            rf"watching {folder}: http://127\.0\.0\.1:(\d+)/ \(Ctrl-C ends it\)\n", running.stdout.readline()
        )
        assert told
        assert "part1" in Client(int(told[1])).get("/")
        running.send_signal(number)
        rest, errors = running.communicate(timeout=30)
    assert (running.returncode, rest, errors) == (0, "", "")


def test_a_wrong_request_is_one_clear_message(folder: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ([folder / "sweep.yaml"], f"{folder / 'sweep.yaml'} is no folder"),
        ([folder, "--port", 70000], "--port 70000: give a number from 0 (any that is free) to 65535"),
    ):
        done = ask(*arguments, command="watch")
        assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {message}\n")


def test_folders_that_are_not_results_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "else").mkdir()
    (folder / "else" / "notes.txt").touch()
    for folders, message in (
        ([folder / "else"], f"{folder / 'else'} is not the results of a sweep: it has no sweep.yaml"),
        ([tmp_path], f"{tmp_path} is not the results of a sweep: it has no sweep.yaml; give one of those in it: part1"),
        ([folder, folder], f"{folder} is given twice: a comparison needs different results folders"),
    ):
        with pytest.raises(RequestError) as refused:
            serve(folders, 0, print)
        assert str(refused.value) == message


def test_a_folder_that_a_run_just_took_is_none_of_them(tmp_path: Path) -> None:
    with Results(tmp_path / "new").locked(), serving(tmp_path / "new") as client:
        assert "new a run is being prepared" in words(client.state()["bar"])
        assert "No trial has ended yet" in words(client.get("/"))


@pytest.mark.parametrize("made", ["nothing", "an empty folder", "what a run makes first"])
def test_a_sweep_that_has_not_begun_is_waited_for(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str
) -> None:
    new, told, looks = tmp_path / "results" / "new", list[str](), list[float]()
    if made != "nothing":
        new.mkdir(parents=True)
    if made == "what a run makes first":
        (new / "trials").mkdir()
        (new / ".lock").touch()

    def begins(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            shutil.copytree(recorded, new, dirs_exist_ok=True)

    monkeypatch.setattr(time, "sleep", begins)
    watching.wait([looking.Folder(new)], told.append)
    assert told == [f"waiting for a sweep to begin in {new} (Ctrl-C ends it)"]
    assert len(looks) == 3
    with serving(new) as client:
        assert "finished" in client.state()["bar"]


def test_what_is_there_is_named_while_another_is_waited_for(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(recorded, tmp_path / "part1")
    told: list[str] = []

    def begins(seconds: float) -> None:
        shutil.copytree(recorded, tmp_path / "prt1")

    monkeypatch.setattr(time, "sleep", begins)
    watching.wait([looking.Folder(tmp_path / "prt1"), looking.Folder(tmp_path / "part1")], told.append)
    assert told == [f"waiting for a sweep to begin in {tmp_path / 'prt1'}; there is part1 beside it (Ctrl-C ends it)"]
