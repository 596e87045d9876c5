"""Only `systems` knows what systems do differently."""

from __future__ import annotations

import re
from pathlib import Path

import cnnsearch
from tests.systems.like_windows import hidden

PACKAGE = Path(cnnsearch.__file__).parent
OWN = PACKAGE / "systems"
GUARDED = {"warden.py": {"os.set_blocking"}, "packs.py": {"os.posix_fallocate"}}
"""Module -> names that it asks for before it uses them. The warden imports next to nothing."""


def asked(text: str) -> set[str]:
    """Modules and names in a source that only some systems have, and questions for a system's name."""
    names = "|".join(f"{module}[.]{name}" for module, some in hidden.NAMES.items() for name in some.split())
    imported = re.findall(rf"^ *(?:import|from) ({'|'.join(hidden.MODULES)})\b", text, flags=re.MULTILINE)
    return {*imported, *re.findall(rf"\b({names}|sys[.]platform|os[.]name|platform[.]system)\b", text)}


def test_no_other_module_asks_for_a_system_or_for_what_only_some_have() -> None:
    found = {
        file.name: names
        for file in PACKAGE.rglob("*.py")
        if OWN not in file.parents and (names := asked(file.read_text(encoding="utf-8")))
    }
    assert found == GUARDED


def test_what_is_asked_is_found() -> None:
    text = "import os\n    import fcntl\nos.getuid()\nif sys.platform == 'win32':\n    os.killpg(1, signal.SIGKILL)\n"
    assert asked(text) == {"fcntl", "os.getuid", "sys.platform", "os.killpg", "signal.SIGKILL"}
