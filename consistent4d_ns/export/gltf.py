"""One binary glTF file (GLB) of one mesh, or of many that are shown one after the other.

The number of vertices differs from frame to frame, so nothing can be morphed: every frame is a node of its own, and an
animation with steps scales all but the present one to nothing. glTF is y up with the front towards +z; the world here
is z up with the front (the input camera's side at azimuth 0) towards +x.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, UInt8

from consistent4d_ns import __version__
from consistent4d_ns.export.sequence import Mesh

FLOAT, UNSIGNED_SHORT, UNSIGNED_INT = 5126, 5123, 5125
VERTICES, INDICES = 34962, 34963
LINEAR, LINEAR_MIPMAP_LINEAR, CLAMP = 9729, 9987, 33071
UNLIT = "KHR_materials_unlit"


def y_up(vectors: Float[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n 3"]:
    """World vectors in glTF's axes: (x, y, z) becomes (y, z, x)."""
    return np.ascontiguousarray(vectors[:, [1, 2, 0]], dtype=np.float32)


def to_linear(display: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Linear light of sRGB values in [0, 1]."""
    return np.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4)


def glb(meshes: Iterable[Mesh], fps: float = 1.0, lit: bool = False) -> bytes:
    """The contents of a GLB file.

    Args:
        meshes: One for each frame.
        fps: Frames a second; of no importance for a single one.
        lit: Whether light falls on the meshes; otherwise they show their colours, which contain the video's light.
    """
    writer = _Writer(lit)
    for frame, mesh in enumerate(meshes):
        writer.add_frame(mesh, f"frame_{frame:04d}")
    writer.animate(fps)
    return writer.contents()


class _Writer:
    """Collects the JSON document and the binary buffer."""

    def __init__(self, lit: bool) -> None:
        self.lit = lit
        self.buffer = bytearray()
        self.frames: list[int] = []
        self.document: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": f"consistent4d_ns {__version__}"},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"name": "consistent4d", "children": self.frames}],
        }
        if not lit:
            self.document["extensionsUsed"] = [UNLIT]

    def add(self, kind: str, item: dict[str, Any]) -> int:
        """Append to one of the document's lists; its index there."""
        items = self.document.setdefault(kind, [])
        items.append(item)
        return len(items) - 1

    def add_bytes(self, data: bytes, target: int | None = None) -> int:
        """A view of the buffer."""
        self.buffer += b"\0" * (-len(self.buffer) % 4)
        view = {"buffer": 0, "byteOffset": len(self.buffer), "byteLength": len(data)}
        self.buffer += data
        return self.add("bufferViews", view if target is None else view | {"target": target})

    def add_array(self, array: np.ndarray, target: int | None = None, bounds: bool = False) -> int:
        """An accessor of a [n] or [n, width] array; 16-bit vectors are read as fractions."""
        component = {"float32": FLOAT, "uint16": UNSIGNED_SHORT, "uint32": UNSIGNED_INT}[array.dtype.name]
        item: dict[str, Any] = {
            "bufferView": self.add_bytes(array.tobytes(), target),
            "componentType": component,
            "count": len(array),
            "type": "SCALAR" if array.ndim == 1 else f"VEC{array.shape[1]}",
        }
        if array.ndim == 2 and component == UNSIGNED_SHORT:
            item["normalized"] = True
        if bounds:
            item["min"], item["max"] = (np.atleast_1d(f(axis=0)).tolist() for f in (array.min, array.max))
        return self.add("accessors", item)

    def add_frame(self, mesh: Mesh, name: str) -> None:
        """A node with a mesh; the first is visible where nothing is animated."""
        surface = mesh.surface
        attributes = {
            "POSITION": self.add_array(y_up(surface.vertices), VERTICES, bounds=True),
            "NORMAL": self.add_array(y_up(surface.normals), VERTICES),
        }
        if mesh.colours is not None:
            attributes["COLOR_0"] = self.add_array(_opaque_colours(mesh.colours), VERTICES)
        if mesh.uvs is not None:
            attributes["TEXCOORD_0"] = self.add_array(mesh.uvs, VERTICES)
        # The greatest 16-bit number has a meaning of its own.
        small = len(surface.vertices) < 65535
        indices = self.add_array(surface.faces.astype(np.uint16 if small else np.uint32).ravel(), INDICES)
        primitive = {"attributes": attributes, "indices": indices, "material": self.add_material(mesh, name)}
        node: dict[str, Any] = {"name": name, "mesh": self.add("meshes", {"name": name, "primitives": [primitive]})}
        if self.frames:
            node["scale"] = [0.0, 0.0, 0.0]
        self.frames.append(self.add("nodes", node))

    def add_material(self, mesh: Mesh, name: str) -> int:
        """What the mesh is painted with; all meshes without a texture share one."""
        shading: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
        if mesh.texture is not None:
            shading["baseColorTexture"] = {"index": self.add_texture(mesh.texture, name)}
        elif "materials" in self.document:
            return 0
        material = {"name": name, "pbrMetallicRoughness": shading}
        return self.add("materials", material if self.lit else material | {"extensions": {UNLIT: {}}})

    def add_texture(self, texture: UInt8[np.ndarray, "rows columns 3"], name: str) -> int:
        """A picture, stored as PNG."""
        image = {"name": name, "mimeType": "image/png", "bufferView": self.add_bytes(png(texture))}
        if "samplers" not in self.document:
            filters = {"magFilter": LINEAR, "minFilter": LINEAR_MIPMAP_LINEAR, "wrapS": CLAMP, "wrapT": CLAMP}
            self.add("samplers", filters)
        return self.add("textures", {"sampler": 0, "source": self.add("images", image)})

    def animate(self, fps: float) -> None:
        """Show the frames one after the other; a single one simply stays."""
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

    def contents(self) -> bytes:
        """The file."""
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
    # The last frame stays until the end, and after it if nothing loops.
    shown = [key == frame or (key == count == frame + 1) for key in keys]
    times = np.array(keys, np.float64) / fps
    return times.astype(np.float32), np.repeat(np.array(shown, np.float32)[:, None], 3, axis=1)


def png(picture: UInt8[np.ndarray, "rows columns 3"]) -> bytes:
    """A picture as a PNG file's contents."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return stream.getvalue()


def _opaque_colours(colours: Float32[np.ndarray, "n 3"]) -> np.ndarray:
    """Linear 16-bit RGBA: glTF's vertex colours are linear, and 8 bits would show steps where it is dark."""
    rgba = np.full((len(colours), 4), 65535, np.uint16)
    rgba[:, :3] = np.round(to_linear(colours) * 65535.0)
    return rgba
