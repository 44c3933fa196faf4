"""Extracts the object from the field: meshes and points of every frame, written in formats that other programs read.

`solid` decides which points are inside the object, `surface` triangulates it, `colours` and `texture` colour the
surface, `sequence` does all of it for every frame; `gltf`, `files` and `usd` write the files.
"""
