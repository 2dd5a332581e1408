"""The shape of the project: imports point down, foreign libraries have one home, and every module says what it is."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("schemas", "xclip_core", "pipeline", "jobs")
MODULES = {str(file.relative_to(ROOT)): file for layer in LAYERS for file in sorted((ROOT / layer).rglob("*.py"))}

# Where a library may be imported: one file, or the folder of a layer.
HOMES = {
    # `nvdec` names the device to open and calls frames' DLPack; what it decodes comes through the other two.
    # `codecs` asks it what it decodes here.
    "av": ("pipeline/demux.py", "pipeline/decode.py", "pipeline/nvdec.py", "pipeline/preview.py", "pipeline/codecs.py"),
    # Ray Data runs stages, Ray Train runs workers that step together: two halves that share the cluster alone. (Actors
    # that hold shards of an index are handed the library by `engine.start_ray`.)
    # Ray Serve runs the server's app, and its home is beside the app's.
    "ray": ("pipeline/engine.py", "pipeline/distributed.py", "jobs/web/replicas.py"),
    "faiss": ("pipeline/heads.py", "pipeline/vectors.py"),
    # What is added, what is done to the log itself, and the lease, which is made of Delta's own detection of conflicts.
    "deltalake": ("pipeline/archive.py", "pipeline/delta_log.py", "pipeline/lease.py"),
    "duckdb": ("pipeline/filters.py",),
    "upath": ("pipeline/stores.py",),
    "fsspec": (),
    "jinja2": ("pipeline/pages.py",),
    # Training looks at pictures too; it is a developer's tool and no part of the pipeline.
    "PIL": ("pipeline/thumbnails.py", "xclip_core/pictures.py"),
    "open_clip": ("xclip_core/",),
    "torchvision": ("xclip_core/augment.py",),
    "torch.utils.tensorboard": ("pipeline/curves.py",),  # needs the tensorboard package
    "sklearn": ("pipeline/calibration_fit.py",),
    "scipy": ("pipeline/calibration_fit.py",),
    "matplotlib": ("pipeline/reliability.py",),
    "safetensors": ("xclip_core/",),
    "huggingface_hub": ("xclip_core/download.py",),
    "typer": ("jobs/",),
    "rich": ("jobs/",),
    "fastapi": ("jobs/web/", "jobs/serve.py"),
    "starlette": ("jobs/web/",),
    "pydantic": ("jobs/web/",),
    "prometheus_client": ("jobs/web/",),
    "uvicorn": ("jobs/web/server.py",),
    "httpx": ("jobs/client.py",),
    "triton": ("xclip_core/kernels.py",),
    "transformers": (),
    "decord": (),
    "cv2": (),
    "pandas": (),
}


def imports(file: Path) -> Iterator[tuple[str, int, bool]]:
    """Every module a file imports, with its line, and whether that is for type checkers only."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno, id(node) in for_types) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative imports hide the layer"
            yield node.module or "", node.lineno, id(node) in for_types


def test_the_layers_are_there() -> None:
    assert all((ROOT / layer / "__init__.py").is_file() for layer in LAYERS)
    assert len(MODULES) > 40


def test_imports_point_down() -> None:
    upward = [
        f"{name}:{line} imports {module}"
        for name, file in MODULES.items()
        for module, line, _ in imports(file)
        if (target := module.split(".")[0]) in LAYERS and LAYERS.index(target) > LAYERS.index(name.split("/")[0])
    ]
    assert upward == []


def test_the_library_never_imports_its_tests_or_benchmarks() -> None:
    found = [
        f"{name}:{line}"
        for name, file in MODULES.items()
        for module, line, _ in imports(file)
        if module.split(".")[0] in {"tests", "benchmarks", "pytest", "hypothesis"}
    ]
    assert found == []


@pytest.mark.parametrize("library", HOMES)
def test_a_foreign_library_has_one_home(library: str) -> None:
    strays = [
        f"{name}:{line}"
        for name, file in MODULES.items()
        for module, line, _ in imports(file)
        if f"{module}.".startswith(f"{library}.") and not name.startswith(HOMES[library])
    ]
    assert strays == []


def test_every_module_says_what_it_is() -> None:
    silent = [name for name, file in MODULES.items() if not ast.get_docstring(ast.parse(file.read_text("utf-8")))]
    assert silent == []


def test_no_module_is_called_after_nothing() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "base", "misc", "tools", "core"}
    assert [name for name in MODULES if Path(name).stem in vague] == []


def test_only_the_command_line_prints_and_nothing_asks() -> None:
    called = [
        f"{name}:{node.lineno}"
        for name, file in MODULES.items()
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"print", "input", "breakpoint", "eval", "exec"}
        and not name.startswith("jobs/")
    ]
    assert called == []


def imported_by(statement: str) -> set[str]:
    """The top-level modules that are loaded after a statement, in an interpreter of its own."""
    code = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return set(run.stdout.split())


HEAVY = {"torch", "open_clip", "ray", "faiss", "deltalake", "transformers", "typer"}


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        pytest.param("import pipeline.decode, pipeline.sources", HEAVY, id="a decoding worker"),
        pytest.param("import pipeline.multiview, pipeline.labelled", HEAVY, id="a worker that makes views"),
        pytest.param("import pipeline.plan, pipeline.sampling, pipeline.settings", HEAVY | {"av"}, id="planning"),
        pytest.param("import schemas.records, schemas.errors", HEAVY | {"av", "pyarrow"}, id="the records"),
        pytest.param("import pipeline.engine", HEAVY | {"av"}, id="the engine, before it runs"),
        pytest.param("import xclip_core", HEAVY | {"av", "numpy"}, id="the model library, before it is used"),
        pytest.param(
            "import pipeline.serving, pipeline.search, pipeline.tagging",
            {
                "ray",
                "av",
                "open_clip",
                "torchvision",
                "transformers",
                "huggingface_hub",
                "jinja2",
                "PIL",
                "typer",
                "duckdb",
            },
            id="asking",
        ),
        pytest.param("import xclip_core.hub", {"ray", "faiss", "deltalake", "av", "pipeline"}, id="the model library"),
    ],
)
def test_nobody_waits_for_libraries_they_do_not_use(statement: str, unwanted: set[str]) -> None:
    assert imported_by(statement) & unwanted == set()
