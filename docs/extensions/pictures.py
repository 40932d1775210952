"""Pictures are made by the build: by the gallery's own code, and from a page's own table."""

from __future__ import annotations

import re
import runpy
from contextlib import chdir
from pathlib import Path

import numpy as np
from sphinx.application import Sphinx

FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| (step .+?|population_step .+?|epoch .+?) \| (.+?) \|$", re.MULTILINE)


def draw_gallery(page: Path, folder: Path) -> None:
    """Run the page's blocks in a folder, to which they save their pictures."""
    with chdir(folder):
        namespace: dict = {"__name__": "gallery"}
        for code in FENCE.findall(page.read_text(encoding="utf-8")):
            exec(compile(code, str(page), "exec"), namespace)


def speeds(page: Path) -> tuple[list[str], dict[str, list[float]]]:
    """The training cases of the page of benchmarks, and how many times as long others take."""
    text = page.read_text(encoding="utf-8").partition("**Training**")[2]
    names = [part.strip() for part in text.partition("| case |")[2].partition("\n")[0].split("|")]
    others = names[1 : names.index("of floor")]
    cases, times = [], {name: [] for name in others}
    for case, rest in ROW.findall(text):
        cases.append(case.partition(",")[0])
        cells = [cell.strip() for cell in rest.split("|")][1:]
        for name, cell in zip(others, cells, strict=False):
            times[name].append(float(cell[:-1]) if cell.endswith("×") else float("nan"))
    return cases, times


def draw_speed(page: Path, path: Path) -> None:
    """Times beside xpmlp's own, on a logarithmic axis."""
    from matplotlib.figure import Figure

    cases, times = speeds(page)
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    colors = ("#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999")
    for (name, values), color, marker in zip(times.items(), colors, "osD^vP", strict=False):
        axes.plot(values, range(len(cases)), marker, color=color, label=name)
    axes.axvline(1.0, color="#0072B2", label="xpmlp")
    axes.set_xscale("log")
    axes.set_xticks([0.5, 1, 2, 5, 10, 20, 50], ["0.5×", "1×", "2×", "5×", "10×", "20×", "50×"])
    axes.set_yticks(range(len(cases)), cases)
    axes.invert_yaxis()
    axes.set_xlabel("times as long as xpmlp takes (to the right: slower)")
    axes.legend(loc="upper right", fontsize="small")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def draw_convolution(example: Path, path: Path) -> None:
    """The example's convolution as a product: windows, filter, and the gradients' two products."""
    from matplotlib.figure import Figure

    namespace = runpy.run_path(str(example))
    x, w, found = namespace["X"], namespace["W"], namespace["solve"]()
    patches, delta = namespace["windows"](x).T, found["delta"]
    row, slopes = w.reshape(1, 4), delta.reshape(1, 4)
    figure = Figure(figsize=(8.5, 5.4), layout="constrained")
    rows = (
        ((x, "x"), (w, "w"), (found["z"], "z = x ∗ w")),
        ((row, "W"), (patches, "X: a window each column"), (row @ patches, "Z = W X")),
        (
            (delta.reshape(1, 4), "δ"),
            (patches.T, "Xᵀ"),
            (delta.reshape(1, 4) @ patches.T, "dW = δ Xᵀ"),
        ),
        ((row.T, "Wᵀ"), (slopes, "δ"), (row.T @ slopes, "dX = Wᵀ δ")),
    )
    for axes, (numbers, title) in zip(
        figure.subplots(4, 3).flat, [each for line in rows for each in line], strict=True
    ):
        axes.imshow(numbers, cmap="coolwarm", vmin=-2.5, vmax=2.5)
        for (i, k), number in np.ndenumerate(numbers):
            axes.text(k, i, f"{number:.3g}", ha="center", va="center", fontsize=8)
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    figure.savefig(path)


def draw(app: Sphinx) -> None:
    """Whatever is missing, or older than its page."""
    pages, folder = Path(app.srcdir), Path(app.srcdir) / "pictures"
    folder.mkdir(exist_ok=True)
    for page, made, how in (
        (pages / "benchmarks.md", folder / "speed.svg", draw_speed),
        (pages / "gallery.md", folder, draw_gallery),
        (
            pages / "examples" / "three_formulas_convolution.py",
            folder / "convolution.svg",
            draw_convolution,
        ),
    ):
        mark = folder / f".{page.stem}"
        if not mark.exists() or mark.stat().st_mtime < page.stat().st_mtime:
            how(page, made)
            mark.touch()


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", draw)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
