"""Options as an older config.yml holds them."""

import yaml

from edit3dgs_ns.edit_training.options import EditorConfig


def test_the_timestep_of_an_older_config_becomes_its_noise_level():
    """Runs used to say timestep 600 of Stable Diffusion's schedule, and 1000 for never."""
    text = yaml.dump(EditorConfig(share_prediction_until=0.3))
    for found, level in (("0.3", 0.3), ("600", 0.69555), ("1000", 1.0), ("0", 0.0)):
        older = text.replace("share_prediction_until: 0.3", f"share_prediction_until: {found}")
        config = yaml.load(older, Loader=yaml.Loader)
        assert abs(config.share_prediction_until - level) < 1e-4
        assert config.views_per_key == 5
