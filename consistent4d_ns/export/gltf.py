"""Binary glTF (GLB) of one mesh, of one that moves, or of many that are shown one after the other.

A mesh that moves (`glb_moving`) has a morph target for each frame after the first, and an animation of their weights
that is linear between neighbouring frames. Where the number of vertices differs from frame to frame (`glb`), every
frame is a node of its own, and an animation with step interpolation scales all but the current one to zero. glTF is y
up with the front towards +z; the world is z up with the front (the input camera's side at azimuth 0) towards +x.

Compressed files store vertices in 8 and 16 bits (KHR_mesh_quantization) and textures as WebP (EXT_texture_webp).
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float32, Int, UInt, UInt8

from consistent4d_ns import __version__
from consistent4d_ns.export.moving import MovingMesh
from consistent4d_ns.export.sequence import Mesh

COMPONENTS = {"float32": 5126, "int8": 5120, "int16": 5122, "uint16": 5123, "uint32": 5125}
"""glTF's numbers for component types, by NumPy's names."""
VERTICES, INDICES = 34962, 34963
LINEAR, LINEAR_MIPMAP_LINEAR, CLAMP = 9729, 9987, 33071
UNLIT, QUANTISED, WEBP = "KHR_materials_unlit", "KHR_mesh_quantization", "EXT_texture_webp"
QUANTISED_RANGE = 2.0
"""Largest coordinate, in world units, of quantised positions; surfaces end just outside the box [-1, 1]^3. The
resolution is 6e-5, a hundredth of the spacing at which the surface was sampled."""
WEBP_QUALITY = 90
"""Quality of lossy WebP, 0 to 100; artefacts are below those of the video the texture was learned from."""


def y_up(vectors: Float[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n 3"]:
    """World vectors in glTF's axes: (x, y, z) becomes (y, z, x)."""
    return np.ascontiguousarray(vectors[:, [1, 2, 0]], dtype=np.float32)


def to_linear(display: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """sRGB values in [0, 1] as linear light."""
    return np.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4)


def glb(meshes: Iterable[Mesh], fps: float = 1.0, lit: bool = False, compress: bool = True) -> bytes:
    """The contents of a GLB file.

    Args:
        meshes: One for each frame.
        fps: Frames per second; irrelevant for a single frame.
        lit: Whether the meshes are shaded; otherwise they show their colours, which contain the video's lighting.
        compress: Quantise vertices and store textures as lossy WebP; otherwise 32-bit floats and PNG.
    """
    writer = _Writer(lit, compress)
    for frame, mesh in enumerate(meshes):
        writer.add_frame(mesh, f"frame_{frame:04d}")
    writer.animate(fps)
    return writer.contents()


def glb_moving(mesh: MovingMesh, fps: float = 1.0, lit: bool = False, compress: bool = True) -> bytes:
    """The contents of a GLB file with one mesh that moves: frame i is shown at i / `fps` seconds.

    Between two frames every vertex moves straight from one place to the other. The last frame is held as long as one
    frame lasts. Viewers without animation show the first frame; a single frame is not animated.

    Args:
        mesh: Its shape at every frame.
        fps: Frames per second; irrelevant for a single frame.
        lit: As for `glb`; normals move only then.
        compress: As for `glb`.
    """
    writer = _Writer(lit, compress)
    writer.add_frame(mesh.frame(0), "object", _morphs(mesh, lit, compress))
    writer.animate_weights(len(mesh), fps)
    return writer.contents()


class _Writer:
    """Collects the JSON document and the binary buffer."""

    def __init__(self, lit: bool, compress: bool) -> None:
        self.lit, self.compress = lit, compress
        self.buffer = bytearray()
        self.frames: list[int] = []
        root: dict[str, Any] = {"name": "consistent4d", "children": self.frames}
        self.document: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": f"consistent4d_ns {__version__}"},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [root],
        }
        if not lit:
            self.use(UNLIT)
        if compress:
            self.use(QUANTISED, required=True)
            root["scale"] = [QUANTISED_RANGE] * 3

    def use(self, extension: str, required: bool = False) -> None:
        """Declare an extension, once."""
        for kind in ("extensionsUsed", "extensionsRequired") if required else ("extensionsUsed",):
            declared = self.document.setdefault(kind, [])
            if extension not in declared:
                declared.append(extension)

    def add(self, kind: str, item: dict[str, Any]) -> int:
        """Append to one of the document's lists; its index there."""
        items = self.document.setdefault(kind, [])
        items.append(item)
        return len(items) - 1

    def add_bytes(self, data: bytes, **properties: int) -> int:
        """A view of the buffer."""
        self.buffer += b"\0" * (-len(self.buffer) % 4)
        view = {"buffer": 0, "byteOffset": len(self.buffer), "byteLength": len(data), **properties}
        self.buffer += data
        return self.add("bufferViews", view)

    def add_array(self, array: np.ndarray, target: int | None = None, bounds: bool = False) -> int:
        """An accessor of a [n] or [n, width] array; vectors of integers are read as fractions."""
        properties = {} if target is None else {"target": target}
        stored = array
        # Rows of vertex attributes start at multiples of four bytes.
        padding = -array.strides[0] % 4 if target == VERTICES else 0
        if padding:
            stored = np.pad(array, ((0, 0), (0, padding // array.itemsize)))
            properties["byteStride"] = stored.strides[0]
        item: dict[str, Any] = {
            "bufferView": self.add_bytes(stored.tobytes(), **properties),
            "componentType": COMPONENTS[array.dtype.name],
            "count": len(array),
            "type": "SCALAR" if array.ndim == 1 else f"VEC{array.shape[1]}",
        }
        if array.ndim == 2 and array.dtype.kind in "iu":
            item["normalized"] = True
        if bounds:
            item["min"], item["max"] = (np.atleast_1d(f(axis=0)).tolist() for f in (array.min, array.max))
        return self.add("accessors", item)

    def attributes(self, mesh: Mesh) -> dict[str, int]:
        """Accessors of a mesh's vertices."""
        positions, normals, uvs = y_up(mesh.surface.vertices), y_up(mesh.surface.normals), mesh.uvs
        if self.compress:
            positions, normals = quantised(positions / QUANTISED_RANGE, np.int16), quantised(normals, np.int8)
            uvs = None if uvs is None else quantised(uvs, np.uint16)
        found = {
            "POSITION": self.add_array(positions, VERTICES, bounds=True),
            "NORMAL": self.add_array(normals, VERTICES),
        }
        if mesh.colours is not None:
            found["COLOR_0"] = self.add_array(_opaque_colours(mesh.colours), VERTICES)
        if uvs is not None:
            found["TEXCOORD_0"] = self.add_array(uvs, VERTICES)
        return found

    def add_frame(self, mesh: Mesh, name: str, morphs: Iterable[dict[str, np.ndarray]] = ()) -> None:
        """A node with a mesh; viewers without animation show the first, without what its `morphs` add to it."""
        # The largest 16-bit index is reserved (primitive restart).
        index = np.uint16 if len(mesh.surface.vertices) < 65535 else np.uint32
        primitive = {
            "attributes": self.attributes(mesh),
            "indices": self.add_array(mesh.surface.faces.astype(index).ravel(), INDICES),
            "material": self.add_material(mesh, name),
        }
        shape: dict[str, Any] = {"name": name, "primitives": [primitive]}
        targets = [
            {k: self.add_array(v, VERTICES, bounds=k == "POSITION") for k, v in morph.items()} for morph in morphs
        ]
        if targets:
            primitive["targets"] = targets
            shape["weights"] = [0.0] * len(targets)
            shape["extras"] = {"targetNames": [f"frame_{i + 1:04d}" for i in range(len(targets))]}
        node: dict[str, Any] = {"name": name, "mesh": self.add("meshes", shape)}
        if self.frames:
            node["scale"] = [0.0, 0.0, 0.0]
        self.frames.append(self.add("nodes", node))

    def add_material(self, mesh: Mesh, name: str) -> int:
        """A matt material; meshes without a texture share one."""
        shading: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
        if mesh.texture is not None:
            shading["baseColorTexture"] = {"index": self.add_texture(mesh.texture, name)}
        elif "materials" in self.document:
            return 0
        material = {"name": name, "pbrMetallicRoughness": shading}
        return self.add("materials", material if self.lit else material | {"extensions": {UNLIT: {}}})

    def add_texture(self, texture: UInt8[np.ndarray, "rows columns 3"], name: str) -> int:
        """A texture, stored as WebP or PNG."""
        kind = "webp" if self.compress else "png"
        image = {"name": name, "mimeType": f"image/{kind}", "bufferView": self.add_bytes(encoded(texture, kind))}
        source: dict[str, Any] = {"source": self.add("images", image)}
        if self.compress:
            self.use(WEBP, required=True)
            source = {"extensions": {WEBP: source}}
        if "samplers" not in self.document:
            filters = {"magFilter": LINEAR, "minFilter": LINEAR_MIPMAP_LINEAR, "wrapS": CLAMP, "wrapT": CLAMP}
            self.add("samplers", filters)
        return self.add("textures", {"sampler": 0, **source})

    def animate(self, fps: float) -> None:
        """Show the frames one after the other; a single one is not animated."""
        count = len(self.frames)
        if count < 2:
            return
        channels, samplers = [], []
        for frame, node in enumerate(self.frames):
            times, scales = visibility(frame, count, fps)
            samplers.append(
                {
                    "input": self.add_array(times, bounds=True),
                    "output": self.add_array(scales),
                    "interpolation": "STEP",
                }
            )
            channels.append({"sampler": frame, "target": {"node": node, "path": "scale"}})
        self.add("animations", {"name": "frames", "channels": channels, "samplers": samplers})

    def animate_weights(self, count: int, fps: float) -> None:
        """Let the only mesh go through its `count` frames; a single one is not animated."""
        if count < 2:
            return
        times, weights = morph_weights(count, fps)
        sampler = {
            "input": self.add_array(times, bounds=True),
            "output": self.add_array(weights.ravel()),
            "interpolation": "LINEAR",
        }
        channel = {"sampler": 0, "target": {"node": self.frames[0], "path": "weights"}}
        self.add("animations", {"name": "frames", "channels": [channel], "samplers": [sampler]})

    def contents(self) -> bytes:
        """The bytes of the file."""
        self.buffer += b"\0" * (-len(self.buffer) % 4)
        self.document["buffers"] = [{"byteLength": len(self.buffer)}]
        text = json.dumps(self.document, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        parts = ((b"JSON", text), (b"BIN\0", bytes(self.buffer)))
        chunks = b"".join(struct.pack("<I4s", len(data), kind) + data for kind, data in parts)
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def visibility(
    frame: int, count: int, fps: float
) -> tuple[Float32[np.ndarray, " keys"], Float32[np.ndarray, "keys 3"]]:
    """Key times in seconds and scales of one of `count` frames: 1 while it is shown, else 0."""
    keys = sorted({0, frame, frame + 1, count})
    # The last frame is held at the end of the clip.
    shown = [key == frame or (key == count == frame + 1) for key in keys]
    times = np.array(keys, np.float64) / fps
    return times.astype(np.float32), np.repeat(np.array(shown, np.float32)[:, None], 3, axis=1)


def morph_weights(count: int, fps: float) -> tuple[Float32[np.ndarray, " keys"], Float32[np.ndarray, "keys targets"]]:
    """Key times in seconds, and the weights of the targets (all frames but the first) at each.

    There is a key for each of the `count` frames, and one for the end of the clip, until which the last is held.
    """
    weights = np.eye(count, dtype=np.float32)[[*range(count), count - 1], 1:]
    return (np.arange(count + 1) / fps).astype(np.float32), weights


def _morphs(mesh: MovingMesh, lit: bool, compress: bool) -> Iterator[dict[str, np.ndarray]]:
    """What each frame after the first adds to the positions of the first and, where they are lit, to its normals."""
    first = mesh.frame(0).surface
    for frame in range(1, len(mesh)):
        surface = mesh.frame(frame).surface
        start, end = (y_up(one.vertices) for one in (first, surface))
        found: dict[str, np.ndarray] = {"POSITION": end - start}
        if compress:
            # Differences of what is stored: every frame is as exact as the first.
            low, high = (quantised(place / QUANTISED_RANGE, np.int16).astype(np.int32) for place in (start, end))
            found["POSITION"] = (high - low).clip(-32767, 32767).astype(np.int16)
        if lit:
            # Differences of unit vectors reach 2, which normalised integers do not.
            found["NORMAL"] = y_up(surface.normals) - y_up(first.normals)
        yield found


def quantised(
    values: Float[np.ndarray, "n width"], kind: type[np.int8] | type[np.int16] | type[np.uint16]
) -> Int[np.ndarray, "n width"] | UInt[np.ndarray, "n width"]:
    """Values in [-1, 1] ([0, 1] for unsigned types) as normalised integers, whose largest value stands for 1."""
    largest = np.iinfo(kind).max
    return np.round(values.clip(-1.0, 1.0) * largest).clip(0 if kind is np.uint16 else -largest, largest).astype(kind)


def encoded(picture: UInt8[np.ndarray, "rows columns 3"], kind: Literal["png", "webp"]) -> bytes:
    """The contents of a PNG file, or of a lossy WebP file."""
    from PIL import Image

    stream = io.BytesIO()
    options = {"quality": WEBP_QUALITY} if kind == "webp" else {}
    Image.fromarray(picture).save(stream, kind.upper(), **options)
    return stream.getvalue()


def _opaque_colours(colours: Float32[np.ndarray, "n 3"]) -> np.ndarray:
    """Linear 16-bit RGBA: glTF's vertex colours are linear, and 8 bits would show banding in dark areas."""
    rgba = np.full((len(colours), 4), 65535, np.uint16)
    rgba[:, :3] = np.round(to_linear(colours) * 65535.0)
    return rgba
