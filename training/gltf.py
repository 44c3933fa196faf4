"""Reading glTF 2.0 files: their arrays, how their nodes move, and the colours of their surfaces."""

from __future__ import annotations

import base64
import io
import json
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image


class UnsuitableError(Exception):
    """A model that is left out; the message is the reason, the same for all models left out for it."""


# ---------------------------------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------------------------------

COMPONENT_TYPES = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
"""Numbers behind glTF's codes."""
COMPONENT_COUNTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
"""How many of them make an element."""
TRIANGLES = 4
"""Mode of a primitive whose indices are corners of separate triangles."""


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
# Movement and skins
# ---------------------------------------------------------------------------------------------------------------------

DEFAULTS = {"translation": (0.0, 0.0, 0.0), "rotation": (0.0, 0.0, 0.0, 1.0), "scale": (1.0, 1.0, 1.0)}
"""Where a node is that does not say."""
Clip = dict[str, Any]
"""An entry of a file's `animations`."""
REST: Clip = {"channels": [], "samplers": []}
"""The clip that moves nothing."""


def clip_span(gltf: Gltf, clip: Clip) -> tuple[float, float]:
    """First and last key time of a clip in seconds."""
    keys = [gltf.accessor(sampler["input"]) for sampler in clip["samplers"]]
    return float(min(k.min() for k in keys)), float(max(k.max() for k in keys))


def world_matrices(gltf: Gltf, clip: Clip, times: Float[np.ndarray, " poses"]) -> Float[np.ndarray, "poses nodes 4 4"]:
    """From each node's frame to the world at some times of a clip."""
    local, parents = _local_matrices(gltf, clip, times), gltf.parents
    world: dict[int, np.ndarray] = {-1: np.eye(4)}

    def resolve(node: int) -> np.ndarray:
        if node not in world:
            world[node] = resolve(parents[node]) @ local[:, node]
        return world[node]

    return np.stack([resolve(node) for node in range(len(parents))], 1)


def _local_matrices(gltf: Gltf, clip: Clip, times: Float[np.ndarray, " poses"]) -> Float[np.ndarray, "poses nodes 4 4"]:
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
    gltf: Gltf, sampler: dict[str, Any], times: Float[np.ndarray, " poses"], rotation: bool
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


def read_skin(gltf: Gltf, skin: dict[str, Any]) -> tuple[Int[np.ndarray, " bones"], Float[np.ndarray, "bones 4 4"]]:
    """Node of each joint of a skin, and the matrices from the frame of the mesh to those of the joints."""
    nodes = np.array(skin["joints"])
    if "inverseBindMatrices" not in skin:
        return nodes, np.tile(np.eye(4), (len(nodes), 1, 1))
    return nodes, gltf.accessor(skin["inverseBindMatrices"]).reshape(-1, 4, 4).swapaxes(1, 2).astype(float)


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
