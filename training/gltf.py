"""Reading glTF 2.0 files: accessors, animated node transforms, skins, and surface colours."""

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
    """The model is skipped; the message is the reason, the same text for all models skipped for that reason."""


# ---------------------------------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------------------------------

COMPONENT_TYPES = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
"""NumPy types of glTF's component type codes."""
COMPONENT_COUNTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
"""Number of components per element, by accessor type."""
TRIANGLES = 4
"""Primitive mode of separate triangles, as opposed to strips and fans."""


@dataclass(frozen=True)
class Gltf:
    """A glTF 2.0 file: its JSON part and its binary chunk."""

    json: dict[str, Any]
    folder: Path
    """Folder to which its relative URIs refer."""
    binary: bytes
    """The binary chunk of a .glb file; empty for a .gltf file."""

    def items(self, kind: str) -> list[dict[str, Any]]:
        """All objects of a kind (`nodes`, `meshes`, ...); an empty list if the file has none."""
        return self.json.get(kind, [])

    @cached_property
    def buffers(self) -> list[bytes]:
        """Bytes of each buffer."""
        return [self._resource(buffer["uri"]) if "uri" in buffer else self.binary for buffer in self.items("buffers")]

    @cached_property
    def images(self) -> list[UInt8[np.ndarray, "h w 3"]]:
        """Each image as 8-bit sRGB."""
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
        """Values of an accessor, one row per element; normalised integers become floats.

        Raises:
            UnsuitableError: the accessor is sparse or has no data.
        """
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
        """Content of a URI: embedded data, or a file relative to the model."""
        if uri.startswith("data:"):
            return base64.b64decode(uri.partition(",")[2])
        return (self.folder / unquote(uri)).read_bytes()


def read_gltf(path: Path) -> Gltf:
    """Read the .gltf or .glb file `path`.

    Raises:
        UnsuitableError: it requires an extension, such as mesh compression.
    """
    content, binary = path.read_bytes(), b""
    if path.suffix == ".glb":
        size = struct.unpack_from("<I", content, 12)[0]
        content, binary = content[20 : 20 + size], content[28 + size :]
    gltf = Gltf(json.loads(content), path.parent, binary)
    if required := gltf.items("extensionsRequired"):
        raise UnsuitableError(f"extension {', '.join(map(str, required))}")
    return gltf


# ---------------------------------------------------------------------------------------------------------------------
# Animation and skins
# ---------------------------------------------------------------------------------------------------------------------

DEFAULTS = {"translation": (0.0, 0.0, 0.0), "rotation": (0.0, 0.0, 0.0, 1.0), "scale": (1.0, 1.0, 1.0)}
"""Local transform of a node that specifies none: world units, quaternion (x, y, z, w), factors."""
Clip = dict[str, Any]
"""An entry of a file's `animations`."""
REST: Clip = {"channels": [], "samplers": []}
"""A clip that animates nothing: the rest pose."""


def clip_span(gltf: Gltf, clip: Clip) -> tuple[float, float]:
    """First and last key time of a clip in seconds."""
    keys = [gltf.accessor(sampler["input"]) for sampler in clip["samplers"]]
    return float(min(k.min() for k in keys)), float(max(k.max() for k in keys))


def world_matrices(gltf: Gltf, clip: Clip, times: Float[np.ndarray, " poses"]) -> Float[np.ndarray, "poses nodes 4 4"]:
    """Node-to-world matrices at the given times of a clip, in seconds."""
    local, parents = _local_matrices(gltf, clip, times), gltf.parents
    world: dict[int, np.ndarray] = {-1: np.eye(4)}

    def resolve(node: int) -> np.ndarray:
        if node not in world:
            world[node] = resolve(parents[node]) @ local[:, node]
        return world[node]

    return np.stack([resolve(node) for node in range(len(parents))], 1)


def _local_matrices(gltf: Gltf, clip: Clip, times: Float[np.ndarray, " poses"]) -> Float[np.ndarray, "poses nodes 4 4"]:
    """Node-to-parent matrices at the given times of a clip, in seconds."""
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
    """Values of an animation sampler at the given times in seconds.

    The first and last key are held beyond the ends. Cubic splines are approximated linearly between their keys.
    """
    keys = gltf.accessor(sampler["input"])[:, 0]
    values = gltf.accessor(sampler["output"]).astype(float)
    kind = sampler.get("interpolation", "LINEAR")
    if kind == "CUBICSPLINE":
        values = values[1::3]
    position = np.interp(times, keys, np.arange(len(keys)))
    before = np.floor(position).astype(int)
    after = np.minimum(before + 1, len(keys) - 1)
    fraction = (position - before)[:, None] * (kind != "STEP")
    if rotation:
        return slerp(values[before], values[after], fraction)
    return values[before] + fraction * (values[after] - values[before])


def slerp(
    a: Float[np.ndarray, "n 4"], b: Float[np.ndarray, "n 4"], fraction: Float[np.ndarray, "n 1"]
) -> Float[np.ndarray, "n 4"]:
    """Spherical linear interpolation of unit quaternions along the shorter arc, from a (fraction 0) to b (1)."""
    cosine = (a * b).sum(-1, keepdims=True)
    b, angle = np.where(cosine < 0, -b, b), np.arccos(np.clip(abs(cosine), 0, 1))
    # sinc keeps the quotient of sines defined when a = b; the common factor cancels in the normalisation.
    from_a = a * (1 - fraction) * np.sinc((1 - fraction) * angle / np.pi)
    from_b = b * fraction * np.sinc(fraction * angle / np.pi)
    blend = from_a + from_b
    return blend / np.linalg.norm(blend, axis=-1, keepdims=True)


def compose(
    translation: Float[np.ndarray, "*n 3"], rotation: Float[np.ndarray, "*n 4"], scale: Float[np.ndarray, "*n 3"]
) -> Float[np.ndarray, "*n 4 4"]:
    """Affine matrices that scale, then rotate (unit quaternions x, y, z, w), then translate."""
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
    """Node of each joint of a skin, and its inverse bind matrices (mesh frame to joint frame)."""
    nodes = np.array(skin["joints"])
    if "inverseBindMatrices" not in skin:
        return nodes, np.tile(np.eye(4), (len(nodes), 1, 1))
    return nodes, gltf.accessor(skin["inverseBindMatrices"]).reshape(-1, 4, 4).swapaxes(1, 2).astype(float)


# ---------------------------------------------------------------------------------------------------------------------
# Colours
# ---------------------------------------------------------------------------------------------------------------------

INSET = 0.1
"""Fraction by which a corner's texture coordinates move towards the face's centroid, to stay on its palette patch."""


def to_linear(display: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """sRGB (display) values to linear RGB, both in [0, 1]."""
    return np.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4)


def to_display(linear: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Linear RGB, clipped to [0, 1], to sRGB (display) values in [0, 1]."""
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def corner_colours(
    gltf: Gltf, primitive: dict[str, Any], faces: Int[np.ndarray, "faces 3"]
) -> UInt8[np.ndarray, "faces 3 3"]:
    """sRGB colours of the faces' corners: base colour times texture times vertex colour, multiplied in linear RGB."""
    material = gltf.items("materials")[primitive["material"]] if "material" in primitive else {}
    surface, attributes = material.get("pbrMetallicRoughness", {}), primitive["attributes"]
    linear = np.ones((len(faces), 3, 3)) * surface.get("baseColorFactor", (1, 1, 1))[:3]
    if texture := surface.get("baseColorTexture"):
        image = gltf.images[gltf.items("textures")[texture["index"]]["source"]]
        uv = gltf.accessor(attributes[f"TEXCOORD_{texture.get('texCoord', 0)}"])[faces]
        linear *= to_linear(nearest_texel(image, uv + INSET * (uv.mean(1, keepdims=True) - uv)) / 255)
    if "COLOR_0" in attributes:
        linear *= gltf.accessor(attributes["COLOR_0"])[faces][..., :3]
    return np.rint(255 * to_display(linear)).astype(np.uint8)


def nearest_texel(image: UInt8[np.ndarray, "h w 3"], uv: Float[np.ndarray, "*n 2"]) -> UInt8[np.ndarray, "*n 3"]:
    """Nearest-neighbour lookup in a repeating image; (0, 0) is its top left corner, (1, 1) its bottom right."""
    size = np.array(image.shape[1::-1])
    column, row = np.moveaxis(np.floor(uv * size).astype(int) % size, -1, 0)
    return image[row, column]
