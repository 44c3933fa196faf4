"""Diffusion priors that supervise novel views: score distillation with Zero123.

`config` is light; everything that needs diffusers or transformers is imported when a prior is built
(`loading.build_guidance`).
"""
