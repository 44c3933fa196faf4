"""One mesh for all frames: a template is chosen at one moment and fitted to the surface of every other.

`moments` extracts the surface of every moment as points and says how often it touches itself; `template` makes the mesh
of one; `graph` and `energies` are the maths of deforming it; `fitting` brings it to one moment, `tracking` to all of
them; `residual` measures what is left, `painting` colours it from all moments, `comparing` says whether it looks like
the volume render. `animated` does all of it.
"""
