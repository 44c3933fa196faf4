"""Gaussians (3D Gaussian splatting) of every moment of a trained object.

`seeding` turns the field into Gaussians, `raster` draws them, by itself or with gsplat, `fitting` changes them until
they look like the field; `sequence` does all of it for every frame, `files` writes them.
"""
