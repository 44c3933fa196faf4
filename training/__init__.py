"""Training of the bundled prior: objects, their renders, the autoencoder, the denoiser. Not part of the wheel."""
