"""How good an avatar and its edits are: figures, and pictures to look at. Never imports nerfstudio."""
