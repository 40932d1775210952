"""Builds the pretend device into the environment of the Python that runs this. See README.md.

    python -m venv ENV && ENV/bin/pip install -r tests/pretend_gpu/requirements.txt
    ENV/bin/python tests/pretend_gpu/install.py

CuPy's own wheel stays as it is but for one module, ``cupy_backends.cuda.api.runtime``, which has
CUDA's runtime inside of it: it is built anew from CuPy's source distribution of the same version.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
SHIM = HERE.parent / "kernels" / "cuda" / "shim"
PACKAGES = Path(sysconfig.get_paths()["purelib"])
TARGET = PACKAGES / "pretend_device"
CUPY = "cupy-cuda13x"
_CUDA_OF_THE_WHEEL = 13020  # with which CuPy 14.2's wheel was built
_FLAGS = ("-std=c++20", "-fPIC", "-O1", "-Wall", "-Wno-unused-function")


def main() -> None:
    version = importlib.metadata.version(CUPY)
    shutil.rmtree(TARGET, ignore_errors=True)
    (TARGET / "shim").mkdir(parents=True)
    (TARGET / "__init__.py").touch()  # its name is not the folder's, which tests would find first
    for file in HERE.glob("*.py"):
        if file.name != "install.py":
            shutil.copy(file, TARGET)
    for file in (HERE / "cupy_kernel.h", *SHIM.glob("*.h")):
        shutil.copy(file, TARGET / "shim")
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor() as pool:
        folder = Path(name)
        works = [pool.submit(build_runtime, version, folder), pool.submit(build_device, folder)]
        works += [pool.submit(build_shim), pool.submit(precompile_header)]
        for work in works:
            work.result()
        link_runtime(folder)
    print(f"CuPy {version} in {sys.prefix} now runs on a pretend device")


def build_runtime(version: str, folder: Path) -> None:
    """CuPy's module as an object file."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-build-isolation"]
    command += ["--no-binary", "cupy", "-d", str(folder), f"cupy=={version}"]
    # pip asks the source for its name, which then looks for all of CUDA, unless for its pages.
    subprocess.run(command, check=True, env=os.environ | {"READTHEDOCS": "True"})
    with tarfile.open(folder / f"cupy-{version}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    source = folder / f"cupy-{version}"
    constants = {"CUPY_USE_CUDA_PYTHON": 0, "CUPY_CUFFT_STATIC": 0, "CUPY_HIP_VERSION": 0}
    constants["CUPY_CUDA_VERSION"] = _CUDA_OF_THE_WHEEL
    command = [
        sys.executable,
        "-m",
        "cython",
        "-3",
        "--cplus",
        "cupy_backends/cuda/api/runtime.pyx",
    ]
    command += ["-E", ",".join(f"{name}={value}" for name, value in constants.items())]
    command += [
        "--module-name",
        "cupy_backends.cuda.api.runtime",
        "-o",
        str(folder / "runtime.cpp"),
    ]
    subprocess.run(command, check=True, cwd=source, stderr=subprocess.DEVNULL)
    include = f"-I{source / 'cupy_backends/cuda/api'}"
    compile_one(folder / "runtime.cpp", folder / "runtime.o", "-w", "-O0", include)


def build_device(folder: Path) -> None:
    """The pretend device's libraries."""
    sources = [path for path in sorted(HERE.glob("*.cpp")) if path.name != "blas.cpp"]
    link(TARGET / "libcuda.so.1", "libcuda.so.1", *sources)
    # CuPy's search for cuBLAS wants this one beside it; nothing in it is called.
    empty = folder / "empty.cpp"
    empty.write_text("")
    link(TARGET / "libcublasLt.so.13", "libcublasLt.so.13", empty)
    others = TARGET / "libcuda.so.1", TARGET / "libcublasLt.so.13"
    sources = HERE / "blas.cpp", rest_of_cublas(folder)
    version = folder / "cublas.version"
    version.write_text("libcublas.so.13 { global: *; };")
    flags = (f"-Wl,--version-script={version}",)
    link(TARGET / "libcublas.so.13", "libcublas.so.13", *sources, *others, *flags)


def rest_of_cublas(folder: Path) -> Path:
    """What else CuPy's module of cuBLAS is linked to: functions that say they were called."""
    (module,) = (PACKAGES / "cupy_backends" / "cuda" / "libs").glob("cublas.*.so")
    command = ["nm", "--dynamic", "--undefined-only", "--format=just-symbols", str(module)]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    wanted = {line.partition("@")[0] for line in listed.split() if line.startswith("cublas")}
    ours = (HERE / "blas.cpp").read_text()
    known = set(re.findall(r"API int (cublas\w+)\(", ours))
    known |= {
        f"cublas{letter}{name}"
        for letter in "SD"
        for name in re.findall(r"##letter##(\w+)\(", ours)
    }
    file = folder / "rest_of_cublas.cpp"
    head = '#include "device.h"\n'
    refuse = 'API int {0}() {{ return complain("{0} was called, which is not there"), 1; }}\n'
    file.write_text(head + "".join(refuse.format(name) for name in sorted(wanted - known)))
    return file


def build_shim() -> None:
    """Threads for kernels."""
    flags = ("-DSHIM_LIBRARY", "-O2", "-Wno-unused-variable")
    compile_one(SHIM / "runtime.cpp", TARGET / "shim" / "runtime.o", *flags)


def precompile_header() -> None:
    """Which every kernel of CuPy's begins with."""
    sys.path.insert(0, str(TARGET))  # not the package, which would load the device
    import building

    header = TARGET / "shim" / "cupy_kernel.h"
    building.compiler(*building.header_flags(), "-x", "c++-header", header, "-o", f"{header}.gch")


def link_runtime(folder: Path) -> None:
    """In the place of the wheel's module, with the device's libraries beside it."""
    (module,) = (PACKAGES / "cupy_backends" / "cuda" / "api").glob("runtime.*.so")
    module.unlink()  # it may be shared with other environments
    path = "-Wl,-rpath,$ORIGIN/../../../pretend_device"
    libraries = TARGET / "libcuda.so.1", TARGET / "libcublas.so.13"
    compiler("-shared", "-Wl,--no-as-needed", folder / "runtime.o", *libraries, path, "-o", module)


def link(target: Path, soname: str, *sources: Path) -> None:
    flags = [
        "-shared",
        "-Wl,--no-as-needed",
        "-fvisibility=hidden",
        f"-Wl,-soname,{soname}",
        "-Wl,-rpath,$ORIGIN",
    ]
    compiler(*_FLAGS, *includes(), *flags, *sources, "-o", target)


def compile_one(source: Path, target: Path, *flags: str) -> None:
    compiler(*_FLAGS, *includes(), *flags, "-c", source, "-o", target)


def includes() -> list[str]:
    folders = [
        Path(sysconfig.get_paths()["include"]),
        *PACKAGES.glob("nvidia/*/include"),
        SHIM,
        HERE,
    ]
    return [f"-I{folder}" for folder in folders]


def compiler(*arguments: object) -> None:
    subprocess.run(["g++", *map(str, arguments)], check=True)


if __name__ == "__main__":
    main()
