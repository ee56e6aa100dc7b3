"""Install the package from its own wheel with the lowest versions that it declares, and use it.

    python tests/lower_bounds.py                       # the lowest versions of all direct dependencies and extras
    python tests/lower_bounds.py --extras ""           # without extras
    python tests/lower_bounds.py --newest --python 3.13

Everything happens in a temporary folder: sdist, wheel (built from the sdist), an environment, runs. Needs a package
index, takes minutes, and is no part of `make test`. Exit code 1 if a command fails.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXTRAS = "cluster,frames,jaxmarl,mujoco,onnx,pettingzoo,render,tune,wandb"
LIMIT_S = 1200
TRAIN = "omad.train('probe/push', 'hatd3', 'tiny', loggers=[{}], run_dir='{}')"
CORE = [
    ["omad", "doctor"],
    ["omad", "train", "hatd3", "--task", "games/islands-2", "--preset", "tiny", "--run-dir", "run"],
    ["omad", "eval", "run", "--episodes", "4"],
    ["omad", "runs", "."],
    ["omad", "report", "run", "--out", "page"],
    ["omad", "export", "run", "--out", "numpy-team", "--formats", "numpy", "--check"],
]
"""Words of each command, which together use every dependency."""
OF_EXTRAS = {
    "cluster": [["python", "-c", "from omad.launch_ray import connect; connect()"]],
    "frames": [["python", "-c", "import omad; print(omad.load_run('run').evaluations().to_frame())"]],
    "jaxmarl": [["omad", "check-env", "jaxmarl:MPE_simple_spread_v3?action_type=Continuous", "--steps", "30"]],
    "mujoco": [["omad", "check-env", "mamujoco-obsk1/ant-2x4", "--steps", "30"]],
    "onnx": [["omad", "export", "run", "--out", "team", "--check"]],
    "pettingzoo": [["python", "-c", "import pettingzoo.utils"]],
    "render": [["omad", "render", "run"]],
    "tune": [["python", "-c", "import optuna; optuna.create_study().ask().suggest_float('x', 0.0, 1.0)"]],
    "wandb": [["python", "-c", "import omad; " + TRAIN.format("omad.loggers.Wandb(mode='offline')", "logged")]],
}  # fmt: skip


def uv(folder: Path) -> str:
    """The installer that can choose the lowest versions; into an environment of its own where there is none."""
    if found := shutil.which("uv"):
        return found
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", "uv"], check=True)
    return str(folder / "bin" / "uv")


def install(folder: Path, python: str, extras: list[str], newest: bool) -> Path:
    """An environment with the package in it, from a wheel that was built from the sdist; its folder of programs."""
    tool = uv(folder / "tools")
    subprocess.run([tool, "build", "--quiet", "--python", python, "--out-dir", folder / "dist", ROOT], check=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    subprocess.run([tool, "venv", "--quiet", "--python", python, folder / "env"], check=True)
    into = ["--python", folder / "env" / "bin" / "python"]
    get = [tool, "pip", "install", "--quiet", "--only-binary", ":all:", *into]
    if not newest:  # what a wheel asks for is not direct
        named = [word for extra in extras for word in ("--extra", extra)]
        lowest = ["--resolution", "lowest-direct", "--requirements", ROOT / "pyproject.toml", *named]
        subprocess.run([*get, *lowest], check=True)
    subprocess.run([*get, f"{wheel}[{','.join(extras)}]" if extras else wheel], check=True)
    listed = [tool, "pip", "list", *into, "--format", "json"]
    found = json.loads(subprocess.run(listed, check=True, stdout=subprocess.PIPE).stdout)
    have = {row["name"].lower(): row["version"] for row in found}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needs = [*project["dependencies"], *(need for extra in extras for need in project["optional-dependencies"][extra])]
    for name, bound in sorted({tuple(need.lower().split(">=")) for need in needs}):
        here = have[name.partition("[")[0]]
        higher = (
            "" if newest or (here + ".0.0").startswith(bound + ".") else "  (the declared one does not go with others)"
        )
        sys.stdout.write(f"{name}>={bound}: {here}{higher}\n")
    sys.stdout.flush()
    return folder / "env" / "bin"


def use(programs: Path, commands: list[list[str]], folder: Path) -> list[str]:
    """The commands that failed, whose output is shown."""
    failed = []
    for program, *words in commands:
        said = " ".join([program, *words])
        done = subprocess.run(
            ["timeout", str(LIMIT_S), programs / program, *words], cwd=folder, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        sys.stdout.write(f"{'failed' if done.returncode else 'passed'}: {said}\n")
        if done.returncode:
            failed.append(said)
            sys.stdout.write(done.stdout)
        sys.stdout.flush()
    return failed


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--python", default=f"{sys.version_info.major}.{sys.version_info.minor}", help="version or path")
    words.add_argument("--extras", default=EXTRAS, help="comma-separated; empty for none")
    words.add_argument("--newest", action="store_true", help="the newest versions instead of the lowest")
    options = words.parse_args()
    extras = [extra for extra in options.extras.split(",") if extra]
    with tempfile.TemporaryDirectory(prefix="omad-bounds-") as name:
        folder = Path(name)
        programs = install(folder, options.python, extras, options.newest)
        (folder / "runs").mkdir()
        commands = CORE + [command for extra in extras for command in OF_EXTRAS[extra]]
        failed = use(programs, commands, folder / "runs")
    passed = len(commands) - len(failed)
    sys.stdout.write(f"{passed} passed, {len(failed)} failed\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
