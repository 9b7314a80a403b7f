"""What Octopus's Calamari does with the script of an action.

Its bootstrap declares the variables and the functions that scripts use, and then sources the
script, in the folder in which the script and the script modules of its project lie.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PROCESS = HERE.parent / "examples/process.json"
MODULE = HERE.parent / "reprise.sh"


def actions() -> dict[str, Any]:
    """The actions of the example's process, by name."""
    process = json.loads(PROCESS.read_text())
    return {action["Name"]: action for step in process["Steps"] for action in step["Actions"]}


@dataclass(frozen=True)
class Deployment:
    """A deployment of the process to one machine."""

    #: Where Calamari works; what an action runs lies there, as from a package.
    folder: Path
    id: str
    machine: str = "web-01"
    #: Variables of the project.
    variables: Mapping[str, str] = field(default_factory=dict)

    def run(self, action: str) -> int:
        """Runs an action's script, once; how it ends."""
        return self.start(action).wait()

    def start(self, action: str) -> subprocess.Popen[bytes]:
        """Starts an action's script."""
        properties = actions()[action]["Properties"]
        assert properties["Octopus.Action.Script.Syntax"] == "Bash"
        shutil.copy(MODULE, self.folder)
        (self.folder / "script.sh").write_text(properties["Octopus.Action.Script.ScriptBody"])
        (self.folder / "bootstrap.sh").write_text(self._bootstrap(action))
        return subprocess.Popen(["bash", "bootstrap.sh"], cwd=self.folder)

    def _bootstrap(self, action: str) -> str:
        variables = {
            "Octopus.Deployment.Id": self.id,
            "Octopus.Action.Name": action,
            "Octopus.Machine.Name": self.machine,
            **self.variables,
        }
        cases = "".join(
            f"    {shlex.quote(name)}) echo -n {shlex.quote(value)} ;;\n" for name, value in variables.items()
        )
        unknown = '    *) echo "Unrecognized variable \\"$1\\"" ;;\n'
        return f'get_octopusvariable() {{\n  case "$1" in\n{cases}{unknown}  esac\n}}\nsource script.sh\n'


def package(folder: Path, name: str, python: str) -> None:
    """What an action runs, as a program of the package."""
    program = folder / name
    program.write_text(f"#!{sys.executable}\n{python}")
    program.chmod(0o755)


def environment(address: str, binary: Path, folder: Path) -> dict[str, str]:
    """What a machine has: the binary, and where the service is."""
    links = folder / "bin"
    links.mkdir(exist_ok=True)
    if not (links / "reprise").exists():
        (links / "reprise").symlink_to(binary)
    path = os.pathsep.join(filter(None, sys.path))
    return {"PATH": f"{links}:{os.environ['PATH']}", "REPRISE_ADDR": address, "PYTHONPATH": path}
