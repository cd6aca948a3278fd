"""The floors of the house: reads every import and proves that a line of code knows only what lies below it."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {"schemas": 1, "models": 2, "store": 2, "stages": 3, "pipeline": 4, "cluster": 5, "cli": 6}
MODULES = [path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))]


def imports(path: Path) -> list[tuple[str, int, int]]:
    """Every imported module of a file: its name (with leading dots), line, and column."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno, node.col_offset) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(("." * node.level + (node.module or ""), node.lineno, node.col_offset))
    return found


def target_of(path: Path, name: str) -> list[str]:
    """Where a relative import leads to, from the root."""
    depth = len(path.relative_to(ROOT).parts) - 1
    dots = len(name) - len(name.lstrip("."))
    return [*path.relative_to(ROOT).parts[: depth - dots + 1], *filter(None, name.lstrip(".").split("."))]


def floor_of(path: Path, name: str) -> str | None:
    """The floor that a relative import leads to; None for one outside the floors (the version)."""
    parts = target_of(path, name)
    return parts[0] if parts and parts[0] in FLOORS else None


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_lead_down(path: Path) -> None:
    mine = path.relative_to(ROOT).parts[0]
    for name, line, _ in imports(path):
        assert not name.startswith("saliency_prompt"), f"line {line}: imports inside the package are relative"
        if name == "ray" or name.startswith("ray."):
            assert mine == "cluster", f"line {line}: only cluster/ knows Ray"
        if name.split(".")[0] in ("torch", "torchvision"):
            assert mine != "schemas", f"line {line}: schemas do without torch"
        target = floor_of(path, name) if name.startswith(".") else None
        if target is not None and target != mine:
            below = FLOORS[target] < FLOORS[mine] and (mine, target) != ("models", "store")
            assert below, f"line {line}: {mine} may not import {target}"


PRODUCERS = ROOT / "stages" / "producers"


@pytest.mark.parametrize("path", sorted(PRODUCERS.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_producer_imports_a_sibling(path: Path) -> None:
    mine = path.relative_to(PRODUCERS).parts[0].removesuffix(".py")
    for name, line, _ in imports(path):
        target = target_of(path, name) if name.startswith(".") else []
        if mine != "registry" and target[:2] == ["stages", "producers"]:
            assert target[2] in (mine, "contract", "featured"), f"line {line}: {mine} may not import {target[2]}"


RECIPES = ROOT / "stages" / "recipes"
TRAINING = [
    *sorted((ROOT / "stages" / "training").rglob("*.py")),
    *sorted((ROOT / "stages" / "instances").glob("*.py")),
]
FAMILIES = {"densecl", "mask_rcnn", "queries", "solo", "unilseg"}  # folders of models/
HOSTS = {"knet", "queryinst", "mask2former"}  # folders of models/queries/


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_recipe_imports_a_sibling(path: Path) -> None:
    mine = path.relative_to(RECIPES).parts[0].removesuffix(".py")
    for name, line, _ in imports(path):
        target = target_of(path, name) if name.startswith(".") else []
        if target[:2] == ["stages", "recipes"]:
            assert target[2] == mine, f"line {line}: {mine} may not import {target[2]}"


@pytest.mark.parametrize("path", TRAINING, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_harness_knows_no_recipe(path: Path) -> None:
    for name, line, _ in imports(path):
        target = target_of(path, name) if name.startswith(".") else []
        assert target[:2] != ["stages", "recipes"], f"line {line}"


@pytest.mark.parametrize("path", sorted((ROOT / "models").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_model_imports_a_sibling(path: Path) -> None:
    parts = path.relative_to(ROOT / "models").parts
    for name, line, _ in imports(path):
        target = target_of(path, name) if name.startswith(".") else []
        if target[:1] == ["models"] and parts[0] in FAMILIES and len(target) > 1 and target[1] in FAMILIES:
            assert target[1] == parts[0], f"line {line}: {parts[0]} may not import {target[1]}"
        if target[:2] == ["models", "queries"] and parts[0] == "queries" and parts[1] in HOSTS and target[2] in HOSTS:
            assert target[2] == parts[1], f"line {line}: {parts[1]} may not import {target[2]}"


def test_the_engine_knows_no_producer_but_the_contract() -> None:
    for name in ("engine.py", "run.py", "plan.py", "estimate.py", "batching.py"):
        for imported, line, _ in imports(ROOT / "pipeline" / name):
            target = target_of(ROOT / "pipeline" / name, imported)
            if target[:2] == ["stages", "producers"]:
                assert target[2] == "contract", f"{name}, line {line}"


HEAVY = {"transformers", "timm"}  # optional, and slow to import
MAY_BE_HEAVY = (
    "models/backbones/vit.py",
    "models/backbones/automatic.py",
    "models/unilseg/text.py",
    "stages/producers/annotate/",
)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_packages_stay_where_they_are_needed(path: Path) -> None:
    if not str(path.relative_to(ROOT)).startswith(MAY_BE_HEAVY):
        assert not HEAVY & {name.split(".")[0] for name, _, _ in imports(path)}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_pickle_and_no_unsafe_load(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert not re.match(r"(c?[pP]ickle|dill|cloudpickle)\.|Unpickler", called), f"line {node.lineno}"
        if called == "torch.load":
            keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert keywords.get("weights_only") == "True"


def test_files_are_read_in_one_sitting_and_say_what_they_hold() -> None:
    for path in MODULES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path
        assert not re.search(r"utils?|common|helpers", path.stem), path


def test_the_repository_names_no_machine() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    forbidden = re.compile(r"(?<![\w.])/(?:home|root|Users|work)/|pypi\.org|files\.pythonhosted|registry\.npmjs")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in {".jpg", ".png", ".safetensors"} or path == Path(__file__) or not path.is_file():
            continue
        hit = forbidden.search(path.read_text(encoding="utf-8", errors="replace"))
        assert hit is None, f"{name} names {hit and hit.group()}"
