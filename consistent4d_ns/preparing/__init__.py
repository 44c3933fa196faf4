"""From an ordinary video to RGBA frames of one object: `consistent4d prepare`."""
