"""The documentation's pages: their Python runs, their links lead somewhere, nothing is left out."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import re
from pathlib import Path

import pytest

import xpmlp

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
FENCE = re.compile(r"^( *)```python\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^ *(`{3,}).*?^ *\1`*$", re.MULTILINE | re.DOTALL)
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def python_blocks(page: Path) -> list[tuple[int, str]]:
    """(line, code) of every ``python`` block, indentation taken off."""
    text = page.read_text(encoding="utf-8")
    blocks = []
    for match in FENCE.finditer(text):
        indent = len(match[1])
        code = "".join(line[indent:] or "\n" for line in match[2].splitlines(keepends=True))
        blocks.append((text.count("\n", 0, match.start()) + 1, code))
    return blocks


def run_blocks(page: Path) -> int:
    """Run a page's blocks in order, in one namespace; returns how many statements were checked."""
    namespace: dict = {"__name__": page.stem}
    checked = 0
    for line, code in python_blocks(page):
        if ">>>" not in code:
            exec(compile("\n" * line + code, str(page), "exec"), namespace)
            checked += 1
            continue
        example = doctest.DocTestParser().get_doctest(code, namespace, page.name, str(page), line)
        runner = doctest.DocTestRunner(optionflags=OPTIONS, verbose=False)
        report: list[str] = []
        result = runner.run(example, out=report.append, clear_globs=False)
        assert result.failed == 0, "".join(report)
        namespace.update(example.globs)
        checked += result.attempted
    return checked


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if python_blocks(page)],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_python_on_the_page_runs(page, tmp_path, monkeypatch):
    if any("import torch" in code for _, code in python_blocks(page)):
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    for variable in ("XPMLP_BACKEND", "XPMLP_DEVICE"):
        monkeypatch.delenv(variable, raising=False)
    xpmlp.set_backend(None)
    assert run_blocks(page) > 0


def test_a_wrong_result_on_a_page_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\n>>> 1 + 1\n3\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="Expected"):
        run_blocks(page)
    page.write_text("1. Step\n\n   ```python\n   x = 1\n   ```\n\n```python\nx / 0\n```\n")
    with pytest.raises(ZeroDivisionError):
        run_blocks(page)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as they are made on GitHub and by MyST."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#{1,6} +(.+?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """Relative links whose file or heading does not exist."""
    broken = []
    for target in LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = page if not name else (page.parent / name).resolve()
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page):
    assert broken_links(page) == []


def test_the_readme_can_stand_on_an_indexs_page():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((?!https?:)", text) == []  # nothing lies beside it there
    named = set(re.findall(r"`((?:docs/|xpmlp/|[A-Z]+\.md)[\w/.-]*)`", text))
    assert len(named) > 10 and [name for name in named if not (ROOT / name).exists()] == []


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A *b* (c)\n[x](none.md) [y](#a-b-c) [z](#d) [w](https://e.org/f)\n")
    assert broken_links(page) == ["none.md", "#d"]


def test_every_page_is_reachable_from_a_table_of_contents():
    for index in (DOCS / "index.md", DOCS / "api" / "index.md"):
        listed = set(re.findall(r"^([\w\-/]+)$", index.read_text(encoding="utf-8"), re.MULTILINE))
        there = {page.stem for page in index.parent.glob("*.md")} - {"index"}
        assert there <= listed, there - listed


def test_every_public_module_has_an_api_page():
    # What __init__ offers for lazy loading is what users may import.
    public = set(xpmlp._SUBMODULES) | {"backend"}
    pages = {page.stem for page in (DOCS / "api").glob("*.md")} - {"index"}
    assert public <= pages, public - pages


def test_every_example_is_shown():
    shown = re.findall(r"\{example\} (\S+)", (DOCS / "examples.md").read_text("utf-8"))
    files = {path.stem for path in (DOCS / "examples").glob("*.py")}
    assert set(shown) == files


def names_in_table(page: str, heading: str) -> set[str]:
    """Back-quoted names in the first column of the tables under a heading."""
    text = (DOCS / page).read_text(encoding="utf-8")
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE))


def test_the_pages_name_every_backend_error_loss_and_penalty():
    from xpmlp import backend, errors, losses, penalties

    def classes(module, base):
        found = {n for n, c in vars(module).items() if isinstance(c, type) and issubclass(c, base)}
        return {name for name in found if not name.startswith("_")} - {base.__name__}

    assert names_in_table("backends.md", "Table") == set(backend.NAMES)
    assert names_in_table("conventions.md", "Errors") == classes(errors, errors.XpmlpError)
    derived = names_in_table("backprop.md", "Losses") | {"SoftmaxCrossEntropy"}
    assert derived == classes(losses, losses.Loss)
    assert names_in_table("backprop.md", "Penalties") == classes(penalties, penalties.Penalty)


def test_the_tree_on_the_architecture_page_is_the_tree():
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    tree = text.partition("## Tree")[2].partition("```\n\n")[0]
    package = Path(xpmlp.__file__).parent
    for path in package.rglob("*.py"):
        if path.name == "__init__.py" or path.parent != package:
            continue
        assert path.name in tree, path.name
    for folder in package.iterdir():
        if folder.is_dir() and any(folder.glob("*.py")):
            assert f"{folder.name}/" in tree, folder.name
    for name in re.findall(r"[\w/]+\.py", tree.partition("  testing/")[0]):
        assert list(package.rglob(name)), f"{name} is on the page but not in the package"


def test_the_changelog_has_the_current_version():
    assert f"## [{xpmlp.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_documented_names_can_be_imported():
    roles = re.compile(r"\{(?:class|func|mod)\}`~?(xpmlp[\w.]*)`")
    for page in PAGES:
        for name in roles.findall(page.read_text(encoding="utf-8")):
            module, _, attribute = name.rpartition(".")
            try:
                importlib.import_module(name)
            except ModuleNotFoundError:
                assert hasattr(importlib.import_module(module), attribute), f"{page.name}: {name}"


def test_options_on_the_pages_are_options_of_the_command():
    """Every ``xpmlp COMMAND … --option`` in a console block, against the command itself."""
    import typer

    from xpmlp.cli.running import app  # with the commands of all files

    commands = typer.main.get_command(app).commands
    seen = 0
    for page in PAGES:
        for line in re.findall(r"^\$ .*?\bxpmlp (\w+.*)$", page.read_text("utf-8"), re.MULTILINE):
            name, *words = line.split()
            known = {option for param in commands[name].params for option in param.opts}
            given = {word for word in words if word.startswith("--")}
            assert given <= known | {"--help"}, f"{page.name}: {line}"
            seen += len(given)
    assert seen > 5


def test_the_recipes_on_the_page_are_the_recipes():
    from xpmlp.cli.recipes import RECIPES

    text = (DOCS / "quickstart.md").read_text(encoding="utf-8")
    for name, recipe in RECIPES.items():
        row = re.search(rf"^\| `{name}` \|(.*)\|$", text, re.MULTILINE)
        assert row is not None, name
        shown = [cell.strip() for cell in row[1].split("|")]
        hidden = ",".join(str(width) for width in recipe.hidden)
        numbers = (recipe.epochs, recipe.batch_size, recipe.lr, recipe.dropout, recipe.validation)
        assert shown == [hidden, *(str(number) for number in numbers)], name
        assert (recipe.activation, recipe.normalization) == ("relu", "batchnorm")
        assert (recipe.optimizer, recipe.schedule) == ("adamw", "onecycle")


def test_the_import_levels_on_the_architecture_page_are_those_that_are_tested():
    path = ROOT / "tests" / "test_imports.py"
    spec = importlib.util.spec_from_file_location("import_levels", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    held = {str(n): set(units) for n, units in enumerate(module.LEVELS, 1)}
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", text, re.MULTILINE)
    shown = {number: set(re.findall(r"`(\w+)`", names)) for number, names in rows}
    assert shown == {n: units for n, units in held.items() if units != {"__main__"}}
