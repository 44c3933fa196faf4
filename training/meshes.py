"""Artist-made objects: glTF models packed into one small file, and loaded back as coloured triangles.

    python -m training.meshes FOLDER... OUT.xz

packs every .glb and .gltf file below the folders. A model is stored as vertices with skinning weights and one matrix
per bone and pose, so that many poses of an animated model take little more space than one. Skinning is applied when the
file is loaded. A static model has one pose, and a mesh without a skin has one bone: its node.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import lzma
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Int64, UInt8
from torch import Tensor

from consistent4d_ns.errors import InputError, show_input_errors_in_one_line
from training.gltf import (
    REST,
    TRIANGLES,
    Clip,
    Gltf,
    UnsuitableError,
    clip_span,
    corner_colours,
    read_gltf,
    read_skin,
    world_matrices,
)
from training.soup import Soups, cumulated, members

EVALUATION_CHARACTERS = ("barbarian", "clownfish", "fox", "george", "shibainu", "trex")
"""Objects on which the method is evaluated; models whose file name contains one of these names are always excluded."""
MAX_TRIANGLES = 12000
MIN_THICKNESS = 0.03
"""Minimum ratio of smallest to largest extent; thinner objects (floor tiles, leaves) vanish from most views."""
MAX_CLIP_POSES, MAX_POSES = 6, 40
"""Maximum number of poses per clip and, roughly, per model; every clip has at least two."""
HELD_OUT = 0.06
"""Fraction of the models that is held out for validation."""
RADIUS = 0.5
"""Distance from the origin, in world units, to the farthest vertex in any pose of a clip."""

Z_UP = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
"""From glTF's axes (y up, front +z) to world axes (z up, front -y)."""


# ---------------------------------------------------------------------------------------------------------------------
# Models
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mesh:
    """Triangles with skinning weights."""

    positions: Float[np.ndarray, "vertices 3"]
    normals: Float[np.ndarray, "vertices 3"]
    """Unit length."""
    bones: Int[np.ndarray, "vertices 4"]
    weights: Float[np.ndarray, "vertices 4"]
    """Skinning weights of the bones; they sum to 1."""
    faces: Int[np.ndarray, "faces 3"]
    colours: UInt8[np.ndarray, "faces 3 3"]
    """sRGB colours of the faces' corners."""


@dataclass(frozen=True)
class Part:
    """The mesh of one node, and the bones that move it."""

    mesh: Mesh
    nodes: Int[np.ndarray, " bones"]
    """Node of each bone."""
    offsets: Float[np.ndarray, "bones 4 4"]
    """From the frame of the mesh to those of the bones."""


@dataclass(frozen=True)
class Model:
    """A mesh in one or more poses."""

    mesh: Mesh
    """Positions in [-1, 1], in a frame of its own for each node; the matrices take this into account."""
    matrices: Float[np.ndarray, "poses bones 3 4"]
    """Skinning matrices, from the frames of the mesh to the world."""


def join_meshes(meshes: Sequence[Mesh], bone_counts: Sequence[int]) -> Mesh:
    """Several meshes as one.

    Args:
        meshes: The meshes.
        bone_counts: Number of bones that belong to each mesh alone; 0 if it uses the same bones as the next mesh.
    """
    vertex_starts = np.cumsum([0, *(len(mesh.positions) for mesh in meshes)])
    bone_starts = np.cumsum([0, *bone_counts])
    columns = {field.name: [getattr(mesh, field.name) for mesh in meshes] for field in fields(Mesh)}
    columns["faces"] = [faces + start for faces, start in zip(columns["faces"], vertex_starts[:-1], strict=True)]
    columns["bones"] = [bones + start for bones, start in zip(columns["bones"], bone_starts[:-1], strict=True)]
    return Mesh(**{name: np.concatenate(arrays) for name, arrays in columns.items()})


def read_model(path: Path) -> Model:
    """The model of a glTF file in one or more poses; the poses of a clip have the same scale and centre.

    Raises:
        UnsuitableError: the model is to be skipped.
        InputError: the file is damaged.
    """
    if any(name in re.sub("[^a-z]", "", path.name.lower()) for name in EVALUATION_CHARACTERS):
        raise UnsuitableError("named like an evaluation character")
    try:
        gltf = read_gltf(path)
        meshes = {i: _read_mesh(gltf, node["mesh"]) for i, node in enumerate(gltf.items("nodes")) if "mesh" in node}
        return make_model(gltf, [read_part(gltf, node, pieces) for node, pieces in meshes.items() if pieces])
    except (OSError, LookupError, ValueError, TypeError, RecursionError, struct.error) as error:
        raise InputError(f"{path}: not a readable glTF 2.0 model ({error}); remove it or export it again.") from error


def read_part(gltf: Gltf, index: int, meshes: Sequence[Mesh]) -> Part:
    """The meshes of a node as one, in a frame in which its longest side spans [-1, 1], with the bones that it uses."""
    node, mesh = gltf.items("nodes")[index], join_meshes(meshes, [0] * len(meshes))
    if "skin" in node:
        nodes, offsets = read_skin(gltf, gltf.items("skins")[node["skin"]])
    else:
        nodes, offsets, rigid = np.array([index]), np.eye(4)[None], np.array([1.0, 0, 0, 0])
        mesh = replace(mesh, bones=np.zeros_like(mesh.bones), weights=np.tile(rigid, (len(mesh.bones), 1)))
    low, high = mesh.positions.min(0), mesh.positions.max(0)
    centre, reach = (low + high) / 2, (high - low).max() / 2
    used, bones = np.unique(np.where(mesh.weights > 0, mesh.bones, mesh.bones[:, :1]), return_inverse=True)
    mesh = replace(mesh, positions=(mesh.positions - centre) / reach, bones=bones.reshape(-1, 4))
    return Part(mesh, nodes[used], offsets[used] @ placement(reach, centre))


def placement(scale: float, shift: Float[np.ndarray, "3"]) -> Float[np.ndarray, "4 4"]:
    """The affine matrix that scales, then translates."""
    matrix = np.diag((scale, scale, scale, 1.0))
    matrix[:3, 3] = shift
    return matrix


def _read_mesh(gltf: Gltf, index: int) -> list[Mesh]:
    """A mesh as one piece per material; pieces without triangles are left out."""
    primitives = gltf.items("meshes")[index]["primitives"]
    pieces = [_cleaned(_read_primitive(gltf, p)) for p in primitives if p.get("mode", TRIANGLES) == TRIANGLES]
    return [piece for piece in pieces if len(piece.faces)]


def _read_primitive(gltf: Gltf, primitive: dict[str, Any]) -> Mesh:
    """The triangles of one material; they are flat-shaded if the file has no normals."""
    names = primitive["attributes"]
    positions = gltf.accessor(names["POSITION"]).astype(float)
    faces = np.arange(len(positions))
    if "indices" in primitive:
        faces = gltf.accessor(primitive["indices"])[:, 0].astype(np.int64)
    faces = faces.reshape(-1, 3)
    colours = corner_colours(gltf, primitive, faces)
    bones, weights = np.zeros((len(positions), 4), np.int64), np.zeros((len(positions), 4))
    if "JOINTS_0" in names:
        bones, weights = gltf.accessor(names["JOINTS_0"]).astype(np.int64), gltf.accessor(names["WEIGHTS_0"])
    if not np.isfinite(weights).all():
        raise UnsuitableError("skinning weights that are not finite")
    if "NORMAL" in names:
        normals = gltf.accessor(names["NORMAL"]).astype(float)
        return Mesh(positions, unit(normals), bones, weights, faces, colours)
    # Every corner becomes a separate vertex, so that it can have the normal of its face.
    corners = faces.ravel()
    normals = np.repeat(unit(_area_vectors(positions[faces])), 3, 0)
    split = np.arange(faces.size).reshape(-1, 3)
    return Mesh(positions[corners], normals, bones[corners], weights[corners], split, colours)


def _cleaned(mesh: Mesh) -> Mesh:
    """The mesh without degenerate triangles and unused vertices."""
    corners = mesh.positions[mesh.faces]
    area = np.linalg.norm(_area_vectors(corners), axis=-1)
    keep = area > 1e-8 * np.ptp(corners, axis=(0, 1)).max(initial=0) ** 2
    used, faces = np.unique(mesh.faces[keep], return_inverse=True)
    positions, normals, bones, weights = mesh.positions[used], mesh.normals[used], mesh.bones[used], mesh.weights[used]
    return Mesh(positions, normals, bones, weights, faces.reshape(-1, 3), mesh.colours[keep])


def unit(vectors: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """Vectors scaled to unit length; zero vectors stay zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-20)


def _area_vectors(corners: Float[np.ndarray, "faces 3 3"]) -> Float[np.ndarray, "faces 3"]:
    """Normals of triangles; their length is twice the area."""
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def make_model(gltf: Gltf, parts: Sequence[Part]) -> Model:
    """A model of all parts, in all its poses.

    Raises:
        UnsuitableError: it has no triangles or too many, or it is too flat.
    """
    count = sum(len(part.mesh.faces) for part in parts)
    if not 0 < count <= MAX_TRIANGLES:
        raise UnsuitableError(f"more than {MAX_TRIANGLES} triangles" if count else "no triangles")
    mesh = join_meshes([part.mesh for part in parts], [len(part.nodes) for part in parts])
    nodes = np.concatenate([part.nodes for part in parts])
    offsets = np.concatenate([part.offsets for part in parts])
    clips = [Z_UP @ world_matrices(gltf, clip, times)[:, nodes] @ offsets for clip, times in chosen_poses(gltf)]
    return Model(mesh, np.concatenate([_fitted(mesh, matrices[..., :3, :]) for matrices in clips]))


def chosen_poses(gltf: Gltf) -> list[tuple[Clip, Float[np.ndarray, " poses"]]]:
    """Clips and evenly spaced times in seconds of each; the rest pose if no clip has a duration."""
    spans = [(clip, *clip_span(gltf, clip)) for clip in gltf.items("animations")]
    spans = [(clip, start, end) for clip, start, end in spans if start < end]
    if not spans:
        return [(REST, np.zeros(1))]
    count = int(np.clip(MAX_POSES // len(spans), 2, MAX_CLIP_POSES))
    fractions = (np.arange(count) + 0.5) / count
    return [(clip, start + (end - start) * fractions) for clip, start, end in spans]


def _fitted(mesh: Mesh, matrices: Float[np.ndarray, "poses bones 3 4"]) -> Float[np.ndarray, "poses bones 3 4"]:
    """The matrices, scaled and translated alike so that all poses of the mesh are centred (as by `soup.centred`)."""
    positions, normals, bones, weights = map(
        torch.from_numpy, (mesh.positions, mesh.normals, mesh.bones, mesh.weights.astype(float))
    )
    all_weights = weights.new_zeros(len(weights), matrices.shape[1]).scatter_add_(1, bones, weights)
    blended = torch.einsum("vb,pbij->pvij", all_weights, torch.from_numpy(matrices))
    points = skin(positions, normals, blended)[0].numpy()
    extents = np.ptp(points[0], axis=0)
    if extents.min() < MIN_THICKNESS * extents.max():
        raise UnsuitableError("too flat")
    centre = (points.min((0, 1)) + points.max((0, 1))) / 2
    moved = matrices - np.pad(centre[:, None], ((0, 0), (3, 0)))
    return moved * (RADIUS / np.linalg.norm(points - centre, axis=-1).max())


def skin(
    positions: Float[Tensor, "vertices 3"],
    normals: Float[Tensor, "vertices 3"],
    blended: Float[Tensor, "*poses vertices 3 4"],
) -> tuple[Float[Tensor, "*poses vertices 3"], Float[Tensor, "*poses vertices 3"]]:
    """Linear blend skinning: positions and unit normals in each pose.

    Args:
        positions: Vertices in the frame of the mesh.
        normals: Unit normals in that frame.
        blended: Weighted means of the matrices of each vertex' bones.
    """
    linear, shift = blended[..., :3], blended[..., 3]
    moved = torch.einsum("...vij,vj->...vi", linear, positions) + shift
    # Normals transform by the inverse transpose, cofactors over determinant; only the determinant's sign matters.
    rows = linear.unbind(-2)
    cofactors = torch.stack([torch.linalg.cross(rows[i - 2], rows[i - 1]) for i in range(3)], -2)
    mirrored = (rows[0] * cofactors[..., 0, :]).sum(-1, keepdim=True).sign()
    return moved, F.normalize(torch.einsum("...vij,vj->...vi", cofactors, normals) * mirrored, dim=-1, eps=1e-20)


# ---------------------------------------------------------------------------------------------------------------------
# The packed file
# ---------------------------------------------------------------------------------------------------------------------

POSITION_STEPS, NORMAL_STEPS, WEIGHT_STEPS = 4095, 127, 255
"""Integers that represent 1."""
VERTICES_AT_ONCE = 1 << 18
"""Number of vertices, counted in every pose, that are skinned at once; limits the memory."""
ROWS = {
    "positions": "vertices",
    "normals": "vertices",
    "bones": "vertices",
    "weights": "vertices",
    "faces": "triangles",
    "colours": "triangles",
    "matrices": "transforms",
}
"""Arrays that concatenate the rows of all models, and for each the array with the number of rows of each model."""


def pack(models: Mapping[str, Model]) -> bytes:
    """All models with their names, compressed: quantised meshes as NumPy arrays of small integers, and matrices."""
    rows = [_quantised(model.mesh) for model in models.values()]
    for row, model in zip(rows, models.values(), strict=True):
        row["matrices"] = model.matrices.reshape(-1, 3, 4).astype(np.float32)
    arrays = {name: np.concatenate([row[name] for row in rows]) for name in ROWS}
    for name, count in ROWS.items():
        arrays[count] = np.array([len(row[name]) for row in rows])
    arrays["poses"] = np.array([len(model.matrices) for model in models.values()])
    arrays["names"] = np.array(list(models))
    file = io.BytesIO()
    np.savez(file, **arrays)
    return lzma.compress(file.getvalue())


def _quantised(mesh: Mesh) -> dict[str, np.ndarray]:
    """A mesh as small integers, which compress well.

    Equal vertices are merged and sorted by their first use. A corner is encoded as the number of vertices used so far
    minus the index of its own: 0 for a new vertex, small for a recent one.
    """
    columns = {
        "positions": np.rint(mesh.positions * POSITION_STEPS).astype(np.int16),
        "normals": np.rint(mesh.normals * NORMAL_STEPS).astype(np.int8),
        "bones": mesh.bones.astype(np.uint16),
        "weights": np.rint(mesh.weights * WEIGHT_STEPS).astype(np.uint8),
    }
    rows = np.concatenate(list(columns.values()), axis=1, dtype=np.int32)
    corners = np.unique(rows, axis=0, return_inverse=True)[1].ravel()[mesh.faces.ravel()]
    _, first, inverse = np.unique(corners, return_index=True, return_inverse=True)
    order = np.argsort(first)
    indices = np.argsort(order)[inverse]
    seen = np.maximum.accumulate(np.concatenate(([0], indices[:-1] + 1)))
    chosen = mesh.faces.ravel()[first[order]]
    packed = {name: rows[chosen] for name, rows in columns.items()}
    faces = (seen - indices).reshape(-1, 3).astype(np.uint16)
    return {**packed, "faces": faces, "colours": mesh.colours}


@dataclass(frozen=True)
class MeshLibrary:
    """Models in one or more poses; every pose is an object."""

    soups: Soups
    models: Int64[Tensor, " objects"]
    """Index of each object's model; the poses of a model are consecutive, clip by clip."""
    names: list[str]
    """Folder and file name of each model, without suffix."""
    held_out: Bool[Tensor, " models"]
    """Whether a model is for validation and never for training (see `is_held_out`)."""
    animated: Bool[Tensor, " models"]
    """Whether a model has several poses."""


def load_meshes(path: Path, device: torch.device | str) -> MeshLibrary:
    """Load all models of a packed file in all their poses.

    Raises:
        InputError: it is not a packed file.
    """
    arrays = _read_packed(path)
    names = [str(name) for name in arrays.pop("names")]
    packed = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
    held_out = torch.tensor([is_held_out(name) for name in names], device=device)
    models = torch.repeat_interleave(packed["poses"])
    return MeshLibrary(_posed(packed, models), models, names, held_out, packed["poses"] > 1)


def is_held_out(name: str) -> bool:
    """Whether a model is for validation; this depends on its name alone, not on which other models there are."""
    return int.from_bytes(hashlib.sha256(f"validation/{name}".encode()).digest()[:4], "big") < HELD_OUT * 2**32


def _read_packed(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a packed file, with `faces` decoded to vertex indices within each model."""
    try:
        with np.load(io.BytesIO(lzma.decompress(path.read_bytes()))) as file:
            arrays = {name: file[name] for name in (*ROWS, *ROWS.values(), "poses", "names")}
    except (OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile, ValueError, KeyError) as error:
        raise InputError(f"{path}: not a packed mesh file ({error}); make it with training.meshes.") from error
    codes = arrays["faces"].ravel().astype(np.int64)
    seen = np.cumsum(codes == 0) - (codes == 0)
    first = np.cumsum(arrays["vertices"]) - arrays["vertices"]
    arrays["faces"] = (seen - codes).reshape(-1, 3) - np.repeat(first, arrays["triangles"])[:, None]
    arrays["bones"] = arrays["bones"].astype(np.int64)
    return arrays


def _posed(packed: Mapping[str, Tensor], models: Int64[Tensor, " objects"]) -> Soups:
    """Triangles of packed models in all their poses; `models` are the indices of the objects' models."""
    vertices, vertex_starts = members(packed["vertices"], models)
    triangles, triangle_starts = members(packed["triangles"], models)
    # The matrices are in the order of the objects: model by model, pose by pose.
    first_bone = cumulated((packed["transforms"] // packed["poses"])[models])[:-1]
    weights = packed["weights"] / packed["weights"].sum(-1, keepdim=True)
    columns = (
        (packed["positions"] / POSITION_STEPS)[vertices],
        (packed["normals"] / NORMAL_STEPS)[vertices],
        packed["bones"][vertices] + torch.repeat_interleave(first_bone, vertex_starts.diff())[:, None],
        weights[vertices],
    )
    split = (column.split(VERTICES_AT_ONCE) for column in columns)
    parts = [
        skin(p, n, _blended(bones, weight, packed["matrices"])) for p, n, bones, weight in zip(*split, strict=True)
    ]
    points, directions = (torch.cat(column) for column in zip(*parts, strict=True))
    first_vertex = torch.repeat_interleave(vertex_starts[:-1], triangle_starts.diff())
    corners = packed["faces"][triangles] + first_vertex[:, None]
    return Soups(points[corners], directions[corners], packed["colours"][triangles].float() / 255, triangle_starts)


def _blended(
    bones: Int64[Tensor, "vertices 4"], weights: Float[Tensor, "vertices 4"], matrices: Float[Tensor, "transforms 3 4"]
) -> Float[Tensor, "vertices 3 4"]:
    """Weighted mean of the matrices of each vertex' bones."""
    blended = matrices.new_zeros(len(bones), 3, 4)
    for bone, weight in zip(bones.T, weights.T, strict=True):
        blended += weight[:, None, None] * matrices.index_select(0, bone)
    return blended


# ---------------------------------------------------------------------------------------------------------------------
# The stage
# ---------------------------------------------------------------------------------------------------------------------


def read_models(folders: Sequence[Path]) -> tuple[dict[str, Model], Counter[str]]:
    """The usable models of some folders by name, and the number of models skipped for each reason.

    Raises:
        InputError: no model is usable, two have the same name, or a file is damaged.
    """
    models: dict[str, Model] = {}
    skipped: Counter[str] = Counter()
    for path in sorted(path for folder in folders for path in folder.rglob("*") if path.suffix in (".glb", ".gltf")):
        name = f"{path.parent.name}/{path.name.partition('.')[0]}"
        if name in models:
            raise InputError(f"{path}: there is another model named {name}; rename one or leave it out.")
        try:
            models[name] = read_model(path)
        except UnsuitableError as reason:
            skipped[str(reason)] += 1
    if not models:
        raise InputError(f"{', '.join(map(str, folders))}: no usable .glb or .gltf model; give other folders.")
    return models, skipped


def main() -> None:
    """Pack the models, and print how many were packed and skipped."""
    parser = argparse.ArgumentParser("python -m training.meshes", description="Pack glTF models into one small file.")
    parser.add_argument("folders", type=Path, nargs="+", help="folders with .glb and .gltf files, searched recursively")
    parser.add_argument("out", type=Path, help="file to write, usually .xz")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    options = parser.parse_args()
    if options.out.exists() and not options.overwrite:
        raise InputError(f"{options.out}: exists; choose another file or add --overwrite.")
    models, skipped = read_models(options.folders)
    options.out.write_bytes(pack(models))
    poses = sum(len(model.matrices) for model in models.values())
    print(f"{options.out}: {len(models)} models, {poses} poses, {options.out.stat().st_size / 1e6:.1f} MB.")
    for reason, count in skipped.most_common():
        print(f"Skipped models, {reason}: {count}.")


if __name__ == "__main__":
    show_input_errors_in_one_line()
    main()
