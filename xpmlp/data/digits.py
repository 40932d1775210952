"""The handwritten digits that come with the package: small, and there without a network.

"Optical Recognition of Handwritten Digits" by E. Alpaydin and C. Kaynak, UCI Machine Learning
Repository, 1998, https://doi.org/10.24432/C50P49, licence CC BY 4.0; see DIGITS.md beside this file
for what was changed.
"""

from __future__ import annotations

import zipfile
import zlib
from importlib import resources

import numpy as np

from ..errors import DataError
from .dataset import Dataset

_SOURCE = (
    "Optical Recognition of Handwritten Digits, E. Alpaydin, C. Kaynak, UCI Machine Learning "
    "Repository, 1998, doi:10.24432/C50P49, CC BY 4.0"
)


def load_digits() -> Dataset:
    """1797 handwritten digits of 8x8 pixels: 1437 to train on, 360 to test on.

    The test set of the UCI data set (from 13 writers), divided here once: shuffled with a fixed
    seed and stratified by digit. Writers are not kept apart, so the test set has the same writers
    as the training set.

    Returns
    -------
    Dataset
        ``x`` uint8 ``(N, 8, 8)``, how many of 4x4 pixels are ink, 0 to 16; ``y`` int64 ``(N,)``;
        classes 0 to 9.

    Raises
    ------
    DataError
        If the installed package is damaged.

    References
    ----------
    E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits. UCI Machine Learning
    Repository, 1998. https://doi.org/10.24432/C50P49 (CC BY 4.0).
    """
    file = resources.files("xpmlp.data") / "digits.npz"
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            parts = {name: arrays[name] for name in ("x_train", "y_train", "x_test", "y_test")}
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"`{file}`: expected the digits that come with xpmlp, got {error}; reinstall xpmlp"
        ) from error
    return Dataset(
        name="digits",
        classes=tuple("0123456789"),
        features=None,
        source=_SOURCE,
        **parts,
    )
