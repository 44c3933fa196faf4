"""Artist-made objects: glTF models packed into one small file, and loaded back as coloured triangles.

    python -m training.meshes FOLDER... OUT.xz

takes every .glb and .gltf below the folders. A model is kept as vertices, their bones and one matrix per bone and pose,
so that the poses of an animated model cost little more than one; poses are made when the file is loaded. An unanimated
model has one pose, and a mesh without a skin has one bone: its node.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import lzma
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Int64, UInt8
from PIL import Image
from torch import Tensor

from consistent4d_ns.errors import InputError, show_input_errors_in_one_line
from training.soup import Soups

EVALUATION_CHARACTERS = ("barbarian", "clownfish", "fox", "george", "shibainu", "trex")
"""Objects that the whole method is evaluated on; no model whose name has one of these in it is ever taken."""
MAX_TRIANGLES = 12000
MIN_THICKNESS = 0.03
"""Least extent over greatest extent; what is thinner (floor tiles, leaves) vanishes from most views."""
MAX_CLIP_POSES, MAX_POSES = 6, 40
HELD_OUT = 0.06
"""Share of the models that is kept for validation."""
RADIUS = 0.5
"""World units that the poses of a clip reach from the origin."""

Z_UP = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
"""From glTF's axes (y up, front +z) to the world's (z up, front -y)."""


class UnsuitableError(Exception):
    """A model that is left out; the message is the reason, the same for all models left out for it."""


# ---------------------------------------------------------------------------------------------------------------------
# glTF files
# ---------------------------------------------------------------------------------------------------------------------

COMPONENT_TYPES = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
COMPONENT_COUNTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
TRIANGLES = 4


@dataclass(frozen=True)
class Gltf:
    """A glTF 2.0 file: its JSON part and the bytes that come with it."""

    json: dict[str, Any]
    folder: Path
    """Where files named in it are."""
    binary: bytes
    """The binary chunk of a .glb file."""

    def items(self, kind: str) -> list[dict[str, Any]]:
        """All nodes, meshes, ...; none if the file does not have this kind."""
        return self.json.get(kind, [])

    @cached_property
    def buffers(self) -> list[bytes]:
        """Bytes of each buffer."""
        return [self._resource(buffer["uri"]) if "uri" in buffer else self.binary for buffer in self.items("buffers")]

    @cached_property
    def images(self) -> list[UInt8[np.ndarray, "h w 3"]]:
        """Each image in display values."""
        return [np.asarray(Image.open(io.BytesIO(self._image(image))).convert("RGB")) for image in self.items("images")]

    @cached_property
    def parents(self) -> list[int]:
        """Parent of each node, -1 for roots."""
        parents = [-1] * len(self.items("nodes"))
        for i, node in enumerate(self.items("nodes")):
            for child in node.get("children", ()):
                parents[child] = i
        return parents

    def accessor(self, index: int) -> np.ndarray:
        """Values of an accessor, one row per element; normalised integers become floats."""
        accessor = self.items("accessors")[index]
        if "sparse" in accessor or "bufferView" not in accessor:
            raise UnsuitableError("sparse or missing vertex data")
        view = self.items("bufferViews")[accessor["bufferView"]]
        dtype = np.dtype(COMPONENT_TYPES[accessor["componentType"]]).newbyteorder("<")
        width = COMPONENT_COUNTS[accessor["type"]]
        values = np.ndarray(
            (accessor["count"], width),
            dtype,
            self.buffers[view["buffer"]],
            view.get("byteOffset", 0) + accessor.get("byteOffset", 0),
            (view.get("byteStride", width * dtype.itemsize), dtype.itemsize),
        )
        return values / np.float32(np.iinfo(dtype).max) if accessor.get("normalized") else values

    def _image(self, image: dict[str, Any]) -> bytes:
        """Bytes of an image file inside or beside the model."""
        if "uri" in image:
            return self._resource(image["uri"])
        view = self.items("bufferViews")[image["bufferView"]]
        start = view.get("byteOffset", 0)
        return self.buffers[view["buffer"]][start : start + view["byteLength"]]

    def _resource(self, uri: str) -> bytes:
        """What a URI names: embedded bytes, or a file beside the model."""
        if uri.startswith("data:"):
            return base64.b64decode(uri.partition(",")[2])
        return (self.folder / unquote(uri)).read_bytes()


def read_gltf(path: Path) -> Gltf:
    """The .gltf or .glb file `path`, with compressed meshes refused (`UnsuitableError`)."""
    content, binary = path.read_bytes(), b""
    if path.suffix == ".glb":
        size = struct.unpack_from("<I", content, 12)[0]
        content, binary = content[20 : 20 + size], content[28 + size :]
    gltf = Gltf(json.loads(content), path.parent, binary)
    if required := gltf.items("extensionsRequired"):
        raise UnsuitableError(f"extension {', '.join(map(str, required))}")
    return gltf


# ---------------------------------------------------------------------------------------------------------------------
# Movement
# ---------------------------------------------------------------------------------------------------------------------

DEFAULTS = {"translation": (0.0, 0.0, 0.0), "rotation": (0.0, 0.0, 0.0, 1.0), "scale": (1.0, 1.0, 1.0)}

Clip = dict[str, Any]
"""An entry of a file's `animations`."""
REST: Clip = {"channels": [], "samplers": []}
"""The clip that moves nothing."""


def clip_span(gltf: Gltf, clip: Clip) -> tuple[float, float]:
    """First and last key time of a clip in seconds."""
    keys = [gltf.accessor(sampler["input"]) for sampler in clip["samplers"]]
    return float(min(k.min() for k in keys)), float(max(k.max() for k in keys))


def world_matrices(gltf: Gltf, clip: Clip, times: Float[np.ndarray, "poses"]) -> Float[np.ndarray, "poses nodes 4 4"]:
    """From each node's frame to the world at some times of a clip."""
    local, parents = _local_matrices(gltf, clip, times), gltf.parents
    world: dict[int, np.ndarray] = {-1: np.eye(4)}

    def resolve(node: int) -> np.ndarray:
        if node not in world:
            world[node] = resolve(parents[node]) @ local[:, node]
        return world[node]

    return np.stack([resolve(node) for node in range(len(parents))], 1)


def _local_matrices(gltf: Gltf, clip: Clip, times: Float[np.ndarray, "poses"]) -> Float[np.ndarray, "poses nodes 4 4"]:
    """From each node's frame to its parent's."""
    nodes = gltf.items("nodes")
    values = {
        path: np.tile(np.array([node.get(path, default) for node in nodes]), (len(times), 1, 1))
        for path, default in DEFAULTS.items()
    }
    for channel in clip["channels"]:
        target = channel["target"]
        if "node" in target and target["path"] in values:
            sampled = sample(gltf, clip["samplers"][channel["sampler"]], times, target["path"] == "rotation")
            values[target["path"]][:, target["node"]] = sampled
    matrices = compose(**values)
    for i, node in enumerate(nodes):
        if "matrix" in node:
            matrices[:, i] = np.reshape(node["matrix"], (4, 4)).T
    return matrices


def sample(
    gltf: Gltf, sampler: dict[str, Any], times: Float[np.ndarray, "poses"], rotation: bool
) -> Float[np.ndarray, "poses n"]:
    """Values of an animation sampler, held before its first and after its last key. Cubic splines are followed by
    straight lines between their keys."""
    keys = gltf.accessor(sampler["input"])[:, 0]
    values = gltf.accessor(sampler["output"]).astype(float)
    kind = sampler.get("interpolation", "LINEAR")
    if kind == "CUBICSPLINE":
        values = values[1::3]
    place = np.interp(times, keys, np.arange(len(keys)))
    before = np.floor(place).astype(int)
    after = np.minimum(before + 1, len(keys) - 1)
    share = (place - before)[:, None] * (kind != "STEP")
    if rotation:
        return slerp(values[before], values[after], share)
    return values[before] + share * (values[after] - values[before])


def slerp(
    a: Float[np.ndarray, "n 4"], b: Float[np.ndarray, "n 4"], share: Float[np.ndarray, "n 1"]
) -> Float[np.ndarray, "n 4"]:
    """Unit quaternions on the shorter arc from a (share 0) to b (share 1)."""
    cosine = (a * b).sum(-1, keepdims=True)
    b, angle = np.where(cosine < 0, -b, b), np.arccos(np.clip(abs(cosine), 0, 1))
    # sinc keeps the quotient of sines defined when a = b.
    blend = a * (1 - share) * np.sinc((1 - share) * angle / np.pi) + b * share * np.sinc(share * angle / np.pi)
    return blend / np.linalg.norm(blend, axis=-1, keepdims=True)


def compose(
    translation: Float[np.ndarray, "*n 3"], rotation: Float[np.ndarray, "*n 4"], scale: Float[np.ndarray, "*n 3"]
) -> Float[np.ndarray, "*n 4 4"]:
    """Matrices that scale, then rotate (unit quaternions x, y, z, w), then translate."""
    x, y, z, w = np.moveaxis(rotation, -1, 0)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    matrices = np.zeros((*translation.shape[:-1], 4, 4))
    matrices[..., :3, :3] = np.stack([np.stack(row, -1) for row in rows], -2) * scale[..., None, :]
    matrices[..., :3, 3] = translation
    matrices[..., 3, 3] = 1
    return matrices


# ---------------------------------------------------------------------------------------------------------------------
# Colours
# ---------------------------------------------------------------------------------------------------------------------

INSET = 0.1
"""How far a corner's texture coordinates go towards the face's centre, so that it stays on its palette patch."""


def to_linear(display: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """sRGB display values to light, both in [0, 1]."""
    return np.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4)


def to_display(light: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Light to sRGB display values, both in [0, 1]; brighter light is clipped."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def corner_colours(
    gltf: Gltf, primitive: dict[str, Any], faces: Int[np.ndarray, "faces 3"]
) -> UInt8[np.ndarray, "faces 3 3"]:
    """Display colours of the faces' corners: base colour times texture times vertex colour."""
    material = gltf.items("materials")[primitive["material"]] if "material" in primitive else {}
    surface, attributes = material.get("pbrMetallicRoughness", {}), primitive["attributes"]
    light = np.ones((len(faces), 3, 3)) * surface.get("baseColorFactor", (1, 1, 1))[:3]
    if texture := surface.get("baseColorTexture"):
        image = gltf.images[gltf.items("textures")[texture["index"]]["source"]]
        uv = gltf.accessor(attributes[f"TEXCOORD_{texture.get('texCoord', 0)}"])[faces]
        light *= to_linear(nearest_texel(image, uv + INSET * (uv.mean(1, keepdims=True) - uv)) / 255)
    if "COLOR_0" in attributes:
        light *= gltf.accessor(attributes["COLOR_0"])[faces][..., :3]
    return np.rint(255 * to_display(light)).astype(np.uint8)


def nearest_texel(image: UInt8[np.ndarray, "h w 3"], uv: Float[np.ndarray, "*n 2"]) -> UInt8[np.ndarray, "*n 3"]:
    """Colours of a repeated image; (0, 0) is its top left corner, (1, 1) its bottom right."""
    size = np.array(image.shape[1::-1])
    column, row = np.moveaxis(np.floor(uv * size).astype(int) % size, -1, 0)
    return image[row, column]


# ---------------------------------------------------------------------------------------------------------------------
# Models
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mesh:
    """Triangles whose vertices follow bones."""

    positions: Float[np.ndarray, "vertices 3"]
    normals: Float[np.ndarray, "vertices 3"]
    """Unit length."""
    bones: Int[np.ndarray, "vertices 4"]
    weights: Float[np.ndarray, "vertices 4"]
    """Shares of the bones; they sum to 1."""
    faces: Int[np.ndarray, "faces 3"]
    colours: UInt8[np.ndarray, "faces 3 3"]
    """Display RGB of the faces' corners."""


@dataclass(frozen=True)
class Part:
    """The mesh of one node, with what moves it."""

    mesh: Mesh
    nodes: Int[np.ndarray, "bones"]
    """Node that each bone is."""
    offsets: Float[np.ndarray, "bones 4 4"]
    """From the frame of the mesh to that of the bone."""


@dataclass(frozen=True)
class Model:
    """A mesh in some poses."""

    mesh: Mesh
    """Positions in [-1, 1]. Meshes of different nodes have different frames, which the matrices undo."""
    matrices: Float[np.ndarray, "poses bones 3 4"]
    """From the frames of the mesh to the world."""


def join_meshes(meshes: Sequence[Mesh], bone_counts: Sequence[int]) -> Mesh:
    """Several meshes as one; `bone_counts` are the bones that each has for itself (0: it shares the next one's)."""
    vertex_starts = np.cumsum([0, *(len(mesh.positions) for mesh in meshes)])
    bone_starts = np.cumsum([0, *bone_counts])
    columns = {field.name: [getattr(mesh, field.name) for mesh in meshes] for field in fields(Mesh)}
    columns["faces"] = [faces + start for faces, start in zip(columns["faces"], vertex_starts)]
    columns["bones"] = [bones + start for bones, start in zip(columns["bones"], bone_starts)]
    return Mesh(**{name: np.concatenate(arrays) for name, arrays in columns.items()})


def read_model(path: Path) -> Model:
    """The model of a glTF file in some poses: each clip's poses share one scale and centre.

    Raises:
        UnsuitableError: it is not to be used.
        InputError: the file is broken.
    """
    if any(name in re.sub("[^a-z]", "", path.name.lower()) for name in EVALUATION_CHARACTERS):
        raise UnsuitableError("name like an evaluation character")
    try:
        gltf = read_gltf(path)
        meshes = {i: _read_mesh(gltf, node["mesh"]) for i, node in enumerate(gltf.items("nodes")) if "mesh" in node}
        return make_model(gltf, [read_part(gltf, node, pieces) for node, pieces in meshes.items() if pieces])
    except (OSError, LookupError, ValueError, TypeError, struct.error) as error:
        raise InputError(f"{path}: not a readable glTF 2.0 model ({error}); remove it or export it again.") from error


def read_part(gltf: Gltf, index: int, meshes: Sequence[Mesh]) -> Part:
    """The meshes of a node as one, in a frame where it fills [-1, 1], with the bones that it uses."""
    node, mesh = gltf.items("nodes")[index], join_meshes(meshes, [0] * len(meshes))
    if "skin" in node:
        nodes, offsets = _read_skin(gltf, gltf.items("skins")[node["skin"]])
    else:
        nodes, offsets, rigid = np.array([index]), np.eye(4)[None], np.array([1.0, 0, 0, 0])
        mesh = replace(mesh, bones=np.zeros_like(mesh.bones), weights=np.tile(rigid, (len(mesh.bones), 1)))
    low, high = mesh.positions.min(0), mesh.positions.max(0)
    centre, reach = (low + high) / 2, (high - low).max() / 2
    used, bones = np.unique(np.where(mesh.weights > 0, mesh.bones, mesh.bones[:, :1]), return_inverse=True)
    mesh = replace(mesh, positions=(mesh.positions - centre) / reach, bones=bones.reshape(-1, 4))
    return Part(mesh, nodes[used], offsets[used] @ placement(reach, centre))


def placement(scale: float, shift: Float[np.ndarray, "3"]) -> Float[np.ndarray, "4 4"]:
    """The matrix that scales, then shifts."""
    matrix = np.diag((scale, scale, scale, 1.0))
    matrix[:3, 3] = shift
    return matrix


def _read_skin(gltf: Gltf, skin: dict[str, Any]) -> tuple[Int[np.ndarray, "bones"], Float[np.ndarray, "bones 4 4"]]:
    """Nodes and offsets of a skin's joints."""
    nodes = np.array(skin["joints"])
    if "inverseBindMatrices" not in skin:
        return nodes, np.tile(np.eye(4), (len(nodes), 1, 1))
    return nodes, gltf.accessor(skin["inverseBindMatrices"]).reshape(-1, 4, 4).swapaxes(1, 2).astype(float)


def _read_mesh(gltf: Gltf, index: int) -> list[Mesh]:
    """A mesh as one piece for each material; what has no triangles is left out."""
    primitives = gltf.items("meshes")[index]["primitives"]
    pieces = [_cleaned(_read_primitive(gltf, p)) for p in primitives if p.get("mode", TRIANGLES) == TRIANGLES]
    return [piece for piece in pieces if len(piece.faces)]


def _read_primitive(gltf: Gltf, primitive: dict[str, Any]) -> Mesh:
    """Some triangles of one material; normals are flat where the file has none."""
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
        raise UnsuitableError("weights that are not numbers")
    if "NORMAL" in names:
        normals = gltf.accessor(names["NORMAL"]).astype(float)
        return Mesh(positions, unit(normals), bones, weights, faces, colours)
    # Every corner becomes a vertex of its own, which can have the normal of its face.
    corners = faces.ravel()
    normals = np.repeat(unit(_area_vectors(positions[faces])), 3, 0)
    split = np.arange(faces.size).reshape(-1, 3)
    return Mesh(positions[corners], normals, bones[corners], weights[corners], split, colours)


def _cleaned(mesh: Mesh) -> Mesh:
    """Without triangles that have no area, and without vertices that have no triangle."""
    corners = mesh.positions[mesh.faces]
    area = np.linalg.norm(_area_vectors(corners), axis=-1)
    keep = area > 1e-8 * np.ptp(corners, axis=(0, 1)).max(initial=0) ** 2
    used, faces = np.unique(mesh.faces[keep], return_inverse=True)
    positions, normals, bones, weights = mesh.positions[used], mesh.normals[used], mesh.bones[used], mesh.weights[used]
    return Mesh(positions, normals, bones, weights, faces.reshape(-1, 3), mesh.colours[keep])


def unit(vectors: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """Vectors at length 1; vectors of length 0 stay as they are."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-20)


def _area_vectors(corners: Float[np.ndarray, "faces 3 3"]) -> Float[np.ndarray, "faces 3"]:
    """Normals of triangles at twice their areas."""
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def make_model(gltf: Gltf, parts: Sequence[Part]) -> Model:
    """All parts together in each pose.

    Raises:
        UnsuitableError: there are no triangles or too many, or the model is flat.
    """
    count = sum(len(part.mesh.faces) for part in parts)
    if not 0 < count <= MAX_TRIANGLES:
        raise UnsuitableError(f"more than {MAX_TRIANGLES} triangles" if count else "no triangles")
    mesh = join_meshes([part.mesh for part in parts], [len(part.nodes) for part in parts])
    nodes = np.concatenate([part.nodes for part in parts])
    offsets = np.concatenate([part.offsets for part in parts])
    clips = [Z_UP @ world_matrices(gltf, clip, times)[:, nodes] @ offsets for clip, times in chosen_poses(gltf)]
    return Model(mesh, np.concatenate([_fitted(mesh, matrices[..., :3, :]) for matrices in clips]))


def chosen_poses(gltf: Gltf) -> list[tuple[Clip, Float[np.ndarray, "poses"]]]:
    """Clips and times evenly through each; the rest pose if there is no clip that takes time."""
    spans = [(clip, *clip_span(gltf, clip)) for clip in gltf.items("animations")]
    spans = [(clip, start, end) for clip, start, end in spans if start < end]
    if not spans:
        return [(REST, np.zeros(1))]
    count = int(np.clip(MAX_POSES // len(spans), 2, MAX_CLIP_POSES))
    shares = (np.arange(count) + 0.5) / count
    return [(clip, start + (end - start) * shares) for clip, start, end in spans]


def _fitted(mesh: Mesh, matrices: Float[np.ndarray, "poses bones 3 4"]) -> Float[np.ndarray, "poses bones 3 4"]:
    """The matrices scaled and moved together so that all poses of the mesh are centred (as by `soup.centred`)."""
    positions, normals, bones, weights = map(
        torch.from_numpy, (mesh.positions, mesh.normals, mesh.bones, mesh.weights.astype(float))
    )
    points = skin(positions, normals, bones, weights, torch.from_numpy(matrices))[0].numpy()
    extents = np.ptp(points[0], axis=0)
    if extents.min() < MIN_THICKNESS * extents.max():
        raise UnsuitableError("too flat")
    centre = (points.min((0, 1)) + points.max((0, 1))) / 2
    moved = matrices - np.pad(centre[:, None], ((0, 0), (3, 0)))
    return moved * (RADIUS / np.linalg.norm(points - centre, axis=-1).max())


def skin(
    positions: Float[Tensor, "vertices 3"],
    normals: Float[Tensor, "vertices 3"],
    bones: Int64[Tensor, "vertices 4"],
    weights: Float[Tensor, "vertices 4"],
    matrices: Float[Tensor, "poses bones 3 4"],
) -> tuple[Float[Tensor, "poses vertices 3"], Float[Tensor, "poses vertices 3"]]:
    """Positions and unit normals in each pose, by linear blend skinning."""
    shares = weights.new_zeros(len(weights), matrices.shape[1]).scatter_add_(1, bones, weights)
    blended = torch.einsum("vb,pbij->pvij", shares, matrices)
    linear, shift = blended[..., :3], blended[..., 3]
    moved = torch.einsum("pvij,vj->pvi", linear, positions) + shift
    # Normals go by the inverse transpose: cofactors over the determinant, of which only the sign matters.
    rows = linear.unbind(-2)
    cofactors = torch.stack([torch.linalg.cross(rows[i - 2], rows[i - 1]) for i in range(3)], -2)
    mirrored = (rows[0] * cofactors[..., 0, :]).sum(-1, keepdim=True).sign()
    return moved, F.normalize(torch.einsum("pvij,vj->pvi", cofactors, normals) * mirrored, dim=-1, eps=1e-20)


# ---------------------------------------------------------------------------------------------------------------------
# The packed file
# ---------------------------------------------------------------------------------------------------------------------

POSITION_STEPS, NORMAL_STEPS, WEIGHT_STEPS = 4095, 127, 255
"""Integers that stand for 1."""
ROWS = {
    "positions": "vertices",
    "normals": "vertices",
    "bones": "vertices",
    "weights": "vertices",
    "faces": "triangles",
    "colours": "triangles",
    "matrices": "transforms",
}
"""Arrays that hold the rows of all models one after another, and the array with each model's number of rows."""


def pack(models: Mapping[str, Model]) -> bytes:
    """All models under their names: numpy arrays of small integers, and matrices, compressed together."""
    rows = [_quantised(model.mesh) for model in models.values()]
    for row, model in zip(rows, models.values()):
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
    """Integers that stand for a mesh: equal vertices are one, in the order in which faces first need them, and a corner
    is told as the number of vertices seen before less its index: 0 for a new vertex, small for a recent one."""
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
    places = np.argsort(order)[inverse]
    seen = np.maximum.accumulate(np.concatenate(([0], places[:-1] + 1)))
    chosen = mesh.faces.ravel()[first[order]]
    packed = {name: rows[chosen] for name, rows in columns.items()}
    faces = (seen - places).reshape(-1, 3).astype(np.uint16)
    return {**packed, "faces": faces, "colours": mesh.colours}


@dataclass(frozen=True)
class MeshLibrary:
    """Models, each in one pose or several, and every pose an object."""

    soups: Soups
    models: Int64[Tensor, "objects"]
    """Model that each object is a pose of; the poses of a model follow one another, clip after clip."""
    names: list[str]
    """Folder and file name of each model, without endings."""
    held_out: Bool[Tensor, "models"]
    """Models to validate with, never to train on: always the same, as their names decide."""
    animated: Bool[Tensor, "models"]
    """Models that have several poses."""


def load_meshes(path: Path, device: torch.device | str) -> MeshLibrary:
    """All models of a packed file in all their poses; `InputError` if it is not such a file."""
    arrays = _read_packed(path)
    columns = [torch.from_numpy(arrays[name]).to(device).split(arrays[count].tolist()) for name, count in ROWS.items()]
    poses = torch.from_numpy(arrays["poses"])
    parts = [_posed(count, *rows) for count, *rows in zip(poses.tolist(), *columns)]
    positions, normals, colours = (torch.cat(column) for column in zip(*parts))
    counts = torch.repeat_interleave(torch.from_numpy(arrays["triangles"]), poses)
    starts = torch.cat((counts.new_zeros(1), counts.cumsum(0)))
    names, animated = [str(name) for name in arrays["names"]], poses > 1
    held_out = torch.tensor([is_held_out(name) for name in names])
    return MeshLibrary(
        Soups(positions, normals, colours.float() / 255, starts.to(device)),
        torch.repeat_interleave(poses).to(device),
        names,
        held_out.to(device),
        animated.to(device),
    )


def is_held_out(name: str) -> bool:
    """Whether a model is for validation; decided by its name alone, so that adding models changes nothing."""
    return int.from_bytes(hashlib.sha256(f"validation/{name}".encode()).digest()[:4], "big") < HELD_OUT * 2**32


def _read_packed(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a packed file, with `faces` as indices into the vertices of the face's model."""
    try:
        with np.load(io.BytesIO(lzma.decompress(path.read_bytes()))) as file:
            arrays = {name: file[name] for name in (*ROWS, *ROWS.values(), "poses", "names")}
    except (OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile, ValueError, KeyError) as error:
        raise InputError(f"{path}: not a packed mesh file ({error}); make it with training.meshes.") from error
    steps = arrays["faces"].ravel().astype(np.int64)
    seen = np.cumsum(steps == 0) - (steps == 0)
    first = np.cumsum(arrays["vertices"]) - arrays["vertices"]
    arrays["faces"] = (seen - steps).reshape(-1, 3) - np.repeat(first, arrays["triangles"])[:, None]
    arrays["bones"] = arrays["bones"].astype(np.int64)
    return arrays


def _posed(
    poses: int,
    positions: Int[Tensor, "vertices 3"],
    normals: Int[Tensor, "vertices 3"],
    bones: Int64[Tensor, "vertices 4"],
    weights: Int[Tensor, "vertices 4"],
    faces: Int64[Tensor, "faces 3"],
    colours: UInt8[Tensor, "faces 3 3"],
    matrices: Float[Tensor, "poses*bones 3 4"],
) -> tuple[Tensor, Tensor, UInt8[Tensor, "poses*faces 3 3"]]:
    """Corner positions, normals and colours of a packed model's triangles, pose after pose."""
    shares = weights / weights.sum(-1, keepdim=True)
    matrices = matrices.unflatten(0, (poses, -1))
    points, directions = skin(positions / POSITION_STEPS, normals / NORMAL_STEPS, bones, shares, matrices)
    return points[:, faces].flatten(0, 1), directions[:, faces].flatten(0, 1), colours.repeat(poses, 1, 1)


# ---------------------------------------------------------------------------------------------------------------------
# The stage
# ---------------------------------------------------------------------------------------------------------------------


def read_models(folders: Sequence[Path]) -> tuple[dict[str, Model], Counter[str]]:
    """The usable models of some folders under their names, and how many were left out for each reason.

    Raises:
        InputError: there are none, two have the same name, or a file is broken.
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
        raise InputError(f"{', '.join(map(str, folders))}: no usable .glb or .gltf model in there; name other folders.")
    return models, skipped


def main() -> None:
    """Pack the models and say what became of them."""
    parser = argparse.ArgumentParser("python -m training.meshes", description="Pack glTF models into one small file.")
    parser.add_argument("folders", type=Path, nargs="+", help="folders with .glb and .gltf models, also deeper down")
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
        print(f"Left out: {count} models: {reason}.")


if __name__ == "__main__":
    show_input_errors_in_one_line()
    main()
