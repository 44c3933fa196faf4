"""What came of fitting one mesh is kept in a run's folder, and only what is sound is used again."""

from __future__ import annotations

import dataclasses
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from consistent4d_ns.export.deforming import keeping
from consistent4d_ns.export.deforming.keeping import FOLDER, MOST_KEPT, Kept, Outcome, kept_or_made, key_of
from consistent4d_ns.export.moving import MovingMesh, originals_first
from consistent4d_ns.export.options import Colouring, MeshOptions, SolidOptions, TimeOptions
from consistent4d_ns.export.sequence import Exporter, exporter
from consistent4d_ns.export.surface import with_normals
from consistent4d_ns.export.texture import unwrap
from consistent4d_ns.files.tensors import DIGEST, digest_of
from consistent4d_ns.runs import Run
from tests.export.objects import ball_run
from tests.export.test_gltf import moving

FRAMES = 3
OPTIONS = MeshOptions(faces=100, texture_size=8)
AGAIN = "is used again; to fit anew, delete"
DAMAGED = "is damaged, or not what its name says: one mesh is fitted anew."


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of its own, as tests change its model."""
    return ball_run(tmp_path_factory.mktemp("ball"))


@pytest.fixture(scope="module")
def ball(run: Run) -> Exporter:
    """The ball, ready to be exported, without a folder."""
    return exporter(run, SolidOptions(resolution=16, density=8.0, opacity=0.5), TimeOptions(frames=FRAMES))


@pytest.fixture
def source(ball: Exporter, tmp_path: Path) -> Exporter:
    """The ball in a folder of its own."""
    return dataclasses.replace(ball, folder=tmp_path)


def kept_or(
    outcome: Outcome | None, source: Exporter, colouring: Colouring = "texture", options: MeshOptions = OPTIONS
) -> tuple[Outcome, list[str]]:
    """What is kept, or else an outcome, and what was said; None if nothing is to be made."""
    said: list[str] = []

    def make() -> Outcome:
        assert outcome is not None, "fitted anew"
        return outcome

    return kept_or_made(make, source, options, colouring, said.append), said


def files(source: Exporter) -> list[Path]:
    assert source.folder is not None
    return sorted((source.folder / FOLDER).iterdir())


def arrays(mesh: MovingMesh | None) -> list[Any]:
    assert mesh is not None
    parts = (mesh.positions, mesh.faces, mesh.colours, mesh.texture)
    return [*parts, *(() if mesh.atlas is None else (mesh.atlas.vertex, mesh.atlas.faces, mesh.atlas.uvs))]


@pytest.mark.parametrize("colouring", ["texture", "vertex"])
def test_a_mesh_is_kept_as_it_is(source: Exporter, colouring: Colouring):
    made = Outcome(moving(FRAMES, colouring == "texture"), ("It is written all the same.",))
    assert kept_or(made, source, colouring) == (made, [])
    (file,) = files(source)
    again, said = kept_or(None, source, colouring)
    assert said == [f"What was fitted before {AGAIN} {file}"]
    assert again.said == made.said
    for ours, theirs in zip(arrays(again.mesh), arrays(made.mesh), strict=True):
        assert getattr(ours, "dtype", None) == getattr(theirs, "dtype", None)
        np.testing.assert_array_equal(ours, theirs)
    file.unlink()
    kept_or(made, source, colouring)
    assert files(source) == [file]


def test_a_cut_mesh_is_kept(source: Exporter):
    """As xatlas cuts it."""
    trimesh = pytest.importorskip("trimesh")
    ball = trimesh.creation.icosphere(2, 0.5)
    surface = with_normals(np.asarray(ball.vertices, np.float32), np.asarray(ball.faces, np.int32))
    atlas = originals_first(unwrap(surface, 64), len(surface.vertices))
    positions = np.stack([surface.vertices] * FRAMES)
    mesh = MovingMesh(positions, surface.faces, atlas=atlas, texture=np.zeros((64, 64, 3), np.uint8))
    options = MeshOptions(faces=320, texture_size=64)
    assert kept_or(Outcome(mesh), source, options=options)[1] == []
    assert kept_or(None, source, options=options)[0].mesh is not None


def test_that_a_mesh_was_given_up_is_kept_with_the_reason(source: Exporter):
    given_up = Outcome(None, ("One mesh does not follow the object: …; a mesh per frame is written instead.",), ())
    assert kept_or(given_up, source)[0] is given_up
    again, said = kept_or(None, source)
    assert again == dataclasses.replace(given_up, surfaces=None)
    assert len(said) == 1
    assert "given up for the reason that follows; to fit anew, delete " in said[0]


def test_a_mesh_that_was_given_up_for_its_looks_is_there_for_who_insists_on_it(source: Exporter):
    mesh = moving(FRAMES, True)
    kept_or(Outcome(None, ("It does not look enough like it.",), (), given_up=mesh), source)
    assert kept_or(None, source)[0].mesh is None
    insisted, _ = kept_or(None, source, options=dataclasses.replace(OPTIONS, topology="shared"))
    for ours, theirs in zip(arrays(insisted.mesh), arrays(mesh), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_what_the_outcome_depends_on_is_in_the_key(source: Exporter, run: Run, monkeypatch: pytest.MonkeyPatch):
    def key(colouring: Colouring = "texture", options: MeshOptions = OPTIONS, **changes: Any) -> str:
        """Of the ball with changes."""
        return key_of(dataclasses.replace(source, **changes), options, colouring)

    threshold = dataclasses.replace(source.solid.threshold, density=9.0)
    lattice = dataclasses.replace(source.solid.lattice, spacing=0.1)
    keys = [
        key(),
        key("vertex"),
        key(options=dataclasses.replace(OPTIONS, faces=101)),
        key(options=dataclasses.replace(OPTIONS, texture_size=16)),
        key(options=dataclasses.replace(OPTIONS, topology="shared")),
        key(min_part=0.25),
        key(spacing=0.25),
        key(view=dataclasses.replace(source.view, elevation=source.view.elevation + 1.0)),
        key(timeline=dataclasses.replace(source.timeline, times=(0.0, 0.4, 1.0))),
        key(solid=dataclasses.replace(source.solid, threshold=threshold)),
        key(solid=dataclasses.replace(source.solid, lattice=lattice)),
    ]
    for place, name, value in (
        (keeping, "VERSION", 0),
        (keeping, "__version__", "9"),
        (run.pipeline.model.config, "samples_per_ray", 64),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, value)
            keys.append(key())
    with torch.no_grad():
        occupied = run.pipeline.model.state_dict()["occupancy.occupied"]
        occupied[0] ^= True
        keys.append(key())
        occupied[0] ^= True
    assert len(set(keys)) == len(keys)
    # Neither of these changes the mesh.
    assert key(timeline=dataclasses.replace(source.timeline, fps=1.0)) == keys[0]
    assert key("vertex", dataclasses.replace(OPTIONS, texture_size=16)) == keys[1]


def changed(file: Path, sound: bool = True, said: str | None = None, **changes: Any) -> None:
    """Write a kept file anew with other tensors, and unless `sound` with the digest that it had."""
    with safe_open(file, "pt") as old:
        tensors = {name: old.get_tensor(name) for name in old.keys()}  # noqa: SIM118
        texts = old.metadata()
    for name, change in changes.items():
        tensors[name] = change(tensors[name]).contiguous()
    if said is not None:
        texts["said"] = said
    if sound:
        texts[DIGEST] = digest_of(tensors)
    save_file(tensors, file, texts)


def with_first(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """A change: the first of some values is another one."""

    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor.view(-1)[0] = value
        return tensor

    return change


def enlarged(file: Path) -> None:
    """A terabyte, of which nothing is on the disk."""
    os.truncate(file, 1 << 40)


def lying(file: Path) -> None:
    """The header is said to have a gigabyte."""
    file.write_bytes((1 << 30).to_bytes(8, "little") + file.read_bytes()[8:])


def replaced(make: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Something else in the place of the file."""

    def replace(file: Path) -> None:
        file.unlink()
        make(file)

    return replace


class Executed:
    """What a pickle would run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("executed",))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "cut off": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "one byte altered": lambda file: file.write_bytes(file.read_bytes()[:-1] + b"\x01"),
    "text": lambda file: file.write_text("a mesh"),
    "pickle": lambda file: file.write_bytes(pickle.dumps(Executed())),
    "a terabyte": enlarged,
    "long header": lying,
    "link to nothing": replaced(lambda file: file.symlink_to("nowhere")),
    "link to itself": replaced(lambda file: file.symlink_to(file.name)),
    "NaN": lambda file: changed(file, positions=with_first(float("nan"))),
    "infinite": lambda file: changed(file, positions=with_first(float("inf"))),
    "far away": lambda file: changed(file, positions=with_first(1e30)),
    "uv NaN": lambda file: changed(file, uvs=with_first(float("nan"))),
    "old digest": lambda file: changed(file, sound=False, positions=with_first(0.25)),
    "index too large": lambda file: changed(file, faces=with_first(4)),
    "negative index": lambda file: changed(file, cut_faces=with_first(-1)),
    "copy of no vertex": lambda file: changed(file, vertex=with_first(1 << 40)),
    "other triangles": lambda file: changed(file, faces=lambda faces: faces.flip(1)),
    "copies first": lambda file: changed(file, vertex=lambda found: found.flip(0), cut_faces=lambda found: 5 - found),
    "many vertices": lambda file: changed(file, positions=lambda found: found.repeat(1, 3, 1)),
    "fewer frames": lambda file: changed(file, positions=lambda found: found[1:]),
    "no vertex": lambda file: changed(file, positions=lambda found: found[:, :0]),
    "no triangle": lambda file: changed(file, faces=lambda found: found[:0], cut_faces=lambda found: found[:0]),
    "flat": lambda file: changed(file, positions=lambda found: found[0]),
    "a number": lambda file: changed(file, vertex=lambda found: found.sum()),
    "many triangles": lambda file: changed(
        file, faces=lambda found: found.repeat(300, 1), cut_faces=lambda found: found.repeat(300, 1)
    ),
    "small texture": lambda file: changed(file, texture=lambda found: found[:4, :4]),
    "type": lambda file: changed(file, positions=lambda found: found.double()),
    "unknown type": lambda file: changed(file, positions=lambda found: found.view(torch.uint8), sound=False),
    "escapes": lambda file: changed(file, said='["\\u001b[2J"]'),
    "long sentence": lambda file: changed(file, said=f'["{"a" * 2000}"]'),
    "no sentences": lambda file: changed(file, said="3"),
    "nested": lambda file: changed(file, said="[" * 20_000),
}
"""What may be in the place of a kept file."""
if hasattr(os, "mkfifo"):
    DAMAGES["pipe"] = replaced(os.mkfifo)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_what_is_damaged_or_lies_is_replaced(source: Exporter, damage: Callable[[Path], object]):
    kept_or(Outcome(moving(FRAMES, True)), source)
    (file,) = files(source)
    damage(file)
    other = Outcome(moving(FRAMES, True), ("Fitted anew.",))
    found, said = kept_or(other, source)
    assert (found, said) == (other, [f"{file} {DAMAGED}"])
    assert kept_or(None, source)[0].said == other.said
    assert files(source) == [file]


def test_a_file_of_another_key_is_not_used(source: Exporter):
    """As if it had been renamed."""
    kept_or(Outcome(moving(FRAMES, True)), source)
    (file,) = files(source)
    options = MeshOptions(faces=200, texture_size=8)
    assert source.folder is not None
    file.rename(Kept.of(source, source.folder, options, "texture").file)
    assert kept_or(Outcome(None, ("Given up.",)), source, options=options)[0].mesh is None


def test_the_newest_few_are_kept_and_nothing_of_others_is_removed(source: Exporter):
    assert source.folder is not None
    theirs = source.folder / FOLDER / "theirs.safetensors"
    theirs.parent.mkdir()
    theirs.write_text("theirs")
    odd = [theirs.with_name(f"{digit * 16}.safetensors") for digit in "01"]
    odd[0].mkdir()
    odd[1].symlink_to("nowhere")
    os.utime(odd[0], (0, 0))
    made = []
    for number in range(MOST_KEPT + 2):
        options = MeshOptions(faces=100 + number)
        kept_or(Outcome(None), source, options=options)
        made.append(Kept.of(source, source.folder, options, "texture").file)
        os.utime(made[-1], (number, number))
    assert files(source) == sorted([*made[-MOST_KEPT:], theirs, *odd])


@pytest.mark.parametrize(
    ("free", "obstacle", "reason"),
    [(1000, False, "are free"), (1 << 40, True, f"{FOLDER} is a file")],
    ids=["full", "obstacle"],
)
def test_where_nothing_can_be_kept_this_is_said(
    source: Exporter, monkeypatch: pytest.MonkeyPatch, free: int, obstacle: bool, reason: str
):
    assert source.folder is not None
    monkeypatch.setattr("consistent4d_ns.files.disks.free_space", lambda path: free)
    if obstacle:
        (source.folder / FOLDER).write_text("")
    made = Outcome(moving(FRAMES, True))
    found, (line,) = kept_or(made, source)
    assert found is made
    assert reason in line
    assert line.startswith("What was fitted is not kept: ")
    assert line.endswith("the next export will fit one mesh anew.")
    assert [file.name for file in source.folder.iterdir()] == [FOLDER] * obstacle


def test_nothing_is_kept_or_removed_through_a_link(source: Exporter, tmp_path_factory: pytest.TempPathFactory):
    """A run may come from a stranger."""
    theirs = tmp_path_factory.mktemp("theirs")
    names = [f"{number:016x}.safetensors" for number in range(MOST_KEPT + 1)]
    for name in names:
        (theirs / name).write_text("theirs")
    assert source.folder is not None
    (source.folder / FOLDER).symlink_to(theirs)
    _, (line,) = kept_or(Outcome(moving(FRAMES, True)), source)
    assert line.endswith(
        f"{source.folder / FOLDER} is a link to another folder; the next export will fit one mesh anew."
    )
    assert sorted(file.name for file in theirs.iterdir()) == names


def test_a_mesh_that_is_insisted_on_was_not_given_up(source: Exporter):
    options = dataclasses.replace(OPTIONS, topology="shared")
    kept_or(Outcome(None, ("Given up.",)), source, options=options)
    found, said = kept_or(Outcome(moving(FRAMES, True)), source, options=options)
    assert found.mesh is not None
    assert said == [f"{files(source)[0]} {DAMAGED}"]


def test_what_would_not_be_read_is_not_kept(source: Exporter):
    mesh = moving(FRAMES, True)
    mesh.positions[0, 0, 0] = np.nan
    found, (line,) = kept_or(Outcome(mesh), source)
    assert found.mesh is mesh
    assert "the mesh has values out of range" in line


def test_without_a_folder_nothing_is_kept(ball: Exporter):
    assert kept_or(Outcome(None), ball) == (Outcome(None), [])
