"""The command line: options in, tables and JSON out."""

from __future__ import annotations

import io
import json
import math
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..errors import ConfigError, XpmlpError
from ..ops.shapes import check_choice
from . import tables as t

app = typer.Typer(
    name="xpmlp",
    help="Train small neural networks on NumPy, CuPy, PyTorch or JAX.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()

Json = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON, last.")]
DataDir = Annotated[
    Path | None, typer.Option(help="Folder to look for data sets in (else XPMLP_DATA, cache).")
]
Download = Annotated[bool, typer.Option(help="Whether data that is nowhere may be fetched.")]
Backend = Annotated[
    str | None,
    typer.Option(help="numpy, cupy, torch, jax, array_api_strict or auto (else XPMLP_BACKEND)."),
]
Device = Annotated[str | None, typer.Option(help="Such as cuda:0 (else XPMLP_DEVICE).")]


def run() -> None:
    """Run the command; a foreseen error is one line on standard error and exit status 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal or pipe that cannot show "R²" gets "R?", not a traceback.
            stream.reconfigure(errors="replace")
    try:
        app()
    except XpmlpError as error:
        if os.environ.get("XPMLP_DEBUG"):
            raise
        print(f"xpmlp: {t.plain(str(error), 2000)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("xpmlp: interrupted", file=sys.stderr)
        sys.exit(130)


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False):
    """Train small neural networks on NumPy, CuPy, PyTorch or JAX."""
    if version:
        from .. import __version__

        print(__version__)
        raise typer.Exit


@app.command()
def train(
    data: Annotated[
        str, typer.Argument(help="digits, mnist, fashion-mnist, cifar10, or a file with a table")
    ] = "digits",
    hidden: Annotated[str | None, typer.Option(help="Hidden widths, such as 256,128.")] = None,
    activation: Annotated[str | None, typer.Option(help="relu, gelu, silu, tanh, …")] = None,
    normalization: Annotated[
        str | None, typer.Option(help="batchnorm, layernorm, rmsnorm or none.")
    ] = None,
    dropout: Annotated[float | None, typer.Option(help="Probability to drop a unit.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Times through the training data.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows in a step.")] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="sgd, adagrad, rmsprop, adam, adamw or muon.")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate (peak of the schedule).")] = None,
    schedule: Annotated[
        str | None, typer.Option(help="constant, exponential, cosine or onecycle.")
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Decay of the weights.")] = None,
    label_smoothing: Annotated[float | None, typer.Option(help="In [0, 1).")] = None,
    clip_norm: Annotated[float | None, typer.Option(help="Largest gradient norm.")] = None,
    validation: Annotated[
        float | None,
        typer.Option(help="Part of the training data held out: a share, or a count; 0 for none."),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many epochs without improvement.")
    ] = None,
    members: Annotated[int | None, typer.Option(help="Networks of an ensemble.")] = None,
    folds: Annotated[
        int | None,
        typer.Option(help="Each network leaves out one of so many parts, which all stop by."),
    ] = None,
    bins: Annotated[
        int | None, typer.Option(help="Of the code of each number of a table; 0 for none.")
    ] = None,
    target: t.Target = None,
    drop: t.Drop = None,
    task: t.Task = None,
    test: t.Test = None,
    group: t.Group = None,
    time: t.Time = None,
    ids: Annotated[list[str] | None, t.ID] = None,
    keep: t.Keep = None,
    category: t.Category = None,
    rare: t.Rare = None,
    sep: t.Sep = None,
    encoding: t.Encoding = None,
    decimal: t.Decimal = None,
    thousands: t.Thousands = None,
    header: t.Header = None,
    na: t.Na = None,
    default_na: t.DefaultNa = True,
    seed: Annotated[int, typer.Option(help="Of weights, masks, batch order and split.")] = 0,
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    backend: Backend = None,
    device: Device = None,
    data_dir: DataDir = None,
    download: Download = True,
    out: Annotated[Path | None, typer.Option(help="Folder of the run (runs/NAME-1).")] = None,
    plots: Annotated[bool, typer.Option(help="Whether to draw the history as a picture.")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: Json = False,
):
    """Train a network and leave a folder with the model, its history and the figures."""
    if dtype == "float64":
        os.environ.setdefault("JAX_ENABLE_X64", "1")  # JAX reads it when it is first imported
    check_choice("xpmlp train", "dtype", dtype, ("float32", "float64"))
    _choose_backend(backend, device)
    from ..data import load_dataset
    from .recipes import recipe_for
    from .train import train as run_training

    data_options = t.data_options(
        data,
        test,
        target=target,
        drop=drop,
        task=task,
        group=group,
        time=time,
        ids=ids,
        keep=keep,
        category=category,
        rare=rare,
        sep=sep,
        encoding=encoding,
        decimal=decimal,
        thousands=thousands,
        header=header,
        na=na,
        default_na=default_na,
    )
    dataset = load_dataset(**data_options, data_dir=data_dir, download=download)
    if dataset.table is not None:
        t.print_summary(console, dataset.table)
    recipe = recipe_for(dataset).with_options(
        {
            "hidden": None if hidden is None else _widths(hidden),
            "activation": activation,
            "normalization": normalization,
            "dropout": dropout,
            "epochs": epochs,
            "batch_size": batch_size,
            "optimizer": optimizer,
            "lr": lr,
            "schedule": schedule,
            "weight_decay": weight_decay,
            "label_smoothing": label_smoothing,
            "clip_norm": clip_norm,
            "validation": validation,
            "patience": patience,
            "members": members,
            "folds": folds,
            "bins": bins,
        }
    )
    folder, result = run_training(
        dataset,
        recipe,
        data_options=data_options,
        seed=seed,
        dtype=dtype,
        out=out,
        progress=not quiet,
        plots=plots,
    )
    _print_result(result, folder)
    if as_json:
        _print_json(result | {"run": str(folder)})
    if result["ending"] == "interrupted":
        raise typer.Exit(130)
    lost = result["ending"].startswith("diverged") and result["best_epoch"] is None
    if lost or not math.isfinite(result["test_loss"]):
        print(f"xpmlp: the training was of no use, {result['ending']}", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder, or a model file.")],
    data: Annotated[
        str | None,
        typer.Argument(help="Another file, all rows of which are scored (its own test rows)."),
    ] = None,
    backend: Backend = None,
    device: Device = None,
    data_dir: DataDir = None,
    download: Download = True,
    as_json: Json = False,
):
    """Score a trained network on a test set: overall, class by class, and what it mixes up."""
    _choose_backend(backend, device)
    from .predict import evaluate as run_evaluation

    result = run_evaluation(run, data, data_dir, download)
    rows = {name: value for name, value in result.items() if not isinstance(value, dict | list)}
    console.print(_table(rows))
    for note in result["notes"]:
        console.print(t.plain(note), highlight=False, markup=False)
    if "class_accuracy" in result:
        _print_classes(result)
    if as_json:
        _print_json(result)


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="A run's folder, or a model file.")],
    file: Annotated[str, typer.Argument(help="File with the inputs; - is standard input.")],
    out: Annotated[
        str | None,
        typer.Option(help="Write here: .csv, .tsv, .jsonl, .parquet, .xlsx, or - (CSV)."),
    ] = None,
    ids: Annotated[list[str] | None, t.ID] = None,
    backend: Backend = None,
    device: Device = None,
    as_json: Json = False,
):
    """Predict the rows of a file."""
    _choose_backend(backend, device)
    from .predict import predict as run_prediction

    rows, summary = run_prediction(run, file, out, ids or ())
    if out == "-":
        return
    shown = rows[:10]
    table = Table()
    for name in shown[0]:
        table.add_column(escape(t.plain(name, 100)), justify="right")
    for row in shown:
        values = (
            f"{v:.4g}" if isinstance(v, float) else escape(t.plain(str(v), 100))
            for v in row.values()
        )
        table.add_row(*values)
    console.print(table)
    console.print(summary if len(rows) <= 10 else f"{summary} (the first 10 above)", markup=False)
    if as_json:
        _print_json(rows)


@app.command()
def sweep(
    data: Annotated[
        str, typer.Argument(help="digits, mnist, fashion-mnist, cifar10, or a file with a table")
    ] = "digits",
    lr: Annotated[str | None, typer.Option(help="Values: 1e-4:1e-2:log:8 or 1e-3,3e-3.")] = None,
    weight_decay: Annotated[str | None, typer.Option(help="Values: 0,1e-4.")] = None,
    dropout: Annotated[str | None, typer.Option(help="Values: 0:0.5:6.")] = None,
    label_smoothing: Annotated[str | None, typer.Option(help="Values: 0,0.05,0.1.")] = None,
    momentum: Annotated[
        str | None, typer.Option(help="Values: 0.8,0.9,0.95; beta1 of adam and adamw.")
    ] = None,
    batch_size: Annotated[str | None, typer.Option(help="Values: 32,64,128.")] = None,
    hidden: Annotated[str | None, typer.Option(help="Values: 64,256x128 (x joins layers).")] = None,
    seeds: Annotated[int, typer.Option(help="How many seeds for each setting.")] = 1,
    seed: Annotated[int, typer.Option(help="The first seed; also of split and order.")] = 0,
    sampling: Annotated[
        str, typer.Option(help="Minibatches: shared by all, own order, or bootstrap.")
    ] = "shared",
    halving: Annotated[
        bool, typer.Option("--halving", help="Drop the worse half again and again.")
    ] = False,
    memory: Annotated[str | None, typer.Option(help="How much may be used, such as 4GB.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Times through the training data.")] = None,
    activation: Annotated[str | None, typer.Option(help="relu, gelu, silu, tanh, …")] = None,
    normalization: Annotated[
        str | None, typer.Option(help="batchnorm, layernorm, rmsnorm or none.")
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="sgd, adagrad, rmsprop, adam, adamw or muon.")
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(help="constant, exponential, cosine or onecycle.")
    ] = None,
    validation: Annotated[
        float | None, typer.Option(help="Part of the training data held out: a share, or a count.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop a network after so many epochs without improvement.")
    ] = None,
    target: t.Target = None,
    drop: t.Drop = None,
    task: t.Task = None,
    test: t.Test = None,
    group: t.Group = None,
    time: t.Time = None,
    ids: Annotated[list[str] | None, t.ID] = None,
    keep: t.Keep = None,
    category: t.Category = None,
    rare: t.Rare = None,
    sep: t.Sep = None,
    encoding: t.Encoding = None,
    decimal: t.Decimal = None,
    thousands: t.Thousands = None,
    header: t.Header = None,
    na: t.Na = None,
    default_na: t.DefaultNa = True,
    backend: Backend = None,
    device: Device = None,
    data_dir: DataDir = None,
    download: Download = True,
    out: Annotated[Path | None, typer.Option(help="Folder (runs/NAME-sweep-1).")] = None,
    plots: Annotated[bool, typer.Option(help="Whether to draw a picture.")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: Json = False,
):
    """Train a grid of settings together, and keep the best network.

    An option with several values is an axis of the grid; what is left out is as in the recipe of
    xpmlp train. Without any axis: 64 settings of lr, weight decay and dropout around the recipe.
    """
    _choose_backend(backend, device)
    from ..data import load_dataset
    from .recipes import RECIPES, recipe_for, single_recipe
    from .sweep import run_sweep, verdict

    axes = {
        "lr": lr,
        "weight_decay": weight_decay,
        "dropout": dropout,
        "label_smoothing": label_smoothing,
        "momentum": momentum,
        "batch_size": batch_size,
        "hidden": hidden,
    }
    data_options = t.data_options(
        data,
        test,
        target=target,
        drop=drop,
        task=task,
        group=group,
        time=time,
        ids=ids,
        keep=keep,
        category=category,
        rare=rare,
        sep=sep,
        encoding=encoding,
        decimal=decimal,
        thousands=thousands,
        header=header,
        na=na,
        default_na=default_na,
    )
    dataset = load_dataset(**data_options, data_dir=data_dir, download=download)
    if dataset.table is not None:
        t.print_summary(console, dataset.table)
    named = dataset.name in RECIPES
    found = recipe_for(dataset) if named else single_recipe(len(dataset.x_train))
    recipe = found.with_options(
        {
            "epochs": epochs,
            "activation": activation,
            "normalization": normalization,
            "optimizer": optimizer,
            "schedule": schedule,
            "validation": validation,
            "patience": patience,
        }
    )
    folder, result = run_sweep(
        dataset,
        recipe,
        {name: text for name, text in axes.items() if text is not None},
        data_options=data_options,
        seeds=seeds,
        seed=seed,
        sampling=sampling,
        halving=halving,
        memory=memory,
        out=out,
        progress=not quiet,
        plots=plots,
    )
    console.print(_table(result["best"] | {result["monitor"]: result[result["monitor"]]}, "best"))
    console.print(
        f"{result['networks']} networks in {result['seconds']:.1f} s, "
        f"{result['diverged']} diverged; {verdict(result)}",
        highlight=False,
    )
    console.print(f"run folder: {folder}", highlight=False, markup=False, soft_wrap=True)
    if as_json:
        _print_json(result | {"run": str(folder)})
    if result["ending"] == "interrupted":
        raise typer.Exit(130)


@app.command()
def bench(
    backends: Annotated[
        str | None, typer.Option(help="Where xpmlp runs: numpy,cupy,torch,… (numpy, and a GPU).")
    ] = None,
    peers: Annotated[
        str | None,
        typer.Option(help="numpy,torch,torch.compile,jax,sklearn,thinc or none (all installed)."),
    ] = None,
    only: Annotated[str | None, typer.Option(help="Parts of case names: softmax,784-100.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few cases, in under a minute.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Save all figures here.")] = None,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Draw them here.")] = None,
):
    """Measure speed here, beside other libraries and against what the machine can do."""
    from .bench import bench as run_bench

    if not run_bench(
        console,
        backends=backends,
        peers=peers,
        only=only,
        quick=quick,
        json_file=json_file,
        plot_file=plot_file,
    ):
        raise typer.Exit(1)


@app.command()
def info(backend: Backend = None, device: Device = None, as_json: Json = False):
    """Show the backend, device, kernels and threads in use, and why."""
    _choose_backend(backend, device)
    from .info import collect

    facts = collect()
    if as_json:
        _print_json(facts)
        return
    console.print(_table({k: v for k, v in facts.items() if isinstance(v, str)}))
    for title in ("backends", "libraries"):
        console.print(_table(facts[title], title))
    console.print(_table({str(n + 1): place for n, place in enumerate(facts["data"])}, "data"))


def _choose_backend(name: str | None, device: str | None) -> None:
    from .. import set_backend

    if name is not None or device is not None:
        set_backend(name or os.environ.get("XPMLP_BACKEND") or "numpy", device)


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.replace(" ", "").split(",") if part)
    except ValueError:
        raise ConfigError(
            f"`--hidden`: expected widths such as 256,128 (or an empty text for none), got {text!r}"
        ) from None


def _print_json(values: Any) -> None:
    from .runs import without_nan

    print(json.dumps(without_nan(values), allow_nan=False))


def _print_result(result: dict[str, Any], folder: Path) -> None:
    if result["test_accuracy"] is not None:
        headline = f"test accuracy {100 * result['test_accuracy']:.2f} %"
    else:
        headline = f"test R² {result['test_r2']:.4f}, RMSE {result['test_rmse']:.4g}"
    seconds, epochs = result["train_seconds"], result["epochs"]
    console.print(
        f"[bold]{headline}[/bold], loss {result['test_loss']:.4f}, after {epochs} "
        f"epoch{'s' * (epochs != 1)} in {seconds:.1f} s on {result['backend']} "
        f"({result['device']})",
        highlight=False,
    )
    console.print(f"run folder: {folder}", highlight=False, markup=False, soft_wrap=True)


def _print_classes(result: dict[str, Any]) -> None:
    classes = list(result["class_accuracy"])
    table = Table(title="how often a class (row) was taken for another (column)")
    table.add_column("")
    for name in classes:
        table.add_column(escape(t.plain(name, 100)), justify="right")
    table.add_column("accuracy", justify="right")
    for name, counts in zip(classes, result["confusion_matrix"], strict=True):
        accuracy = result["class_accuracy"][name]
        share = "no rows" if accuracy is None else f"{100 * accuracy:.1f} %"
        table.add_row(
            escape(t.plain(name, 100)), *(str(count) if count else "·" for count in counts), share
        )
    console.print(table)


def _table(values: dict[str, Any], title: str | None = None) -> Table:
    table = Table(show_header=False, title=title, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in values.items():
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
        table.add_row(
            escape(t.plain(name)), escape(t.plain(text))
        )  # messages hold brackets: "xpmlp[cli]"
    return table
