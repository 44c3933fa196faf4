"""How the bundled prior was made: objects, their renders, the autoencoder, the denoiser. Not part of the wheel."""
