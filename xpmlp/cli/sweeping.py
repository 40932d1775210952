"""The commands ``sweep`` and ``merge``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import units
from ..errors import ConfigError
from . import options as o
from . import tables as t
from .app import app
from .display import as_table, console, print_json

Processes = Annotated[
    int | None, typer.Option(help="Train in so many processes side by side.", min=1)
]
Dask = Annotated[
    str | None, typer.Option(help="Train on the workers of a Dask scheduler.", metavar="ADDRESS")
]
Mpi = Annotated[
    bool, typer.Option("--mpi", help="Train on MPI's ranks: mpiexec … -m mpi4py.futures -m xpmlp.")
]


@app.command()
@t.with_table_options
def sweep(
    context: typer.Context,
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
        str | None, typer.Option(help="constant, exponential, cosine, polynomial or onecycle.")
    ] = None,
    validation: Annotated[
        float | None, typer.Option(help="Part of the training data held out: a share, or a count.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop a network after so many epochs without improvement.")
    ] = None,
    shard: Annotated[
        str | None, typer.Option(help="Train one part of several, such as 2/4; see xpmlp merge.")
    ] = None,
    processes: Processes = None,
    dask: Dask = None,
    mpi: Mpi = False,
    table: Any = None,
    backend: o.Backend = None,
    device: o.Device = None,
    data_dir: o.DataDir = None,
    download: o.Download = True,
    out: Annotated[Path | None, typer.Option(help="Folder (runs/NAME-sweep-1).")] = None,
    save_every: o.SaveEvery = 30.0,
    resume: o.Resume = None,
    resume_anyway: o.ResumeAnyway = False,
    plots: Annotated[bool, typer.Option(help="Whether to draw a picture.")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: o.Json = False,
):
    """Train a grid of settings together, and keep the best network.

    An option with several values is an axis of the grid; what is left out is as in the recipe of
    xpmlp train. Without any axis: 64 settings of lr, weight decay and dropout around the recipe.
    """
    executor = executor_of(processes, dask, mpi)
    stopped = None
    if resume is not None:
        from .resume import Stopped

        stopped = Stopped(resume, context)
    o.choose_backend(backend, device, stopped)
    options = {
        "executor": executor,
        "progress": not quiet,
        "plots": plots,
        "save_every": save_every,
        "data_dir": data_dir,
        "download": download,
        "as_json": as_json,
    }
    if stopped is not None:
        _go_on(stopped, strict=not resume_anyway, **options)
        return
    from ..sweep import parse_axes

    axes = {
        "lr": lr,
        "weight_decay": weight_decay,
        "dropout": dropout,
        "label_smoothing": label_smoothing,
        "momentum": momentum,
        "batch_size": batch_size,
        "hidden": hidden,
    }
    _train(
        t.data_options(data, **table),
        parse_axes({name: text for name, text in axes.items() if text is not None}),
        recipe_options={
            "epochs": epochs,
            "activation": activation,
            "normalization": normalization,
            "optimizer": optimizer,
            "schedule": schedule,
            "validation": validation,
            "patience": patience,
        },
        seeds=seeds,
        seed=seed,
        sampling=sampling,
        halving=halving,
        memory=memory,
        out=out,
        shard=None if shard is None else parse_shard(shard),
        **options,
    )


@app.command()
def merge(
    shards: Annotated[
        list[Path], typer.Argument(help="Folders of all the shards.", metavar="SHARD...")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder (runs/merged-1).")] = None,
    backend: o.Backend = None,
    device: o.Device = None,
    data_dir: o.DataDir = None,
    download: o.Download = True,
    plots: Annotated[bool, typer.Option(help="Whether to draw a picture.")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: o.Json = False,
):
    """Make one sweep of the shards of xpmlp sweep --shard; what they lack is trained here."""
    from .resume import Stopped
    from .shards import merge_shards

    stopped = Stopped(merge_shards(shards, out), None)
    o.choose_backend(backend, device, stopped)
    _go_on(
        stopped,
        progress=not quiet,
        plots=plots,
        data_dir=data_dir,
        download=download,
        as_json=as_json,
    )


def executor_of(processes: int | None, dask: str | None, mpi: bool) -> Any:
    """What trains the populations; None for this process.

    Raises
    ------
    ConfigError
        For more than one of them.
    """
    if (processes is not None) + (dask is not None) + mpi > 1:
        raise ConfigError("`sweep`: expected one of --processes, --dask and --mpi, got several")
    if processes is not None:
        return units.Processes(processes)
    if dask is not None:
        return units.Dask(dask)
    return units.Mpi() if mpi else None


def parse_shard(text: str) -> tuple[int, int]:
    """``2/4`` as (2, 4).

    Raises
    ------
    ConfigError
        If it is something else, or there is no such part.
    """
    match = re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"`--shard`: expected I/N with 1 ≤ I ≤ N, such as 2/4, got {text!r}")
    return int(match[1]), int(match[2])


def _go_on(stopped: Any, **options: Any) -> None:
    with stopped.reading() as config:
        own = {name: config[name] for name in ("sampling", "halving", "memory")}
        own |= {"seeds": len(config["seeds"]), "seed": config["seeds"][0]}
        own["shard"] = None if config.get("shard") is None else tuple(config["shard"])
    _train(stopped.data, stopped.axes, stopped=stopped, resume=stopped.folder, **(own | options))


def _train(
    data_options: dict[str, Any],
    grid: dict[str, list[Any]],
    *,
    recipe_options: dict[str, Any] | None = None,
    stopped: Any = None,
    data_dir: Path | None,
    download: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Load the data, run the sweep, and print what came of it."""
    from ..data import load_dataset
    from .recipes import RECIPES, recipe_for, single_recipe
    from .resume import exit_as
    from .sweep import run_sweep, verdict

    dataset = load_dataset(**data_options, data_dir=data_dir, download=download)
    if dataset.table is not None:
        t.print_summary(console, dataset.table)
    named = dataset.name in RECIPES
    usual = recipe_for(dataset) if named else single_recipe(len(dataset.x_train))
    recipe = (stopped.recipe if stopped else usual).with_options(recipe_options or {})
    folder, result = run_sweep(dataset, recipe, grid, data_options=data_options, **options)
    console.print(as_table(result["best"] | {result["monitor"]: result[result["monitor"]]}, "best"))
    failed = f", {result['failed']} failed" if result["failed"] else ""
    console.print(
        f"{result['networks']} networks in {result['seconds']:.1f} s, "
        f"{result['diverged']} diverged{failed}; {verdict(result)}",
        highlight=False,
    )
    console.print(f"run folder: {folder}", highlight=False, markup=False, soft_wrap=True)
    if as_json:
        print_json(result | {"run": str(folder)})
    exit_as(result["ending"], folder)
