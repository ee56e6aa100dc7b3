"""What holds of the source as a whole: import order, silent import, no fixed keys, no pickles."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import omad

ROOT = Path(omad.__file__).parent
MODULES = {
    ".".join(("omad", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}

LAYERS = (
    ("errors", "tasks", "spec", "cgroups", "processes", "compilation"),
    ("types", "keys", "tree", "schema", "files", "device", "extras"),
    ("demonstrations", "reward_norm", "standardise", "symmetry"),
    ("ops", "buffer", "diffusion"),
    ("nets", "critic_nets", "policies"),
    ("algos", "envs"),
    ("presets",),
    ("derived", "config"),
    ("config_file",),
    ("console", "evaluate", "run", "report"),
    ("callbacks", "episodes", "loggers", "trust"),
    ("loop", "launch", "launch_ray", "study", "export"),
    ("manifest", "policy"),
    ("experiment",),
    ("saved", "trained"),
    ("api",),
    ("cli", "commands", "__main__"),
)
"""Lower layers never import higher ones. `tasks` reads the standard library only, so anyone may read it."""
STRANGERS = {"algos": "envs", "envs": "algos"}
"""One layer, but neither may import the other."""
TOP = {"api", "cli", "commands", "__main__"}
"""Where users come in; these may import whatever is below."""


def part(module: str) -> str:
    """`omad.ops.categorical` -> `ops`."""
    return module.split(".")[1] if "." in module else ""


def imports(path: Path, at_import: bool = False) -> Iterator[str]:
    """Modules that a file imports, anywhere in it or only when it is imported itself."""
    tree = ast.parse(path.read_text())
    nodes: list[ast.AST] = list(ast.walk(tree))
    if at_import:
        inside = {
            id(below)
            for node in nodes
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
            for below in ast.walk(node)
        }
        nodes = [node for node in nodes if id(node) not in inside]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else str(node.module)


def height(name: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if name in layer)


def test_every_module_has_a_place_in_the_order() -> None:
    """A new module is put into a layer on purpose."""
    known = {name for layer in LAYERS for name in layer}
    assert {part(module) for module in MODULES} - {""} <= known


@pytest.mark.parametrize("module", [name for name in MODULES if part(name)])
def test_lower_layers_do_not_import_higher_ones(module: str) -> None:
    """Neighbours of one layer may know each other, except for algorithms and environments."""
    own = part(module)
    for imported in imports(MODULES[module]):
        other = part(imported) if imported.split(".")[0] == "omad" else ""
        if other:
            assert height(other) <= height(own), f"{module} imports {imported}"
            assert STRANGERS.get(own) != other, f"{module} imports {imported}"


SHARED = {"critics", "delayed", "denoising", "omad_ablations", "sequential", "validate", "value_head"}
"""Modules of `algos` that algorithms are put together from, beside `algos.configs`; every other one is an algorithm."""


def test_no_algorithm_imports_another() -> None:
    """Only the registry knows them all, by name; what is shared knows none."""
    parts = {name for name in MODULES if name.startswith("omad.algos.configs")}
    parts |= {f"omad.algos.{name}" for name in SHARED}
    algorithms = {name for name in MODULES if part(name) == "algos"} - parts - {"omad.algos"}
    for module in algorithms | (parts & set(MODULES)):
        assert not (set(imports(MODULES[module])) & (algorithms | {"omad.algos"}) - {module}), module


def test_no_two_algorithms_repeat_each_other() -> None:
    """No 15 lines in a row, blank ones and indentation aside, stand in two files: what is shared stands once."""
    length, seen = 15, dict[tuple[str, ...], str]()
    for module in sorted(name for name in MODULES if part(name) == "algos"):
        lines = [line.strip() for line in MODULES[module].read_text().splitlines() if line.strip()]
        for window in {tuple(lines[i : i + length]) for i in range(len(lines) - length + 1)}:
            first = seen.setdefault(window, module)
            assert first == module, f"{first} and {module} both have:\n" + "\n".join(window)


def test_the_table_of_tasks_reads_the_standard_library_only() -> None:
    """It is read by whoever lists tasks, without waiting for JAX."""
    for module in (name for name in MODULES if part(name) in ("tasks", "errors")):
        top = {imported.split(".")[0] for imported in imports(MODULES[module])}
        assert top <= sys.stdlib_module_names | {"omad"}


def test_reports_do_not_import_jax() -> None:
    """Files in, tables and figures out; JAX is not needed for that, nor is anything that imports it."""
    light = {"report", "tasks", "errors", "run", "schema", "files"}
    for module in MODULES:
        if part(module) == "report":
            for imported in imports(MODULES[module]):
                assert imported.split(".")[0] not in {"jax", "jaxlib", "equinox", "optax"}, module
                assert imported.split(".")[0] != "omad" or part(imported) in light, f"{module}: {imported}"


@pytest.mark.parametrize("module", list(MODULES))
def test_no_key_is_made_of_a_literal(module: str) -> None:
    """Every draw hangs on the seed of the run; where only shapes are asked for, nothing is drawn."""
    tree = ast.parse(MODULES[module].read_text())
    shapes = {
        id(below)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "jax.eval_shape"
        for below in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            makes_key = node.func.attr in {"key", "PRNGKey"} and "random" in ast.dump(node.func.value)
            literal = makes_key and id(node) not in shapes and any(isinstance(arg, ast.Constant) for arg in node.args)
            assert not literal, f"{module}:{node.lineno}"
            assert node.func.attr != "PRNGKey", f"{module}:{node.lineno}: untyped key"


@pytest.mark.parametrize("module", list(MODULES))
def test_no_pickles_and_no_silenced_warnings(module: str) -> None:
    """A pickle runs whatever its author wrote; a silenced warning hides what its author did not."""
    top = {imported.split(".")[0] for imported in imports(MODULES[module])}
    assert not top & {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
    text = MODULES[module].read_text()
    assert "filterwarnings" not in text and "simplefilter" not in text


HEAVY = {"mujoco", "jaxmarl", "gymnax", "matplotlib", "gymnasium", "gymnasium_robotics", "pettingzoo", "mpe2", "ray"}


@pytest.mark.parametrize("module", [name for name in MODULES if part(name) not in {"report", "run", "", *TOP}])
def test_optional_packages_are_imported_where_they_are_used(module: str) -> None:
    """Not when a module is imported."""
    top = {imported.split(".")[0] for imported in imports(MODULES[module], at_import=True)}
    assert not top & HEAVY


IMPORT = """
import sys, warnings
argv, filters = list(sys.argv), list(warnings.filters)
out, err, hook = sys.stdout, sys.stderr, sys.excepthook
import {module}
assert sys.argv == argv and sys.argv[1:] == ["--seed", "3"], sys.argv
assert (sys.stdout, sys.stderr, sys.excepthook) == (out, err, hook)
light = {light}
if light:
    assert list(warnings.filters) == filters, warnings.filters
    heavy = {{"jax", "numpy", "equinox", "matplotlib"}} & set(sys.modules)
    assert not heavy, heavy
else:
    # What JAX and its friends add themselves is theirs; this project adds nothing.
    assert not [f for f in warnings.filters if f not in filters and f[3] is not None and "omad" in str(f[3])]
"""


@pytest.mark.parametrize(("module", "light"), [("omad", True), ("omad.tasks", True), ("omad.algos.omad", False)])
def test_import_is_silent_and_leaves_the_process_as_it_was(module: str, light: bool) -> None:
    """Nothing is printed, arguments and warning filters stay, and `import omad` does not wait for JAX."""
    code = IMPORT.format(module=module, light=light)
    done = subprocess.run(
        [sys.executable, "-c", code, "--seed", "3"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and done.stderr == ""


def test_no_function_is_longer_than_a_screen_and_a_half() -> None:
    """80 lines; what makes an algorithm holds its losses and updates, and may be longer."""
    long = {
        f"{module}:{node.name}"
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= 80
        if not (module.startswith("omad.algos.") and node.name.startswith("make"))
    }
    assert not long


def test_what_only_linux_has_stands_in_few_places() -> None:
    """Where it is replaced or left out elsewhere, so that JAX tasks can be trained on macOS."""
    places = {
        module: set(re.findall(r"sched_[gs]etaffinity|prctl|/proc/", MODULES[module].read_text())) for module in MODULES
    }
    assert {module: found for module, found in places.items() if found} == {
        "omad.cgroups": {"/proc/"},  # none of its limits where that is not there
        "omad.processes": {"sched_getaffinity", "sched_setaffinity", "prctl"},
        "omad.run.machine": {"/proc/"},  # the processor's name
        "omad.commands.doctor": {"/proc/"},  # whether there is a GPU
    }


def test_messages_to_users_are_sentences() -> None:
    """Where a message ends in a word of its own, not in what was given, it ends in a full stop or a question mark."""
    cut: list[str] = []
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and node.args and ast.unparse(node.func) == "UserError"):
                continue
            last = node.args[0].values[-1] if isinstance(node.args[0], ast.JoinedStr) else node.args[0]
            if isinstance(last, ast.Constant) and not str(last.value).rstrip().endswith((".", "?")):
                cut.append(f"{name}:{node.lineno} ends with {last.value!r}")
    assert not cut, cut
