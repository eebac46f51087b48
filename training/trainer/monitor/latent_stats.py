"""Statistics of latents that show a student's health: mean and deviation, diversity, distance from the teacher's.

Dimensions: P prompts, K noise seeds of each, B images, C latent channels, h x w latent size. Latents are in the
network's scale. Everything is computed in fp64, and on the CPU: the tensors are small, and some devices lack fp64.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from training.trainer.monitor.frechet import Gaussian, frechet_distance

LAYOUT = 4  # cells along each side of the grid by which an image's layout is compared
FAR = 4.0  # standard deviations; 0.006 % of a Gaussian lies further out, and 0.1 to 0.3 % of real images' latents


def latent_stats(x0: torch.Tensor) -> dict[str, float]:
    """Statistics of latents x0 (..., C, h, w), by name.

    x0_mean, x0_std: of all values; too large an x0_std means burnt images, too small a one grey images. x0_far: share
    of values further than 4 standard deviations from their channel's mean, which grows with burnt spots. x0_std_c0:
    standard deviation of channel 0, and so on.
    """
    values = _fp64(x0).movedim(-3, 0).flatten(1)  # (C, all pixels)
    std, mean = torch.std_mean(values, dim=1, correction=0)
    far = (values - mean[:, None]).abs() > FAR * std[:, None]
    metrics = {"x0_mean": values.mean(), "x0_std": values.std(correction=0), "x0_far": far.double().mean()}
    channels = {f"x0_std_c{channel}": value for channel, value in enumerate(std)}
    return {name: value.item() for name, value in (metrics | channels).items()}


def diversity(x0: torch.Tensor) -> float:
    """Root mean squared distance between two images of a set, x0 (..., B, C, h, w); mean over leading dimensions.

    0 for one image repeated B times; sqrt(2 C h w) for independent noise of unit variance, whatever B is.

    Raises:
        ValueError: fewer than two images.
    """
    count = x0.shape[-4]
    if count < 2:
        raise ValueError(f"{count} image(s) in a set; diversity needs at least 2")
    # mean over pairs of |a - b|^2 = 2 x (the unbiased variance, summed over values)
    return (2 * _fp64(x0).var(dim=-4).sum((-3, -2, -1)).mean()).sqrt().item()


def gap_by_timestep(gap: torch.Tensor, t: torch.Tensor, bounds: tuple[int, ...]) -> dict[str, float]:
    """Mean of gap (B,) over rows whose timestep t (B,) lies in [bounds[i], bounds[i + 1]), the last interval closed.

    By name: `gap_t20` for the interval that begins at 20. Intervals without rows are left out.
    """
    gap, t = _fp64(gap), t.detach().cpu()
    bins = torch.bucketize(t, torch.tensor(bounds[1:-1]), right=True)
    return {f"gap_t{low}": gap[bins == n].mean().item() for n, low in enumerate(bounds[:-1]) if (bins == n).any()}


def channel_distance(x0: torch.Tensor, teacher: torch.Tensor) -> float:
    """Squared Frechet distance of the pixels' channel vectors, in units of the teacher's variance; both (..., C, h, w).

    One Gaussian over the C channels is fitted to the pixels of all images. 0 for the teacher's own images, 1 for a
    flat image of their mean colour.
    """
    one, other = (_gaussian(_fp64(x).movedim(-3, -1).flatten(0, -2)) for x in (x0, teacher))
    return max(0.0, frechet_distance(one, other)) / float(other.sigma.trace())


def latent_distance(x0: torch.Tensor, teacher: torch.Tensor) -> float:
    """Distance of images from the teacher's for the same prompts; both (..., C, h, w). 0 for the same images, 1 for a
    flat image.

    The root mean square of two distances of channel vectors: of pixels (colour, contrast, sharpness), and of 4 x 4
    cells (the large parts of an image). It is stable for tens of images, since each has many pixels; other images by
    the teacher itself give 0.1 to 0.2. It compares channel means and covariances only: it does not see where things
    are, whether they match the prompt, or whether all seeds give one image (`diversity` does).
    """
    squares = channel_distance(x0, teacher), channel_distance(layout(x0), layout(teacher))
    return (sum(squares) / len(squares)) ** 0.5


def compare(x0: torch.Tensor, teacher: torch.Tensor) -> dict[str, float]:
    """Metrics of a student's samples relative to the teacher's, both (P, K, C, h, w), by name.

    sample_distance: see `latent_distance`. The others are 1 if the student equals the teacher: sample_std, standard
    deviation of the latents; sample_diversity, between the seeds of a prompt, of images or of their layout, whichever
    is less (fine texture that follows the noise is not diversity); sample_diversity_prompts, between prompts, if there
    are several.
    """
    found = {
        "sample_distance": latent_distance(x0, teacher),
        "sample_diversity": min(diversity(x0) / diversity(teacher), diversity(layout(x0)) / diversity(layout(teacher))),
        "sample_std": (_fp64(x0).std() / _fp64(teacher).std()).item(),
    }
    if len(x0) > 1:
        found["sample_diversity_prompts"] = diversity(x0.transpose(0, 1)) / diversity(teacher.transpose(0, 1))
    return found


def layout(x0: torch.Tensor) -> torch.Tensor:
    """Latents (..., C, h, w) averaged over a grid of 4 x 4 cells, (..., C, 4, 4): the image without texture."""
    pooled = functional.adaptive_avg_pool2d(x0.flatten(0, -4), min(LAYOUT, *x0.shape[-2:]))
    return pooled.unflatten(0, x0.shape[:-3])


def _gaussian(vectors: torch.Tensor) -> Gaussian:
    """Of vectors (N, C)."""
    return Gaussian.of_statistics(vectors.mean(0).numpy(), vectors.T.cov(correction=0).numpy())


def _fp64(x: torch.Tensor) -> torch.Tensor:
    return x.detach().to("cpu").double()
