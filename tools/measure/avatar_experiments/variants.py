"""What is tried: variants of `ns-train rigged-splatfacto-fast`, each a few of its flags."""

from __future__ import annotations

from dataclasses import dataclass

NO_TUNING = ("--pipeline.model.fine-tune-motion", "False")


@dataclass(frozen=True)
class Variant:
    """One training."""

    name: str
    """Of its folder and its row."""
    what: str
    """What a reader of the table sees."""
    flags: tuple[str, ...] = ()
    """Added to the command line."""
    noisy: bool = False
    """Trained with the perturbed parameters."""


def model_flags(**options: object) -> tuple[str, ...]:
    """Options of the model as flags of ns-train."""
    return tuple(
        word
        for name, value in options.items()
        for word in (f"--pipeline.model.{name.replace('_', '-')}", str(value))
    )


VARIANTS = (
    Variant("default", "`rigged-splatfacto-fast`"),
    Variant("no_densify", "without densification", model_flags(stop_split_at=0)),
    Variant("no_tuning", "without fine-tuning of expressions and poses", NO_TUNING),
    Variant("no_relighting", "without relighting", model_flags(relighting=False)),
    Variant("faint_start", "start with opacity 0.1, not 0.5", model_flags(initial_opacity=0.1)),
    Variant("antialiased", "with anti-aliasing", model_flags(rasterize_mode="antialiased")),
    Variant("even_start", "area-even start (3 mm)", model_flags(initial_spacing=0.003)),
    Variant("even_start_5", "area-even start (5 mm)", model_flags(initial_spacing=0.005)),
    Variant("opaque", "opacity drawn towards 1", model_flags(opacity_loss_weight=0.01)),
    Variant(
        "mcmc",
        "3DGS-MCMC densification, same budget",
        model_flags(growth="mcmc", refine_every=100),
    ),
    Variant("expression_8", "8 expression-dependent offsets", model_flags(expression_rank=8)),
    Variant("noisy", "perturbed parameters, fine-tuned", noisy=True),
    Variant("noisy_no_tuning", "perturbed parameters, not fine-tuned", NO_TUNING, noisy=True),
)
