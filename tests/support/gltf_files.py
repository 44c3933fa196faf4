"""glTF files small enough to work out by hand what is in them."""

from __future__ import annotations

import base64
import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

BEND = 90.0
"""Degrees by which the strip's second joint turns around x in one second."""
TYPES = {"f": 5126, "B": 5121, "H": 5123}
KINDS = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


class Builder:
    """Collects binary data and writes a glTF file."""

    def __init__(self, **parts: Any) -> None:
        self.json: dict[str, Any] = {"asset": {"version": "2.0"}, "accessors": [], "bufferViews": [], **parts}
        self.binary = b""

    def add(self, rows: Any, dtype: str = "f") -> int:
        """Index of a new accessor with these rows."""
        values = np.array(rows, dtype).reshape(len(rows), -1)
        view = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": values.nbytes}
        self.json["bufferViews"].append(view)
        accessor = {"bufferView": len(self.json["bufferViews"]) - 1, "componentType": TYPES[dtype]}
        self.json["accessors"].append({**accessor, "count": len(rows), "type": KINDS[values.shape[1]]})
        self.binary += values.tobytes() + bytes(-values.nbytes % 4)
        return len(self.json["accessors"]) - 1

    def save(self, path: Path) -> None:
        """Write .glb, or .gltf with the binary data in a URI."""
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer: dict[str, Any] = {"byteLength": len(self.binary)}
        if path.suffix == ".gltf":
            buffer["uri"] = "data:application/octet-stream;base64," + base64.b64encode(self.binary).decode()
            path.write_text(json.dumps({**self.json, "buffers": [buffer]}))
            return
        text = json.dumps({**self.json, "buffers": [buffer]}).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text
        chunks += struct.pack("<I4s", len(self.binary), b"BIN\0") + self.binary
        path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)


def strip(path: Path, weight: float = 1.0) -> None:
    """A strip of 1 x 2 units in the xy plane: a lower square on the first joint, an upper one on the second, which
    bends around the line y = 1. A palette of red and blue; the texture coordinates lie on the patches' borders."""
    builder = Builder()
    corners = [(x, y, 0) for y in (0, 1, 1, 2) for x in (0, 1)]
    attributes = {
        "POSITION": builder.add(corners),
        "TEXCOORD_0": builder.add([(u, v) for u0 in (0.0, 0.5) for v in (0.0, 1.0) for u in (u0, u0 + 0.5)]),
        # The lower square's upper corners follow both joints: on the axis of the bend that changes nothing.
        "JOINTS_0": builder.add([(0, 0, 0, 0)] * 2 + [(0, 1, 0, 0)] * 2 + [(1, 0, 0, 0)] * 4, "B"),
        "WEIGHTS_0": builder.add([(1, 0, 0, 0)] * 2 + [(0.5, 0.5, 0, 0)] * 2 + [(weight, 0, 0, 0)] * 4),
    }
    indices = builder.add([0, 1, 2, 2, 1, 3, 4, 5, 6, 6, 5, 7], "H")
    inverse = np.tile(np.eye(4), (2, 1, 1))
    inverse[1, 3, 1] = -1  # Column-major: one down in y.
    half = math.radians(BEND) / 2
    samplers = [
        {
            "input": builder.add([0.0, 1.0]),
            "output": builder.add([(0, 0, 0, 1), (math.sin(half), 0, 0, math.cos(half))]),
        }
    ]
    builder.json |= {
        "meshes": [{"primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}],
        "materials": [{"pbrMetallicRoughness": {"baseColorFactor": [0.5, 1, 1, 1], "baseColorTexture": {"index": 0}}}],
        "textures": [{"source": 0}],
        "images": [{"uri": "palette.png"}],
        "nodes": [
            # A skinned mesh takes no notice of its own node.
            {"mesh": 0, "skin": 0, "translation": [5, 6, 7]},
            {"children": [2], "scale": [3, 3, 3]},
            {"translation": [0, 1, 0]},
        ],
        "skins": [{"joints": [1, 2], "inverseBindMatrices": builder.add(inverse)}],
        "animations": [
            {"channels": [{"sampler": 0, "target": {"node": 2, "path": "rotation"}}], "samplers": samplers},
            {"channels": [], "samplers": [{"input": builder.add([0.0]), "output": 0}]},
        ],
    }
    builder.save(path)
    Image.fromarray(np.array([[(255, 0, 0), (0, 0, 255)]], np.uint8)).save(path.parent / "palette.png")


def tetrahedron(path: Path, height: float = 2.0) -> None:
    """Corners at the origin and on the axes, the one on y at `height`, in vertex colours; interleaved, without
    normals, with a triangle that has no area, under a node that turns y towards z and one that shifts."""
    builder = Builder()
    corners = np.array([(0, 0, 0), (1, 0, 0), (0, height, 0), (0, 0, 1)], float)
    colours = [(0, 0, 0, 1), (1, 0, 0, 1), (0, 0.5, 0, 1), (0, 0, 1, 1)]
    builder.add(np.concatenate((corners, colours), 1).ravel())
    builder.json["bufferViews"][0]["byteStride"] = 28
    whole = {"bufferView": 0, "componentType": TYPES["f"], "count": 4}
    builder.json["accessors"] = [{**whole, "type": "VEC3"}, {**whole, "type": "VEC4", "byteOffset": 12}]
    indices = builder.add([0, 2, 1, 0, 1, 3, 0, 3, 2, 1, 2, 3, 1, 1, 2], "B")
    primitive = {"attributes": {"POSITION": 0, "COLOR_0": 1}, "indices": indices}
    builder.json |= {
        "meshes": [{"primitives": [primitive]}],
        "nodes": [
            {"children": [1], "translation": [10, 0, 0]},
            {"mesh": 0, "rotation": [math.sqrt(0.5), 0, 0, math.sqrt(0.5)]},
        ],
    }
    builder.save(path)
