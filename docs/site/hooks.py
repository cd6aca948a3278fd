"""Pages of the site that are made of other files: README, notebooks, and the reference, which is read off the code."""

import base64
import inspect
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel

ROOT = Path(__file__).parents[2]
STYLE = ".md-typeset table:not([class]) code { white-space: nowrap; }\n"
_links: list[tempfile.TemporaryDirectory[str]] = []


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Let the package be found under its name: the root of the repository is the package.

    Only its modules are linked: mkdocstrings looks through all that is below, and follows links.
    """
    folder = tempfile.TemporaryDirectory()
    package = Path(folder.name) / "saliency_prompt"
    package.mkdir()
    for part in (*ROOT.glob("*.py"), *(inner.parent for inner in ROOT.glob("*/__init__.py"))):
        (package / part.name).symlink_to(part)
    _links.append(folder)
    sys.path.insert(0, folder.name)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [folder.name]  # type: ignore[attr-defined]
    return config


def on_shutdown() -> None:
    """Remove what `on_config` made."""
    while _links:
        link = _links.pop()
        sys.path.remove(link.name)
        link.cleanup()


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    pages = {
        "index.md": _of_root("README.md"),
        "contributing.md": _of_root("CONTRIBUTING.md"),
        "changelog.md": _of_root("CHANGELOG.md"),
        "style.css": STYLE,
        "reference/commands.md": "\n".join(commands()),
        "reference/python.md": "\n".join(python()),
        "reference/labelling.md": "\n".join(labelling()),
        "reference/training.md": "\n".join(training()),
        "reference/clusters.md": "\n".join(clusters()),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    for path in sorted((ROOT / "docs/notebooks").glob("*.ipynb")):
        for name, content in notebook(path):
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def _of_root(name: str) -> str:
    """A page of the repository's root, with its links led to where they are on the site."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return (
        text.replace("](docs/", "](")
        .replace("](CHANGELOG.md", "](changelog.md")
        .replace("](CONTRIBUTING.md", "](contributing.md")
    )


def notebook(path: Path) -> Iterator[tuple[str, str | bytes]]:
    """A notebook's page and the pictures in it, by name."""
    cells, lines = nbformat.read(path, 4).cells, []
    for number, cell in enumerate(cells):
        if cell.cell_type == "markdown":
            lines += [cell.source, ""]
            if number == 0:
                lines += [f"[The notebook]({path.name}), to run it.", ""]
            continue
        lines += ["```python", cell.source, "```", ""]
        for place, output in enumerate(cell.outputs):
            data = output.get("data", {})
            kind = next((one for one in ("image/jpeg", "image/png") if one in data), None)
            if kind is not None:
                picture = f"{path.stem}_{number}_{place}.{kind[6:]}"
                yield picture, base64.b64decode(data[kind])
                lines += [f"![What the cell shows]({picture})", ""]
            elif text := output.get("text") or data.get("text/plain"):
                lines += ["```text", text.rstrip(), "```", ""]
    yield f"{path.stem}.md", "\n".join(lines)


def commands() -> Iterator[str]:
    """Every command with its arguments and options."""
    from typer.main import get_command

    from saliency_prompt.cli.app import app

    yield from ("# Commands", "", "`saliency-prompt COMMAND --help` says the same.", "")
    yield from _command("saliency-prompt", get_command(app))


def _command(name: str, command: Any) -> Iterator[str]:
    """A command, and those below it."""
    inner = getattr(command, "commands", {})
    options = [one for one in command.params if one.name not in {"install_completion", "show_completion"}]
    if not inner:
        arguments = " ".join(_metavar(one) for one in options if one.param_type_name == "argument")
        yield from (f"## {name}", "", f"`{name} {arguments}`".replace(" `", "`"), "")
        yield from (inspect.cleandoc(command.help or ""), "")
        yield from ("| | default | |", "|---|---|---|")
        for one in sorted(options, key=lambda one: one.param_type_name):  # arguments first
            given = one.param_type_name == "argument"
            shown = _metavar(one) if given else ", ".join((*one.opts, *one.secondary_opts))
            default = "required" if one.required else "" if one.default in (None, False, ()) else _code(one.default)
            yield f"| {_code(shown)} | {default} | {_cell(one.help)} |"
        yield ""
    for word, one in inner.items():
        yield from _command(f"{name} {word}", one)


def _metavar(argument: Any) -> str:
    shown = str(argument.metavar or argument.name.upper())
    return shown if argument.required or shown.startswith("[") else f"[{shown}]"


def python() -> Iterator[str]:
    """What `import saliency_prompt` offers, and the contracts of what can be added."""
    import saliency_prompt

    yield from (
        "# Python",
        "",
        "```python",
        "import saliency_prompt as sp",
        "```",
        "",
        "## What the package offers",
        "",
    )
    for name, place in saliency_prompt._PLACES.items():
        yield from (f"::: saliency_prompt.{place}.{name}", "")
    contracts = {
        "A model that finds instances": "models.detector",
        "What labels photographs": "stages.producers.contract",
        "What is trained": "stages.training.recipe",
    }
    for title, module in contracts.items():
        yield from (
            f"## {title}",
            "",
            f"::: saliency_prompt.{module}",
            "    options: {show_root_heading: false, show_root_toc_entry: false}",
            "",
        )


def labelling() -> Iterator[str]:
    """The configuration of every producer."""
    from saliency_prompt.schemas.registry import PRODUCERS

    yield from ("# Configuration of labelling", "")
    yield from (
        "`--set section.field=value`, or sections in a YAML file for `--config`; `config show` prints them.",
        "",
    )
    seen: set[type[BaseModel]] = set()
    for name, spec in PRODUCERS.items():
        yield from (f"## {name}", "", f"{spec.about[0].upper()}{spec.about[1:]}. Presets: {_list(spec.presets)}.", "")
        yield from _sections(spec.config, seen)


def training() -> Iterator[str]:
    """The configuration of everything that is trained."""
    from saliency_prompt.schemas.training.densecl import DENSECL_PRESETS, DenseCLConfig
    from saliency_prompt.schemas.training.registry import MODELS
    from saliency_prompt.schemas.training.unilseg import UNILSEG_PRESETS, UniLSegTraining

    yield from ("# Configuration of training", "")
    yield from (
        "`--set section.field=value`, or sections in a YAML file for `--config`; `--show-config` prints them.",
        "",
    )
    seen: set[type[BaseModel]] = set()
    for name, spec in MODELS.items():
        yield from (f"## {name}", "", f"{spec.words}. Presets: {_list(spec.presets)}.", "")
        if spec.pretrain_presets is not None:
            yield from (f"With prompts (`pretrain`): {_list(spec.pretrain_presets)}.", "")
        yield from _sections(spec.pretraining or spec.training, seen)
    for name, presets, model in (
        ("unilseg", UNILSEG_PRESETS, UniLSegTraining),
        ("densecl", DENSECL_PRESETS, DenseCLConfig),
    ):
        yield from (f"## {name}", "", f"Presets: {_list(presets)}.", "")
        yield from _sections(model, seen)


def clusters() -> Iterator[str]:
    """The document that manifests are rendered from."""
    from saliency_prompt.schemas.cluster_spec import ClusterSpec

    yield from (
        "# Configuration of clusters",
        "",
        "The file of `cluster render --config`; see [operating](../operate.md).",
        "",
    )
    yield from _table(ClusterSpec, nested=False)
    yield from _sections(ClusterSpec, set())


def _sections(model: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[str]:
    """A table for each section of a configuration; those that stand further up are named."""
    before = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            continue
        if kind in seen:
            before.append(f"`{name}`")
            continue
        seen.add(kind)
        yield from (f"### {name}", "", inspect.cleandoc(kind.__doc__ or ""), "")
        yield from _table(kind)
    if before:
        yield from (f"As above: {', '.join(before)}.", "")


def _table(model: type[BaseModel], *, nested: bool = True) -> Iterator[str]:
    """Fields with their defaults and ranges; `nested`: with those of sections inside, under dotted names."""
    rows = list(_rows(model, "", nested))
    if rows:
        yield from ("| field | default | range | |", "|---|---|---|---|", *rows, "")


def _rows(model: type[BaseModel], prefix: str, nested: bool) -> Iterator[str]:
    schema = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if nested:
                yield from _rows(kind, f"{prefix}{name}.", nested)
            continue
        default = "required" if field.is_required() else _code(field.get_default(call_default_factory=True))
        yield f"| `{prefix}{name}` | {default} | {_cell(_range(schema[name]))} | {_cell(field.description)} |"


def _range(schema: dict[str, Any]) -> str:
    """What a field takes, of its JSON schema."""
    if "anyOf" in schema:
        return " or ".join(filter(None, map(_range, schema["anyOf"])))
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    words = {
        "minimum": "from {}",
        "exclusiveMinimum": "above {}",
        "maximum": "to {}",
        "exclusiveMaximum": "below {}",
        "pattern": "like {}",
    }
    said = [form.format(schema[key]) for key, form in words.items() if key in schema]
    return " ".join([str(schema.get("type", "")), *said]).strip()


def _list(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _code(value: object) -> str:
    return f"`{value}`".replace("|", "\\|")


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
