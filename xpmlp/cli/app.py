"""The command line: options in, tables and JSON out."""

from __future__ import annotations

import math
import os
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer

from ..choices import (
    FloatName,
    HiddenActivation,
    NormalizationName,
    OptimizerName,
    Precision,
    ScheduleName,
)
from ..errors import ConfigError
from ..ops.shapes import check_choice
from . import options as o
from . import tables as t
from .display import as_table, console, print_classes, print_json, print_result, print_rows

app = typer.Typer(
    name="xpmlp",
    help="Train small neural networks on NumPy, CuPy, PyTorch or JAX.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False):
    """Train small neural networks on NumPy, CuPy, PyTorch or JAX."""
    if version:
        from .. import __version__

        print(__version__)
        raise typer.Exit


# What xpmlp train does with each data set unless told otherwise; the tests hold it to recipes.py.
_RECIPES = """What is left out is as in the data set's recipe:

digits: --hidden 256,128 --epochs 60 --batch-size 64 --lr 0.003 --dropout 0.2 --validation 0.1

mnist: --hidden 512,256 --epochs 10 --batch-size 128 --lr 0.004 --validation 5000

fashion-mnist: as mnist, --epochs 15 --dropout 0.25

cifar10: --hidden 1024,512 --epochs 25 --batch-size 256 --lr 0.002 --dropout 0.4 --validation 0.1

each with --activation relu --normalization batchnorm --optimizer adamw --schedule onecycle

a table: by its rows; an ensemble (--members 16 --folds 8), or one network where they are few
"""


@app.command(epilog=_RECIPES)
@t.with_table_options
def train(
    context: typer.Context,
    data: Annotated[
        str, typer.Argument(help="digits, mnist, fashion-mnist, cifar10, or a file with a table")
    ] = "digits",
    model: Annotated[
        str | None, typer.Option(help="mlp, or conv: convolutions of images (mlp).")
    ] = None,
    hidden: Annotated[
        str | None, typer.Option(help="Hidden widths, such as 256,128; of conv its channels.")
    ] = None,
    activation: Annotated[
        str | None, typer.Option(help=f"{', '.join(get_args(HiddenActivation))}.")
    ] = None,
    normalization: Annotated[
        str | None, typer.Option(help=f"{', '.join(get_args(NormalizationName))} or none.")
    ] = None,
    dropout: Annotated[float | None, typer.Option(help="Probability to drop a unit.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Times through the training data.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows in a step.")] = None,
    optimizer: Annotated[
        str | None, typer.Option(help=f"{', '.join(get_args(OptimizerName))}.")
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option("--lr", "--learning-rate", help="Learning rate (peak of the schedule)."),
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(help=f"{', '.join(get_args(ScheduleName))}.")
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Decay of the weights.")] = None,
    label_smoothing: Annotated[float | None, typer.Option(help="In [0, 1).")] = None,
    clip_norm: Annotated[float | None, typer.Option(help="Largest gradient norm.")] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="Of products: bf16 (NumPy with AVX512-BF16, CuPy), tf32 or fp16 (CuPy)."),
    ] = None,
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
    table: Any = None,
    seed: Annotated[int, typer.Option(help="Of weights, masks, batch order and split.")] = 0,
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    backend: o.Backend = None,
    device: o.Device = None,
    data_dir: o.DataDir = None,
    download: o.Download = True,
    out: Annotated[Path | None, typer.Option(help="Folder of the run (runs/NAME-1).")] = None,
    save_every: o.SaveEvery = 30.0,
    resume: o.Resume = None,
    resume_anyway: o.ResumeAnyway = False,
    plots: Annotated[bool, typer.Option(help="Whether to draw the history as a picture.")] = True,
    report: o.Report = True,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    as_json: o.Json = False,
):
    """Train a network and leave a folder with the model, its history and the figures."""
    stopped = None
    if resume is not None:
        from .resume import TRAINING, Stopped

        stopped = Stopped(resume, context, TRAINING)
        with stopped.reading() as config:
            dtype = config["model"]["dtype"]
            seed = seed if "seed" in stopped.given else config["seed"]
    if dtype == "float64":
        os.environ.setdefault("JAX_ENABLE_X64", "1")  # JAX reads it when it is first imported
    check_choice("xpmlp train", "dtype", dtype, ("float32", "float64"))
    if precision is not None:
        check_choice("xpmlp train", "precision", precision, get_args(Precision))
    if model is not None:
        check_choice("xpmlp train", "model", model, ("mlp", "conv"))
    ranks = o.ranks_of_launcher()
    o.choose_backend(backend, device, stopped)
    from ..communication import between_gpus
    from ..data import load_dataset
    from ..training.progress import tell
    from .recipes import recipe_for
    from .resume import exit_as
    from .train import train as run_training

    if ranks is not None:
        ranks = between_gpus(ranks)
    data_options = stopped.data if stopped else t.data_options(data, **table)
    load = partial(load_dataset, **data_options, data_dir=data_dir, download=download)
    dataset = load() if ranks is None else ranks.after_first(load)
    if dataset.table is not None:
        t.print_summary(console, dataset.table)
    recipe = (stopped.recipe if stopped else recipe_for(dataset, model)).with_options(
        {
            "hidden": None if hidden is None else o.widths_of(hidden),
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
            "precision": precision,
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
        dtype=cast(FloatName, dtype),
        out=out,
        progress=not quiet,
        verbose=verbose,
        plots=plots,
        report=report,
        save_every=save_every,
        resume=resume,
        strict=not resume_anyway,
        ranks=ranks,
    )
    if result is None:  # the first rank tells
        return
    print_result(result, folder)
    if as_json:
        print_json(result | {"run": str(folder)})
    exit_as(result["ending"], folder)
    lost = result["ending"].startswith("diverged") and result["best_epoch"] is None
    if lost or not math.isfinite(result["test_loss"]):
        tell(f"xpmlp: the training was of no use, {result['ending']}")
        raise typer.Exit(1)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder, or a model file.")],
    data: Annotated[
        str | None,
        typer.Argument(help="Another file, all rows of which are scored (its own test rows)."),
    ] = None,
    backend: o.Backend = None,
    device: o.Device = None,
    data_dir: o.DataDir = None,
    download: o.Download = True,
    report: o.Report = True,
    as_json: o.Json = False,
):
    """Score a trained network on a test set: overall, class by class, and what it mixes up."""
    o.choose_backend(backend, device)
    from .predict import evaluate as run_evaluation
    from .report import page_of
    from .runs import attempt

    result, leave = run_evaluation(run, data, data_dir, download)
    if report and run.is_dir():
        attempt("the report", leave, page_of(run, data))
    rows = {name: value for name, value in result.items() if not isinstance(value, dict | list)}
    console.print(as_table(rows))
    for note in result["notes"]:
        console.print(t.plain(note), highlight=False, markup=False)
    if "class_accuracy" in result:
        print_classes(result)
    if as_json:
        print_json(result)


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="A run's folder, or a model file.")],
    file: Annotated[str, typer.Argument(help="File with the inputs; - is standard input.")],
    out: Annotated[
        str | None,
        typer.Option(help="Write here: .csv, .tsv, .jsonl, .parquet, .xlsx, or - (CSV)."),
    ] = None,
    ids: Annotated[list[str] | None, t.ID] = None,
    backend: o.Backend = None,
    device: o.Device = None,
    as_json: o.Json = False,
):
    """Predict the rows of a file."""
    if as_json and out == "-":
        raise ConfigError("`--json`: expected another --out than -, standard output holds one")
    o.choose_backend(backend, device)
    from .predict import predict as run_prediction

    rows, summary = run_prediction(run, file, out, ids or ())
    if out == "-":
        return
    print_rows(rows[:10])
    console.print(summary if len(rows) <= 10 else f"{summary} (the first 10 above)", markup=False)
    if as_json:
        print_json(rows)


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
    out: Annotated[Path | None, typer.Option(help="Save all figures here, as JSON.")] = None,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Draw them here.")] = None,
    as_json: o.Json = False,
):
    """Measure speed here, beside other libraries and against what the machine can do."""
    from .bench import bench as run_bench

    if not run_bench(
        console,
        backends=backends,
        peers=peers,
        only=only,
        quick=quick,
        json_file=out,
        plot_file=plot_file,
        as_json=as_json,
    ):
        raise typer.Exit(1)


@app.command()
def info(backend: o.Backend = None, device: o.Device = None, as_json: o.Json = False):
    """Show the backend, device, kernels and threads in use, and why."""
    o.choose_backend(backend, device)
    from .info import collect

    facts = collect()
    if as_json:
        print_json(facts)
        return
    console.print(as_table({k: v for k, v in facts.items() if isinstance(v, str)}))
    for title in ("backends", "libraries"):
        console.print(as_table(facts[title], title))
    console.print(as_table({str(n + 1): place for n, place in enumerate(facts["data"])}, "data"))
