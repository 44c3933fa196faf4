"""The video enhancer: a light generator that sharpens the rendered videos of one run (method.md section 9)."""
