"""How images change: the diffusion editor, its schedule and its store. Independent of Nerfstudio."""
