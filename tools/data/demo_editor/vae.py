"""Stage `vae`: fixes the encoder (principal components of patches) and trains the decoder on crops."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderKLFlux2
from jaxtyping import Float
from torch import Tensor, nn

from tools.data.demo_editor.data import load_images, save_npz, shards
from tools.data.demo_editor.models import make_vae
from tools.data.demo_editor.optimizer import Optimizer
from tools.data.demo_editor.passthrough import PatchBasis
from tools.data.demo_editor.settings import Settings, Workspace
from tools.data.demo_editor.state import Average, Clock, load_state, save_state
from tools.data.demo_editor.team import Team

MUON_RATE, ADAM_RATE = 0.012, 2e-3
PICTURE_NOISE = 0.006
"""Spread of the noise, in units of pictures in [-1, 1], that the decoder learns to forgive."""
MAX_SCENES = 500
"""Scenes held in memory by each process (1.4 MB each)."""
BASIS_SCENES = 48


def to_tensor(images: np.ndarray) -> Float[Tensor, "batch 3 height width"]:
    """uint8 (B, H, W, 3) to [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def picture_loss(output: Tensor, target: Tensor) -> Tensor:
    """Squared error, which PSNR measures, and a little absolute error, which keeps flat white flat."""
    return F.mse_loss(output, target) + 0.02 * F.l1_loss(output, target)


def sample_crops(images: np.ndarray, rng: np.random.Generator, settings: Settings) -> Tensor:
    """Random crops of random pictures, half of them mirrored; most are of the inner part, where the head is."""
    side, factor = settings.crop, settings.vae_factor
    room = settings.resolution - side
    crops = []
    for _ in range(settings.vae_batch):
        picture = images[rng.integers(len(images)), rng.integers(images.shape[1])]
        y, x = np.clip(rng.normal(room / 2, room / 3 + 1e-9, 2).astype(int), 0, room) // factor * factor
        crop = picture[y : y + side, x : x + side]
        crops.append(crop[:, ::-1] if rng.random() < 0.5 else crop)
    return to_tensor(np.stack(crops))


def learning_rate(step: int, progress: float) -> float:
    """Share of the peak rate: a warm-up over 40 steps, then a cosine to 2 % at the end of the time budget."""
    return min(1.0, (step + 1) / 40) * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0))))


def load_basis(work: Workspace, settings: Settings) -> PatchBasis:
    """The encoder's basis; fitted to the first scenes when there is none yet."""
    if not work.basis.exists():
        paths = shards(work.train_shards)[: max(1, BASIS_SCENES // settings.scenes_per_shard)]
        pictures = load_images(paths).reshape(-1, settings.resolution, settings.resolution, 3)
        basis = PatchBasis.fit(
            pictures[::3].astype(np.float32) / 127.5 - 1.0, settings.latent_channels, settings.vae_factor
        )
        save_npz(work.basis, projection=basis.projection, mean=basis.mean, weight=basis.weight)
    return PatchBasis.load(work.basis)


def train_vae(work: Workspace, settings: Settings, minutes: float, team: Team) -> None:
    """Train the decoder until the budget (counted over all runs) is spent."""
    torch.manual_seed(0)
    basis = load_basis(work, settings)
    vae = make_vae(settings, basis).to(memory_format=torch.channels_last)
    parts = decoder_of(vae)
    optimizer = Optimizer(parts, outer=("conv_out",))
    average, step, spent = Average(parts, 0.995), 0, 0.0
    if state := load_state(work.vae_state):
        parts.load_state_dict(state["decoder"])
        optimizer.load_state_dict(state["optimizer"])
        average.load_state_dict(state["average"])
        step, spent = state["step"], state["spent"]
    clock = Clock(minutes, spent)
    torch.manual_seed(1000 * step + team.rank)
    rng = np.random.default_rng([1, step, team.rank])
    noise = PICTURE_NOISE * torch.from_numpy(basis.projection).norm(dim=1)[:, None, None]
    images, known, losses, spent = np.zeros((0,)), 0, [], team.agree(clock.spent)

    def save() -> None:
        save_state(
            work.vae_state,
            {
                "decoder": parts.state_dict(),
                "optimizer": optimizer.state_dict(),
                "average": average.state_dict(),
                "step": step,
                "spent": clock.spent,
            },
        )

    while spent < clock.budget:
        if (step % 300 == 0 or not known) and len(paths := shards(work.train_shards)) != known:
            known = len(paths)
            images = load_images(paths[-(MAX_SCENES // settings.scenes_per_shard) :])
        crops = sample_crops(images, rng, settings)
        latents = basis.encode(crops)
        latents = latents + noise * torch.randn_like(latents)
        rate = learning_rate(step, spent / clock.budget)
        with torch.autocast("cpu", torch.bfloat16):
            output = vae.decode(latents.contiguous(memory_format=torch.channels_last)).sample
        picture_loss(output.float(), crops).backward()
        spent = team.average_gradients(parts.parameters(), clock.spent)
        nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        optimizer.step(rate * MUON_RATE, rate * ADAM_RATE)
        average.update(parts)
        losses.append(F.mse_loss(output.float().clamp(-1, 1), crops).item() / 4.0)
        step += 1
        if step % 50 == 0 and team.rank == 0:
            print(
                f"vae: step {step} {spent:.0f}s crops' psnr {-10 * np.log10(np.mean(losses[-50:])):.2f}",
                flush=True,
            )
        if team.rank == 0 and clock.save_due():
            save()
    if team.rank == 0:
        save()
        print(f"vae: {step} steps, {spent:.0f} s", flush=True)


def decoder_of(vae: AutoencoderKL | AutoencoderKLFlux2) -> nn.ModuleList:
    """The trained parts of the VAE."""
    return nn.ModuleList([vae.post_quant_conv, vae.decoder])


def load_vae(work: Workspace, settings: Settings) -> AutoencoderKL | AutoencoderKLFlux2:
    """The VAE with its averaged decoder, in evaluation mode."""
    state = load_state(work.vae_state)
    if not state:
        raise FileNotFoundError(f"{work.vae_state}: no trained VAE. Run the `vae` stage first.")
    vae = make_vae(settings, load_basis(work, settings))
    parts = decoder_of(vae)
    average = Average(parts, 0.0)
    average.load_state_dict(state["average"])
    average.copy_to(parts)
    return vae.eval().to(memory_format=torch.channels_last)
