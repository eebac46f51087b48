"""A second implementation of PG-SB's iteration, from the formulas, which shares no code with the trainer."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch.func import functional_call


class Reference:
    """A second implementation of PAPER section 3.

    One forward pass per row, with the padding cut off instead of masked; adapters merged by hand; `rows` are
    lists of embeddings (S_i, E) and pooled ones, (P,) or None.
    """

    def __init__(self, network, lora_state, scale, alphas_cumprod, prediction_type):
        self.network, self.kind, self.scale = network, prediction_type, scale
        self.power = alphas_cumprod.double()
        self.weights = {name: weight.clone() for name, weight in network.state_dict().items()}
        self.lora = {name: weight.clone().requires_grad_(True) for name, weight in lora_state.items()}

    def output(self, network, weights, x, t, rows):
        def one(x, t, row, pooled):
            if isinstance(network, UNet2DConditionModel):
                sides = [8.0 * side for side in x.shape[2:]]
                sizes = torch.tensor([[*sides, 0, 0, *sides]])
                added = {} if pooled is None else {"text_embeds": pooled[None], "time_ids": sizes}
                return functional_call(network, weights, (x, t, row), {"added_cond_kwargs": added}).sample
            sizes = {"resolution": None, "aspect_ratio": None}
            settings = {"encoder_hidden_states": row, "timestep": t, "added_cond_kwargs": sizes}
            return functional_call(network, weights, (x,), settings).sample[:, :4]

        return torch.cat([one(x[i : i + 1], t[i : i + 1], row[None], pooled) for i, (row, pooled) in enumerate(rows)])

    def teacher(self, which, x, t, rows):
        weights = dict(self.weights)
        if which == "lora":
            for name in self.lora:
                if name.endswith(".lora_A.weight"):
                    stem = name.removesuffix(".lora_A.weight")
                    update = self.lora[stem + ".lora_B.weight"] @ self.lora[name]
                    weights[stem + ".weight"] = weights[stem + ".weight"] + self.scale * update
        return self.output(self.network, weights, x, t, rows)

    def levels(self, t):
        return self.power[t].sqrt().view(-1, 1, 1, 1), (1 - self.power[t]).sqrt().view(-1, 1, 1, 1)

    def eps(self, which, x, t, rows):
        (a, s), out = self.levels(t), self.teacher(which, x, t, rows)
        return out if self.kind == "epsilon" else s * x + a * out

    def student(self, student, z, rows, T):
        return self.student_both(student, z, rows, T)[0]

    def student_both(self, student, z, rows, T):
        """x0 and eps of the student at T."""
        a, s = self.power[T].sqrt(), (1 - self.power[T]).sqrt()
        out = self.output(student, dict(student.named_parameters()), z, torch.full((len(z),), T), rows)
        return ((z - s * out) / a, out) if self.kind == "epsilon" else (a * z - s * out, s * z + a * out)

    def two_steps(self, student, z, noise, rows, timesteps, *, through):
        """x0 at the second timestep: noised again with `noise`, or along the student's own eps if it is None."""
        first, second = timesteps
        with torch.set_grad_enabled(through):
            x0, eps = self.student_both(student, z, rows, first)
            a, s = self.power[second].sqrt(), (1 - self.power[second]).sqrt()
            x = a * x0 + s * (eps if noise is None else noise)
        return self.student(student, x, rows, second)

    def gap(self, x0, rows, null, draws, weight="sigma_squared"):
        a, s = self.levels(draws.t)
        x, hats = a * x0 + s * draws.eps, []
        for which in ("frozen", "lora"):
            without = self.eps(which, x, draws.t, [null] * len(rows))
            with_text = self.eps(which, x, draws.t, rows)
            hats.append(without + draws.kappa.view(-1, 1, 1, 1) * (with_text - without))
        if weight == "dmd":  # from both teachers' images, as DMD writes it
            real, fake = ((x - s * hat) / a for hat in hats)
            size = torch.stack([(x0[row] - real[row]).abs().mean() for row in range(len(x0))])
            return (fake - real) / size[:, None, None, None]
        return {"sigma_squared": s * s, "uniform": 1}[weight] * (hats[0] - hats[1])

    def decoupled_gap(self, x0, rows, null, draws, kappas, weight="sigma_squared"):
        """Decoupled DMD's, from each teacher's x0 instead of its eps: equation by equation, one noise after the other.

        Two x0 differ by - sigma / alpha times the difference of their eps.
        """
        sides = []
        for t, eps in ((draws.t, draws.eps), (draws.guidance.t, draws.guidance.eps)):
            a, s = self.levels(t)
            x = a * x0 + s * eps
            found = {}
            for which in ("frozen", "lora"):
                for name, prompts in (("text", rows), ("null", [null] * len(rows))):
                    found[which, name] = (x - s * self.eps(which, x, t, prompts)) / a
            sides.append((a, s, found))
        (a_t, s_t, at_t), (a_s, s_s, at_s) = sides
        matching = at_t["lora", "text"] - at_t["frozen", "text"]
        kappa, kappa_lora = (torch.as_tensor(value).view(-1, 1, 1, 1) for value in kappas)
        added = {which: at_s[which, "null"] - at_s[which, "text"] for which in ("frozen", "lora")}
        guidance = (kappa - 1) * added["frozen"] - (kappa_lora - 1) * added["lora"]
        if weight == "dmd":
            guided = at_s["frozen", "null"] - kappa * added["frozen"]
            sizes = [
                torch.stack([(x0[row] - one[row]).abs().mean() for row in range(len(x0))])[:, None, None, None]
                for one in (at_t["frozen", "text"], guided)
            ]
            return matching / sizes[0] + guidance / sizes[1]
        power = {"sigma_squared": 2, "uniform": 0}[weight]
        return s_t**power * a_t / s_t * matching + s_s**power * a_s / s_s * guidance

    def lora_loss(self, x0, rows, null, draws):
        a, s = self.levels(draws.t)
        rows = [null if dropped else row for dropped, row in zip(draws.drop, rows, strict=True)]
        eps = self.eps("lora", a * x0 + s * draws.eps, draws.t, rows)
        return ((a * (eps - draws.eps)) ** 2).mean()


def cut(text):
    """Rows without their padding, each with its pooled embedding or None."""
    rows = [row if text.mask is None else row[text.mask[n]] for n, row in enumerate(text.states)]
    return list(zip(rows, [None] * len(rows) if text.pooled is None else text.pooled, strict=True))


def gradient(network):
    return torch.cat([p.grad.flatten() for p in network.parameters()])
