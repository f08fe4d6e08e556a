"""Masks of what an edit keeps or is limited to: regions of the rig, or Grounding DINO and SAM 2."""
