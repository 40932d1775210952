"""The example of many networks shows what it says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "many_networks.py"


def test_an_ensemble_is_better_than_its_members_and_unsure_of_noise(capsys):
    spec = importlib.util.spec_from_file_location("many_networks", EXAMPLE)
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    figures = example.main()
    # Of 360 images, one more or less is luck.
    assert figures["accuracy"] >= max(0.96, figures["mean_alone"] - 1 / 360)
    assert figures["noise"] > 3 * figures["digits"]
    printed = capsys.readouterr().out
    assert "72 networks" in printed and "temperature" in printed
