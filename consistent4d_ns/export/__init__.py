"""Taking the object out of the field: meshes and points of every moment, written in formats that other programs read.

`solid` says which points belong to the object, `surface` makes triangles of them, `colours` and `texture` paint those,
`sequence` does all of it for every moment; `gltf`, `files` and `usd` write.
"""
