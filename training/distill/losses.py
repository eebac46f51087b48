"""PG-SB's losses as pure functions (SNOOPI, arXiv 2412.02687, Section 3; weights as in SwiftBrush).

Dimensions: B batch rows, C latent channels, h x w latent size. alpha_t, sigma_t are fp32 tensors of shape (B, 1, 1, 1);
everything is computed in fp32, whatever dtype the networks run in: in bf16, 1 - alpha_bar_t is wrong by 100 % at t = 0.
"""

from __future__ import annotations

import torch

from training.config.values import VsdWeight


def add_noise(x0: torch.Tensor, eps: torch.Tensor, alpha_t: torch.Tensor, sigma_t: torch.Tensor) -> torch.Tensor:
    """x_t = alpha_t x0 + sigma_t eps; all (B, C, h, w)."""
    return alpha_t * x0 + sigma_t * eps


def guide(eps_null: torch.Tensor, eps_text: torch.Tensor, kappa: torch.Tensor | float) -> torch.Tensor:
    """eps_hat = eps(null) + kappa (eps(text) - eps(null)); kappa = 1 is no guidance. All (B, C, h, w)."""
    return eps_null + kappa * (eps_text - eps_null)


def vsd_weight(
    kind: VsdWeight,
    x0: torch.Tensor,
    x_t: torch.Tensor,
    eps_teacher: torch.Tensor,
    alpha_t: torch.Tensor,
    sigma_t: torch.Tensor,
) -> torch.Tensor:
    """The weight w of the score gap, (B, 1, 1, 1).

    sigma_squared: w = sigma_t^2, of SDS, VSD and SwiftBrush          (Poole et al. 2022; Wang et al. 2023)
    uniform:       w = 1, the plain difference
    dmd:           w = (sigma_t / alpha_t) / mean|x0 - x0_pi|, the mean over a row, with the teacher's
                   x0_pi = (x_t - sigma_t eps_hat_pi) / alpha_t       (DMD, Yin et al. 2023, Algorithm 2)
                   so that g = (x0_psi - x0_pi) / mean|x0 - x0_pi|

    Args:
        x0, x_t, eps_teacher: the student's images, the same with noise, and eps_hat_pi; (B, C, h, w).
    """
    if kind == "uniform":
        return torch.ones_like(sigma_t)
    if kind == "dmd":
        x0_teacher = (x_t - sigma_t * eps_teacher) / alpha_t
        return sigma_t / alpha_t / (x0 - x0_teacher).abs().mean((1, 2, 3), keepdim=True)
    return sigma_t**2


def score_gap(eps_teacher: torch.Tensor, eps_lora: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """g = w (eps_hat_pi - eps_hat_psi); the direction of the update of x0. (B, C, h, w)."""
    return weight * (eps_teacher - eps_lora)


def vsd_loss(x0: torch.Tensor, gap: torch.Tensor) -> torch.Tensor:
    """L_VSD = 0.5 mean((x0 - stopgrad(x0 - g))^2): its value is |g|^2 / 2, its gradient in x0 is g / numel. Scalar."""
    target = (x0 - gap).detach()
    return 0.5 * torch.mean((x0 - target) ** 2)


def clip_loss(image: torch.Tensor, text: torch.Tensor, margin: float) -> torch.Tensor:
    """L_CLIP = mean(relu(tau - cos(image, text))); embeddings (B, E) of images and their prompts. Scalar."""
    return torch.relu(margin - torch.cosine_similarity(image.float(), text.float(), dim=-1)).mean()


def lora_loss(eps_lora: torch.Tensor, eps: torch.Tensor, alpha_t: torch.Tensor) -> torch.Tensor:
    """L_LoRA = mean((alpha_t (eps_psi - eps))^2), on detached x0. Scalar."""
    return torch.mean((alpha_t * (eps_lora - eps)) ** 2)
