"""The diffusion editor: loading, the denoising loop, guidance, latent codec and retention of regions."""
