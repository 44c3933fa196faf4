"""The documentation is true: commands, options, links, paths, and figures that follow from the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import consistent4d_ns
from consistent4d_ns.data.cameras import DEFAULT_CAMERA
from consistent4d_ns.data.dataparser import FrameSequenceDataParserConfig, read_cameras
from consistent4d_ns.data.times import DEFAULT_FPS
from consistent4d_ns.export.options import MeshOptions, SolidOptions
from tests.docs.pages import (
    FOR_NERFSTUDIO,
    PAGES,
    ROOT,
    anchors,
    broken_links,
    code_spans,
    commands,
    missing_paths,
    read,
    table_rows,
)
from tests.docs.programs import COMMANDS, PRESETS, consistent4d, faults, help_options, ns_train, refusal

README_LINES = 150
OTHERS = {"--help", "--version", "--load-config", "--output-path", "--camera-path-filename", "--viewer.websocket-host"}
"""Options in code spans that belong to all programs, or to Nerfstudio's."""


def by_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module", params=PAGES, ids=by_name)
def page(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_links_and_pictures_resolve(page: Path):
    assert broken_links(page, page.read_text(encoding="utf-8")) == []


def test_named_files_exist(page: Path):
    assert missing_paths(page.read_text(encoding="utf-8")) == []


def test_commands_are_accepted(page: Path):
    assert [fault for words in commands(page.read_text(encoding="utf-8")) for fault in faults(words)] == []


def test_ns_train_accepts_its_options():
    """Those of all pages at once, as the parser takes a while to build."""
    given: dict[str, list[str]] = {name: [] for name in PRESETS}
    for words in (words for page in PAGES for words in commands(page.read_text(encoding="utf-8"))):
        if words[0] == "ns-train":
            given[words[1]] += [word for word in words[2:] if word != "--help"]
    assert all(given[name] for name in ("consistent4d", "consistent4d-mini"))
    for name, args in given.items():
        assert not args or refusal(lambda name=name, args=args: ns_train(name, args)) == ""


def test_options_in_the_text_exist():
    known = set(OTHERS)
    for method in ("consistent4d", "consistent4d-text"):
        known |= help_options(lambda args, method=method: ns_train(method, args))
    for words in COMMANDS:
        known |= help_options(lambda args, words=words: consistent4d([*words.split(), *args]))
    pages = [page for page in PAGES if page.parent.name != "bundled" and "perform" not in page.name]
    pages = [page for page in pages if page.parts[-2] not in ("training", "golden") and page.name != "method.md"]
    spans = [(by_name(page), span) for page in pages for span in code_spans(page.read_text(encoding="utf-8"))]
    named = [(where, option) for where, span in spans for option in re.findall(r"^(--[a-z][\w.-]*\w)", span)]
    assert len(named) > 60
    # Benchmarks' own, and those of the original.
    others = {"--variants", "--test", "--export", "--eval_views"}
    assert [(where, option) for where, option in named if option not in known | others] == []


def test_the_checks_find_faults():
    """Each check fails where it should."""
    page = ROOT / "README.md"
    assert broken_links(
        page, "[a](docs/nowhere.md) [b](docs/data.md#nowhere) ![c](docs/images/demo.png) [d](https://x.y)"
    )
    assert broken_links(page, "# One thing\n[a](#one-thing)") == []
    assert missing_paths("`docs/nowhere.md`, `configs/`, `tests/*`") == ["docs/nowhere.md"]
    assert faults(["consistent4d", "render", "run", "x.mp4", "--sise", "3"])
    assert faults(["consistent4d", "rendr", "run"])
    assert faults(["python", "-m", "benchmarks.train_speed", "DATA", "--stepps", "3"])
    assert faults(["python", "-m", "benchmarks.no_such"])
    assert faults(["ns-render", "dataset", "--load-konfig", "x"])
    assert faults(["make", "tee"])
    assert refusal(lambda: ns_train("consistent4d-mini", ["--pipeline.guidance.skale", "3"]))
    assert commands("```bash\nmake a  # b\nx \\\n  y\n```\n") == [["make", "a"], ["x", "y"]]
    assert anchors("## 5.1 Model, `x` & more") == {"51-model-x-more"}


def test_rooms_of_the_design():
    """The page names every room and module of the package, and the layers of the import contracts."""
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")
    page = read("docs/design.md")
    named = {name for row in table_rows(page.partition("## Directions")[0]) for name in code_spans(row[0])}
    package = [path for path in (ROOT / "consistent4d_ns").iterdir() if path.name[0] != "_" and path.suffix != ".typed"]
    assert named == {f"{path.name}/" if path.is_dir() else path.name for path in package}
    contracts = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    (block,) = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    assert block.split("\n")[:-1] == [layer.replace(" | ", ", ") for layer in layers]


def test_dependencies_of_the_design():
    """The table has every declared dependency, and those of the extras."""
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")
    project = tomllib.loads(read("pyproject.toml"))["project"]
    required = [
        *project["dependencies"],
        *(entry for extra in project["optional-dependencies"].values() for entry in extra),
    ]
    declared = {re.split(r"[\[<>=~! ]", entry)[0] for entry in required} - {"consistent4d_ns"}
    rows = table_rows(read("docs/design.md").partition("## Dependencies")[2])
    listed = {name for row in rows for name in re.split(r", ", re.sub(r" \(.*?\)", "", row[0]))}
    assert declared - listed == set()


def test_readme_is_short():
    assert len(read("README.md").splitlines()) <= README_LINES


def test_the_package_index_gets_text_alone():
    """Neither pictures nor links into the repository are left by the substitutions that the build makes."""
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")
    hook = tomllib.loads(read("pyproject.toml"))["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    text = read("README.md")
    assert len(re.findall(r"!\[", text)) == 5
    for substitution in hook["substitutions"]:
        text = re.sub(substitution["pattern"], substitution["replacement"], text)
    assert text.startswith("# consistent4d_ns")
    assert "![" not in text
    assert "*The " not in text
    assert re.findall(r"\]\((?!https?://)", text) == []


def test_docstrings_cite_sections_that_exist():
    sections = set(re.findall(r"^#+ (\d+(?:\.\d+)?)\b", read("docs/method.md"), re.MULTILINE))
    for file in sorted((ROOT / "consistent4d_ns").rglob("*.py")):
        for cited in re.findall(r"method\.md,? sections? ([\d., and]+)", file.read_text(encoding="utf-8")):
            numbers = re.findall(r"\d+(?:\.\d+)?", cited)
            assert numbers, file
            assert set(numbers) <= sections, (file, numbers)


def value_of(config: Any, option: str) -> Any:
    """Value of an option in a configuration."""
    for name in option.removeprefix("--").replace("-", "_").split("."):
        config = getattr(config, name)
    return config


def as_numbers(value: Any) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+\.?\d*", str(value))]


def agrees(cell: str, value: Any) -> bool:
    """Whether a cell of a table states a value: its first code span, or its numbers, or its words."""
    if isinstance(value, str):
        return cell.startswith(f"`{value}`")
    if isinstance(value, bool):
        return cell == str(value)
    return as_numbers(cell) == as_numbers(value)


def test_defaults_in_the_table_of_options():
    checked = 0
    section = read("docs/training.md").partition("\n## Options\n")[2].partition("\n## ")[0]
    for option, _, default in (row for row in table_rows(section) if len(row) == 3):
        name = option.strip("`")
        if name.startswith("--") and default and default != "see above":
            assert agrees(default, value_of(PRESETS["consistent4d"], name)), name
            checked += 1
    assert checked > 15


def test_table_of_presets():
    rows = {row[0].strip("`"): row[1:] for row in table_rows(read("docs/training.md")) if len(row) == 6}
    for name, config in PRESETS.items():
        model, plan = config.pipeline.model, config.pipeline.datamanager.plan
        stated = (
            model.grid_resolutions,
            model.channels,
            model.hidden_width,
            plan.image_sizes,
            config.max_num_iterations,
        )
        assert [as_numbers(cell) for cell in rows[name]] == [as_numbers(value) for value in stated], name


@pytest.mark.parametrize("name", PRESETS)
def test_steps_in_the_readme(name: str):
    (row,) = (row for row in table_rows(read("README.md")) if row[0] == f"`{name}`")
    stated = re.search(r"([\d ]+) steps", row[1])
    if stated:
        assert int(stated[1].replace(" ", "")) == PRESETS[name].max_num_iterations
    assert stated or name not in ("consistent4d", "consistent4d-mini")


def test_data_options():
    rows = {row[0].strip("`").rpartition(".")[2]: row[2] for row in table_rows(read("docs/data.md")) if len(row) == 3}
    parser, mini = (PRESETS[name].pipeline.datamanager.dataparser for name in ("consistent4d", "consistent4d-mini"))
    for name in ("elevation", "distance", "fovy"):
        assert as_numbers(rows[name]) == [DEFAULT_CAMERA[name]]
    assert as_numbers(rows["fps"]) == [DEFAULT_FPS]
    assert as_numbers(rows["image-size"])[0] == parser.image_size
    assert as_numbers(rows["image-size"])[-1] == mini.image_size
    assert as_numbers(rows["frame-stride"]) == [FrameSequenceDataParserConfig.frame_stride]


def test_export_options():
    rows = {row[0].strip("`"): row[2] for row in table_rows(read("docs/export.md")) if len(row) == 3}
    assert as_numbers(rows["--faces"]) == [MeshOptions.faces]
    assert as_numbers(rows["--texture-size"]) == [MeshOptions.texture_size]
    assert as_numbers(rows["--resolution"]) == [SolidOptions.resolution]
    assert as_numbers(rows["--min-part"]) == [SolidOptions.min_part]


def test_memory_of_frames():
    """Two bytes for each of four channels."""
    rows = {row[0]: row[1] for row in table_rows(read("docs/performance.md")) if len(row) == 2}
    megabytes = {count: 2 * 4 * 256**2 * count / 1e6 for count in (32, 300, 1000)}
    assert {count: as_numbers(rows[str(count)])[0] for count in megabytes} == pytest.approx(megabytes, abs=0.5)
    assert ", ".join(f"{value:.0f}" for value in list(megabytes.values())[:2]) in read("docs/troubleshooting.md")


def test_all_forty_quirks_are_accounted_for():
    fates = {}
    table = read("docs/comparison.md").partition("## The 40 quirks")[2]
    for row in (row for row in table_rows(table) if row[0][:1].isdigit()):
        numbers = [int(number) for number in row[0].split(" to ")]
        fates |= dict.fromkeys(range(numbers[0], numbers[-1] + 1), row[-1])
    assert sorted(fates) == list(range(1, 41))
    assert set(fates.values()) == {"fixed", "option", "kept", "gone"}
    fixed = sum(fate in ("fixed", "option") for fate in fates.values())
    assert f"fixes {fixed} of its" in FOR_NERFSTUDIO.read_text(encoding="utf-8")
    listed = re.findall(
        r"^(\d+)\. ", read("docs/method.md").partition("## 11.")[2].partition("## 12.")[0], re.MULTILINE
    )
    assert [int(number) for number in listed] == sorted(fates)


def test_how_much_faster():
    """The ratios are those of the times in the table of a whole run, rounded down."""
    rows = {row[0]: row[1:] for row in table_rows(read("docs/performance.md").partition("### Steps")[0])}
    (minutes,) = as_numbers(rows["10 000 steps"][0])
    here = [float(seconds) for seconds in re.findall(r"(3\d\d) s", rows["from the command to the last checkpoint"][1])]
    low, high = (int(60 * minutes / seconds) for seconds in (max(here), min(here)))
    assert f"{low} to {high} times faster" in read("docs/comparison.md")


def test_examples_in_python_run():
    blocks = [block for page in PAGES for block in re.findall(r"^```python\n(.*?)^```", read(page), re.DOTALL | re.M)]
    assert blocks
    for block in blocks:
        exec(block, {})


def test_example_of_ground_truth(tmp_path: Path):
    (block,) = re.findall(r"^```json\n(.*?)^```", read("docs/data.md"), re.DOTALL | re.MULTILINE)
    (tmp_path / "meta.json").write_text(block)
    assert read_cameras(tmp_path / "meta.json")["eval_0"]["azimuth"] == 60


def test_version_is_the_same_everywhere():
    version = consistent4d_ns.__version__
    assert yaml.safe_load(read("CITATION.cff"))["version"] == version
    assert f"## [{version}]" in read("CHANGELOG.md")


def test_entry_for_nerfstudio(monkeypatch: pytest.MonkeyPatch):
    """It fits Nerfstudio's class, and names the presets."""
    from nerfstudio.configs import external_methods

    monkeypatch.setattr(external_methods, "external_methods", [])
    exec(read("docs/nerfology/external_methods.py"), {})
    (method,) = external_methods.external_methods
    assert [slug for slug, _ in method.configurations] == list(PRESETS)
    assert list(external_methods.get_external_methods()[0]) == list(PRESETS)
    for slug in PRESETS:
        assert f"`{slug}`" in FOR_NERFSTUDIO.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_loads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("material", reason="needs the extra docs")
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    monkeypatch.chdir(ROOT)
    build(load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(tmp_path)))  # Aborts on a warning.
    for file in tmp_path.rglob("*.html"):
        html = file.read_text(encoding="utf-8")
        assert re.findall(r"<(?:script|img|source|iframe)[^>]*src=\"?(?:https?:)?//", html) == [], file
        assert re.findall(r"<link[^>]*rel=\"?(?:stylesheet|preconnect)\"?[^>]*https?://", html) == [], file
        assert "--8&lt;--" not in html, file
