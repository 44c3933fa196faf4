"""Frames, videos and what lies beside them that cannot be used."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

from tests.malformed.cases import (
    CAMERA,
    TRAIN,
    Case,
    chunk,
    empty,
    frames,
    gone,
    link,
    meta,
    picture,
    pipe,
    png,
    text,
    together,
    unreadable,
    views,
)

FRAMES = f"{TRAIN} --data frames"
PREPARED = '{"written_by": "consistent4d prepare", "frames": [{"name": "0.png", "seconds": %s}], "elevation_deg": NaN}'
VIEWS = f"{TRAIN} --data data"
TWICE = json.dumps(meta()).replace('"distance": 2.0', '"distance": 2.0, "distance": 3.0')


def damaged(name: str, content: str | bytes):
    """Good frames, one of which is something else."""
    return together(frames(), text(f"frames/{name}", content))


def bomb(place: Path) -> None:
    """An image that is small as a file and large as pixels."""
    frames()(place)
    (place / "frames" / "2.png").write_bytes(png(8193, 8193, zlib.compress(bytes(2**27))))


def bomb_in_a_note(place: Path) -> None:
    """A small image with a compressed text of many megabytes."""
    frames()(place)
    note = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**28)))
    (place / "frames" / "2.png").write_bytes(png(16, 16, zlib.compress(bytes(16 * 65)), note))


def of_another_kind(kind: str):
    """Good frames, one of which is an image of another format under its name."""

    def make(place: Path) -> None:
        picture().convert("RGB").save(place / "frames" / "2.png", kind)

    return together(frames(), make)


def animation(name: str, count: int, size: int = 16, cut: float = 1.0):
    """An animated GIF, or the beginning of one."""

    def make(place: Path) -> None:
        first, *rest = [picture(index % 99, size) for index in range(count)]
        first.save(place / name, "GIF", save_all=True, append_images=rest, duration=100, disposal=2)
        whole = (place / name).read_bytes()
        (place / name).write_bytes(whole[: int(len(whole) * cut)])

    return make


def sizes(place: Path) -> None:
    """Good frames of which one is larger."""
    frames()(place)
    picture(size=32).save(place / "frames" / "2.png")


def opaque(alpha: int):
    """Frames without any background, or without any object."""

    def make(place: Path) -> None:
        frames()(place)
        for index in range(4):
            picture(alpha=alpha).save(place / "frames" / f"{index}.png")

    return make


FRAME_CASES = [
    Case("no such folder", f"{TRAIN} --data nowhere", "nowhere does not exist"),
    Case("an empty folder", f"{TRAIN} --data e", "holds no frames", lambda place: (place / "e").mkdir()),
    Case("a named pipe as frames", f"{TRAIN} --data p", "neither a folder nor a file", pipe("p")),
    Case("a named pipe as a video", f"{TRAIN} --data p.webm", "neither a folder nor a file", pipe("p.webm")),
    Case("a device as frames", f"{TRAIN} --data /dev/zero", "neither a folder nor a file"),
    Case("a link to itself as frames", f"{TRAIN} --data loop", "loop", link("loop", "loop")),
    Case("links in a circle", f"{TRAIN} --data a", "a", together(link("a", "b"), link("b", "a"))),
    Case("a dangling link among frames", FRAMES, "2.png", together(frames(), link("frames/2.png", "gone.png"))),
    Case("a link to itself among frames", FRAMES, "2.png", together(frames(), link("frames/2.png", "2.png"))),
    Case("a named pipe among frames", FRAMES, "lacks frame 2", together(frames(), pipe("frames/2.png"))),
    Case("a frame that may not be read", FRAMES, "2.png", together(frames(), unreadable("frames/2.png"))),
    Case("a folder that may not be read", FRAMES, "frames", together(frames(), unreadable("frames"))),
    Case("a missing frame", FRAMES, "lacks frame 2", together(frames(), gone("frames/2.png"))),
    Case("a truncated frame", FRAMES, "2.png is damaged", damaged("2.png", png(16, 16, zlib.compress(b"0" * 99)))),
    Case("an empty frame", FRAMES, "2.png is an empty file", together(frames(), empty("frames/2.png"))),
    Case("a web page as a frame", FRAMES, "2.png is damaged", damaged("2.png", "<html>404</html>")),
    Case("a drawing as a frame", FRAMES, "2.png is damaged", damaged("2.png", "<svg xmlns='w'><image/></svg>")),
    Case("an EPS file as a frame", FRAMES, "2.png is damaged", of_another_kind("EPS")),
    Case("a JPEG file as a frame", FRAMES, "2.png is damaged", of_another_kind("JPEG")),
    Case("a header of 60000 x 60000 pixels", FRAMES, "2.png", damaged("2.png", png(60000, 60000, b""))),
    Case("a header of 2^31 pixels", FRAMES, "2.png", damaged("2.png", png(2**31 - 1, 1, b""))),
    Case("a header without pixels", FRAMES, "2.png", damaged("2.png", png(0, 0, b""))),
    Case("a bomb of 8193 pixels a side", FRAMES, "at most 8192 pixels", bomb),
    Case(
        "a header that promises more than there is",
        FRAMES,
        "2.png is damaged",
        damaged("2.png", png(8192, 8192, zlib.compress(bytes(99)))),
    ),
    Case(
        "a bomb in a note of an image",
        FRAMES,
        "2.png is damaged",
        bomb_in_a_note,
    ),
    Case("frames of different sizes", FRAMES, "2.png", sizes),
    Case("frames without an object", FRAMES, "is fully transparent", opaque(0)),
    Case("frames without transparency", FRAMES, "opaque", opaque(255)),
    Case(
        "names of several series",
        FRAMES,
        "no single series",
        together(
            frames(),
            frames("frames/x"),
            lambda place: [
                (place / "frames" / f"{i}.png").rename(place / "frames" / f"{name}.png")
                for i, name in enumerate("abcd")
            ],
        ),
    ),
    Case(
        "a number of two hundred digits",
        FRAMES,
        "frames",
        together(frames(), lambda place: (place / "frames" / "3.png").rename(place / "frames" / f"{'9' * 200}.png")),
    ),
    Case(
        "one frame of a moving object",
        f"{FRAMES} --pipeline.datamanager.dataparser.frame-count 0",
        "frame-count is 0",
        frames(),
    ),
    Case(
        "more frames than there are",
        f"{FRAMES} --pipeline.datamanager.dataparser.frame-count 5000",
        "at most 4",
        frames(),
    ),
    Case(
        "an image size of a million",
        f"{FRAMES} --pipeline.datamanager.dataparser.image-size 1000000",
        "image-size",
        frames(),
    ),
    Case(
        "a frame rate that is no number", f"{FRAMES} --pipeline.datamanager.dataparser.fps nan", "fps is nan", frames()
    ),
    Case("a name with a line break", f"{TRAIN} --data 'a\nb'", "does not exist"),
    Case("a name of 5000 letters", f"{TRAIN} --data {'x' * 5000}", "too long"),
    Case("an unknown user's folder", f"{TRAIN} --data=~nobody-of-that-name/frames", "unknown user"),
    Case("a text as a video", f"{TRAIN} --data a.webm", "a.webm is damaged", text("a.webm", "no video")),
    Case(
        "a list of other files as a video",
        f"{TRAIN} --data a.webm",
        "a.webm is damaged",
        text("a.webm", "ffconcat version 1.0\nfile /etc/hostname\n"),
    ),
    Case(
        "a playlist as a video",
        f"{TRAIN} --data a.mp4",
        "a.mp4 is damaged",
        text("a.mp4", "#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n"),
    ),
    Case("a video of an unknown type", f"{TRAIN} --data a.avi", "unsupported type", text("a.avi", "RIFF")),
    Case(
        "boxes of a video that are longer than it",
        f"{TRAIN} --data a.mov",
        "a.mov is damaged",
        text("a.mov", b"\xff\xff\xff\xffftypqt  " + b"\xff\xff\xff\xffmoov" * 99),
    ),
    Case(
        "a Matroska header alone", f"{TRAIN} --data a.mkv", "a.mkv is damaged", text("a.mkv", b"\x1a\x45\xdf\xa3" * 9)
    ),
    Case("half of an animation", f"{TRAIN} --data a.gif", "a.gif is damaged", animation("a.gif", 40, cut=0.5)),
    Case(
        "the first bytes of an animation", f"{TRAIN} --data a.gif", "a.gif is damaged", animation("a.gif", 4, 48, 0.3)
    ),
    Case(
        "EXIF data that are none",
        FRAMES,
        "2.webp is damaged",
        together(frames(name="{}.webp"), lambda place: picture().save(place / "frames" / "2.webp", exif=b"junk")),
    ),
    Case(
        "a frame rate of 1e308",
        f"{FRAMES} --pipeline.datamanager.dataparser.fps 1e308",
        "fps is 1e+308",
        frames(),
    ),
    Case(
        "another program's frames",
        f"{TRAIN} --data frames",
        "prepare.json",
        together(frames(), text("frames/prepare.json", '{"written_by": "consistent4d prepare", "frames": 3}')),
    ),
    Case(
        "prepare.json of NaN",
        FRAMES,
        "prepare.json",
        together(
            frames(),
            text(
                "frames/prepare.json",
                PREPARED % "NaN",
            ),
        ),
    ),
    Case(
        "an elevation that is no number in prepare.json",
        FRAMES,
        "elevation",
        together(
            frames(count=1),
            text(
                "frames/prepare.json",
                PREPARED % "0",
            ),
        ),
    ),
    Case(
        "prepare.json nested a hundred thousand deep",
        FRAMES,
        "prepare.json",
        together(frames(), text("frames/prepare.json", "[" * 100_000)),
    ),
]

META_CASES = [
    Case("input/ without meta.json", VIEWS, "no meta.json", together(views({}), gone("data/meta.json"))),
    Case("meta.json that is no JSON", VIEWS, "meta.json is broken", views("{")),
    Case("meta.json of bytes", VIEWS, "meta.json is broken", views(b"\xff\xfe\x00")),
    Case("meta.json of a list", VIEWS, "meta.json is broken", views([1])),
    Case("meta.json nested a hundred thousand deep", VIEWS, "meta.json is broken", views("[" * 100_000)),
    Case(
        "a number of 400 digits",
        VIEWS,
        "meta.json is broken",
        views('{"cameras": {"input": {"elevation_deg": 1%s}}}' % ("0" * 400)),
    ),
    Case(
        "a number of 5000 digits",
        VIEWS,
        "meta.json is broken",
        views('{"cameras": {"input": {"elevation_deg": 1%s}}}' % ("0" * 5000)),
    ),
    Case("an elevation of NaN", VIEWS, "elevation", views(meta(elevation_deg=float("nan")), "eval_0")),
    Case("an infinite azimuth", VIEWS, "azimuth", views(meta(azimuth_deg=float("inf")), "eval_0")),
    Case("a distance of 0", VIEWS, "distance", views(meta(distance=0), "eval_0")),
    Case("a field of view of 180", VIEWS, "fovy", views(meta(fov_y_deg=180), "eval_0")),
    Case("true for a number", VIEWS, "elevation_deg", views(meta(elevation_deg=True), "eval_0")),
    Case("a text for a number", VIEWS, "distance", views(meta(distance="2"), "eval_0")),
    Case("a number that is there twice", VIEWS, "'distance' is there twice", views(TWICE, "eval_0")),
    Case("no camera of the input", VIEWS, "meta.json is broken", views({"cameras": {"eval_0": CAMERA}}, "eval_0")),
    Case("a camera that lacks a number", VIEWS, "meta.json is broken", views({"cameras": {"input": {}}})),
    Case(
        "a view outside of the folder",
        VIEWS,
        "../frames",
        together(frames(), views({"cameras": {"input": CAMERA, "../frames": CAMERA}})),
    ),
    Case("a view anywhere", VIEWS, "/etc", views({"cameras": {"input": CAMERA, "/etc": CAMERA}})),
    Case("a view named by 5000 letters", VIEWS, "meta.json", views({"cameras": {"input": CAMERA, "x" * 5000: CAMERA}})),
    Case("a view named by a null character", VIEWS, "meta.json", views({"cameras": {"input": CAMERA, "a\0": CAMERA}})),
    Case(
        "a view named by half a character",
        VIEWS,
        "meta.json",
        views('{"cameras": {"input": %s, "\\ud800": %s}}' % (("{}",) * 2)),
    ),
    Case("a view without frames", VIEWS, "eval_0 is missing", views(meta())),
    Case("a view without a camera", VIEWS, "eval_1 has no camera", views(meta(), "eval_0", "eval_1")),
    Case(
        "a view of another length",
        VIEWS,
        "holds 3 frames",
        together(views(meta(), "eval_0"), gone("data/eval_0/3.png")),
    ),
    Case(
        "meta.json that may not be read",
        VIEWS,
        "meta.json",
        together(views(meta(), "eval_0"), unreadable("data/meta.json")),
    ),
    Case("a named pipe as meta.json", VIEWS, "meta.json", together(views(meta(), "eval_0"), pipe("data/meta.json"))),
]
