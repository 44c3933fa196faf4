"""What came of fitting one mesh to a run, kept in the run's folder, so that further exports need not fit it anew.

A run may come from a stranger, and so may what lies in its folder: a file is read as tensors and texts, with limits,
and is used only where it describes a mesh of the kind that is asked for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int32, Int64
from torch import Tensor

from consistent4d_ns import __version__
from consistent4d_ns.errors import InputError
from consistent4d_ns.export.moving import MovingMesh
from consistent4d_ns.export.options import Colouring, MeshOptions
from consistent4d_ns.export.sequence import Exporter
from consistent4d_ns.export.surface import Surface
from consistent4d_ns.export.texture import Atlas
from consistent4d_ns.files.disks import check_space
from consistent4d_ns.files.outputs import new_file, refusals
from consistent4d_ns.files.tensors import DIGEST, digest_of

VERSION = 1
"""Of what decides how a mesh comes out: fitting, painting, and when it is given up. Raise it where one of them
changes."""
FOLDER = "fitted_meshes"
"""Folder of the files in a run's folder."""
NAME = re.compile(r"[0-9a-f]{16}\.safetensors")
"""How the files are named: by a digest of what was asked for."""
MOST_KEPT = 4
"""Files that are kept, the newest ones."""
LARGEST = 1 << 29
"""Bytes of the largest file that is written or read."""
ROOM = 10
"""A file is written where this many times its size is free, so that there is room for the export itself."""
REMEDY = "the next export will fit one mesh anew"
"""What follows where nothing is kept."""
USED = "What was fitted before is used again; to fit anew"
"""How the sentence begins that says that a mesh is used again."""
GIVEN_UP = "One mesh was fitted before, and given up for the reason that follows; to fit anew"
"""The same where there is none, as it was given up."""
FARTHEST = 10.0
"""Largest coordinate of a vertex in world units; the object's box is [-1, 1]^3."""
MOST_FACES = 4
"""Largest number of triangles, as a multiple of those that were asked for."""
LONGEST = 1000
"""Characters of the longest sentence."""
TYPES = {
    "positions": torch.float32,
    "faces": torch.int32,
    "colours": torch.float32,
    "vertex": torch.int64,
    "cut_faces": torch.int32,
    "uvs": torch.float32,
    "texture": torch.uint8,
}
"""Types of the tensors of a mesh, by name."""


@dataclass(frozen=True)
class Outcome:
    """What came of fitting one mesh."""

    mesh: MovingMesh | None
    """The mesh; None where it was given up."""
    said: tuple[str, ...] = ()
    """What there is to say about it, in sentences."""
    surfaces: tuple[Surface, ...] | None = None
    """The surface of each frame as a mesh of its own, if it has just been found; it is not kept."""
    given_up: MovingMesh | None = None
    """The mesh that was given up for its looks, if it has just been fitted: what `--topology shared` asks for."""


def kept_or_made(
    make: Callable[[], Outcome],
    source: Exporter,
    options: MeshOptions,
    colouring: Colouring,
    say: Callable[[str], None],
) -> Outcome:
    """The outcome in the run's folder, or else a new one, which is kept there from now on.

    Args:
        make: Makes it.
        source: The trained object; without a folder, nothing is kept.
        options: How it is meshed.
        colouring: A texture or a colour per vertex.
        say: Is given a sentence where one is used or cannot be, and where one cannot be kept.
    """
    if source.folder is None:
        return make()
    place = Kept.of(source, source.folder, options, colouring)
    try:
        if (found := place.read()) is not None:
            say(f"{GIVEN_UP if found.mesh is None else USED}, delete {place.file}")
            return found
    except ValueError:
        say(f"{place.file} is damaged, or not what its name says: one mesh is fitted anew.")
    made = make()
    try:
        place.write(made)
        if made.given_up is not None:
            insisting = dataclasses.replace(options, topology="shared")
            Kept.of(source, source.folder, insisting, colouring).write(Outcome(made.given_up))
    except ValueError as error:
        say(f"What was fitted is not kept: {error}")
    return made


@dataclass(frozen=True)
class Kept:
    """The place in a run's folder for the outcome of one fit, and what is known about it."""

    file: Path
    """The file; there may be none yet."""
    key: str
    """See `key_of`."""
    frames: int
    """Frames of the mesh."""
    faces: int
    """Triangles that were asked for."""
    insists: bool
    """Whether one mesh was asked for in any case, so that it is never given up."""
    texture_size: int | None
    """Side of its texture in texels; None with a colour per vertex."""

    @classmethod
    def of(cls, source: Exporter, folder: Path, options: MeshOptions, colouring: Colouring) -> Kept:
        """The place in a run's folder for what comes of fitting one mesh."""
        key = key_of(source, options, colouring)
        file = folder / FOLDER / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"
        size = options.texture_size if colouring == "texture" else None
        return cls(file, key, len(source.timeline), options.faces, options.topology == "shared", size)

    def read(self) -> Outcome | None:
        """The outcome; None if none is kept.

        Raises:
            ValueError: the file is not what this program would have written.
        """
        try:
            return self._outcome(*self._contents()) if self.file.exists() or self.file.is_symlink() else None
        except Exception as error:  # A damaged file can make the readers raise anything.
            raise ValueError(str(error)) from error

    def _contents(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Tensors and texts of the file; an exception of any kind if they cannot be had."""
        from safetensors import safe_open

        if not self.file.is_file() or self.file.stat().st_size > LARGEST:  # Reading a named pipe would wait for ever.
            raise ValueError("no file, or a larger one than is written")
        with self.file.open("rb") as beginning:
            header = int.from_bytes(beginning.read(8), "little")
        if header > 2 * len(self.key) + 64 * LONGEST:  # In JSON within JSON, quotation marks are two characters.
            raise ValueError("more texts than are written")
        with safe_open(self.file, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118

    def _outcome(self, tensors: dict[str, Tensor], texts: dict[str, str]) -> Outcome:
        """What is in a file; an exception of any kind if it is not what is asked for."""
        if texts["key"] != self.key or texts[DIGEST] != digest_of(tensors):
            raise ValueError("something else")
        said = tuple(json.loads(texts["said"]))
        if not all(len(sentence) <= LONGEST and sentence.isprintable() for sentence in said):
            raise ValueError("no sentences")
        if not tensors:
            if self.insists:
                raise ValueError("given up, where one mesh is insisted on")
            return Outcome(None, said)
        self.check(tensors)
        return Outcome(mesh_of(tensors), said)

    def write(self, outcome: Outcome) -> None:
        """Keep an outcome, in place of the oldest one if there are many.

        Raises:
            InputError: it is too large, the folder is a link, or there is no room or no permission.
            ValueError: it would not be read.
        """
        from safetensors.torch import save

        tensors = {} if outcome.mesh is None else tensors_of(outcome.mesh)
        if tensors:
            self.check(tensors)
        content = save(tensors, {"key": self.key, "said": json.dumps(outcome.said), DIGEST: digest_of(tensors)})
        if len(content) > LARGEST:
            raise InputError(f"{self.file} would have {len(content) / 1e6:.0f} MB, which is too much; {REMEDY}.")
        if self.file.parent.is_symlink():  # What is removed there could be another run's.
            raise InputError(f"{self.file.parent} is a link to another folder; {REMEDY}.")
        with refusals(self.file, REMEDY):
            check_space(self.file, ROOM * len(content), REMEDY)
            if self.file.exists() and not (self.file.is_file() or self.file.is_dir()):
                self.file.unlink()  # A pipe, or a device, in the run's own folder was told to be damaged.
        with new_file(self.file, overwrite=True, remedy=REMEDY) as file:
            file.write_bytes(content)
        remove_older(self.file.parent)

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        """Raises ValueError, or LookupError, if tensors describe no mesh of the kind that is asked for."""
        count, triangles = tensors["positions"].shape[1], tensors["faces"].shape[0]
        written = count if self.texture_size is None else tensors["vertex"].shape[0]
        found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
        if found != {name: (shape, TYPES[name]) for name, shape in self._shapes(count, triangles, written).items()}:
            raise ValueError("the mesh has arrays of another kind.")
        most = 3 * triangles
        if not (0 < triangles <= MOST_FACES * self.faces and 0 < count <= most and count <= written <= count + most):
            raise ValueError("the mesh has far more triangles than were asked for, or none, or too many vertices.")
        limits = {"positions": (-FARTHEST, FARTHEST), "colours": (0, 1), "uvs": (0, 1), "faces": (0, count - 1)}
        limits |= {"vertex": (0, count - 1), "cut_faces": (0, written - 1)}
        if not all(_is_within(tensors[name], *limits[name]) for name in tensors.keys() & limits.keys()):
            raise ValueError("the mesh has values out of range.")
        cut = (tensors["vertex"], tensors["cut_faces"]) if self.texture_size is not None else None
        if cut is not None and not _is_cut(*cut, tensors["faces"], count):
            raise ValueError("the mesh is another one than the one that has the texture.")

    def _shapes(self, count: int, triangles: int, written: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors of a mesh of so many vertices and triangles, with copies so many vertices."""
        shapes = {"positions": (self.frames, count, 3), "faces": (triangles, 3)}
        if self.texture_size is None:
            return {**shapes, "colours": (count, 3)}
        shapes |= {"vertex": (written,), "cut_faces": (triangles, 3), "uvs": (written, 2)}
        return {**shapes, "texture": (self.texture_size, self.texture_size, 3)}


def key_of(source: Exporter, options: MeshOptions, colouring: Colouring) -> str:
    """All that the outcome depends on, as JSON.

    The device is not part of it, and neither are the frames of the input, as a mesh is fitted to volume renders.
    """
    threshold = source.solid.threshold
    values = {
        "version": f"{__version__}, {VERSION}",
        "weights": digest_of(source.model.state_dict()),
        "model": repr(source.model.config),
        "view": source.view.stacked().flatten().tolist(),
        "times": source.timeline.times,
        "spacing": source.spacing,
        "threshold": (threshold.density, threshold.opacity),
        "lattice": source.solid.lattice.spacing,
        "min_part": source.min_part,
        "faces": options.faces,
        "topology": options.topology,
        "colouring": colouring,
        "texture_size": options.texture_size if colouring == "texture" else None,
    }
    return json.dumps(values)


def tensors_of(mesh: MovingMesh) -> dict[str, Tensor]:
    """The arrays of a mesh by name."""
    arrays = {"positions": mesh.positions, "faces": mesh.faces, "colours": mesh.colours, "texture": mesh.texture}
    if mesh.atlas is not None:
        arrays |= {"vertex": mesh.atlas.vertex, "cut_faces": mesh.atlas.faces, "uvs": mesh.atlas.uvs}
    return {name: torch.tensor(array) for name, array in arrays.items() if array is not None}


def mesh_of(tensors: Mapping[str, Tensor]) -> MovingMesh:
    """The mesh of which `tensors_of` made these."""
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    if "colours" in arrays:
        return MovingMesh(arrays["positions"], arrays["faces"], colours=arrays["colours"])
    atlas = Atlas(arrays["vertex"], arrays["cut_faces"], arrays["uvs"])
    return MovingMesh(arrays["positions"], arrays["faces"], atlas=atlas, texture=arrays["texture"])


def remove_older(folder: Path) -> None:
    """Remove all but the newest `MOST_KEPT` of the files that this program writes into a folder."""
    with suppress(OSError):
        ours = [file for file in folder.iterdir() if NAME.fullmatch(file.name) and file.is_file()]
        for file in sorted(ours, key=lambda file: file.lstat().st_mtime_ns)[:-MOST_KEPT]:
            file.unlink(missing_ok=True)


def _is_cut(
    vertex: Int64[Tensor, " cut_vertices"], cut: Int32[Tensor, "faces 3"], whole: Int32[Tensor, "faces 3"], count: int
) -> bool:
    """Whether a mesh with copies of `count` vertices has the triangles of one without, and all copies come last."""
    return torch.equal(vertex[:count], torch.arange(count)) and torch.equal(vertex[cut.long()], whole.long())


def _is_within(values: Tensor, least: float, most: float) -> bool:
    """Whether all of some values are in a range; NaN never is."""
    low, high = torch.aminmax(values)
    return bool((low >= least) & (high <= most))
