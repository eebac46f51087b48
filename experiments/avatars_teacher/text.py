"""`python -m experiments.avatars_teacher.text`: teach the avatars' text encoder to read.

CLIP's vocabulary and shape, scaled down. Linear heads on the end token, and on the padding behind it, must tell which
value of every attribute the caption states, or that it states none. So "brown hair and a blue sweater" is bound before
the teacher sees a word, without a picture and in minutes. Then the encoder is frozen and the heads are dropped.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextModel

from experiments.clip_text import new_text_encoder, token_ids
from experiments.diffusion_teacher import as_shipped
from experiments.training_loop import Losses, Training
from training.distill.rng import generator
from training.models.clip_tokenizer import MAX_TOKENS
from training.prompts.avatars.captions import GROUPS, SUBJECT, Stated, caption
from training.prompts.avatars.scene import SUBJECTS, sample_scenes

WIDTH = 48
LAYERS = 3
ROLE = "role"


@dataclass(frozen=True, kw_only=True)
class TextRecipe:
    """How the text encoder is trained."""

    iterations: int = 800
    batch: int = 64
    lr: float = 2e-3
    seed: int = 0


def questions() -> dict[str, list[tuple[str, ...]]]:
    """For every attribute, everything that a caption may state of it; () stands for nothing."""
    found: dict[str, list[tuple[str, ...]]] = {
        SUBJECT: [(), *((name,) for name in SUBJECTS)],
        ROLE: [(), *((role.word,) for subject in SUBJECTS.values() for role in subject.roles)],
    }
    for subject in SUBJECTS.values():
        for name, attribute in subject.attributes.items():
            answers = found.setdefault(name, [()])
            named = [(value,) for value, about in attribute.values.items() if about.phrase]
            answers += [each for each in [*named, *GROUPS.get(name, {}).values()] if each not in answers]
    return found


class Reader(nn.Module):
    """The text encoder, and a head for each question."""

    def __init__(self, encoder: CLIPTextModel) -> None:
        super().__init__()
        self.encoder = encoder
        self.questions = questions()
        self.heads = nn.Linear(encoder.config.hidden_size, sum(map(len, self.questions.values())))

    def forward(self, ids: torch.Tensor, positions: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits (B, number of answers) for each question, read at `positions` (B,) of the captions (B, 77)."""
        hidden = self.encoder(ids).last_hidden_state
        logits = self.heads(hidden[torch.arange(len(ids)), positions])
        return dict(zip(self.questions, logits.split([len(a) for a in self.questions.values()], dim=1), strict=True))

    def answers(self, stated: list[Stated]) -> dict[str, torch.Tensor]:
        """The right answers (B,) for each question."""
        return {
            name: torch.tensor([known.index(each.get(name, ())) for each in stated])
            for name, known in self.questions.items()
        }


def examples(count: int, rng: torch.Generator) -> tuple[list[str], list[Stated]]:
    """Captions of scenes, and what they state, a role's word included."""
    captions, facts = [], []
    for scene in sample_scenes(count, rng):
        text, stated = caption(scene, rng)
        captions.append(text)
        called = scene.role and re.search(rf"\b{scene.role}\b", text)  # sunglasses do not make a sun
        facts.append({**stated, **({ROLE: (scene.role,)} if called else {})})
    return captions, facts


def train_text_encoder(folder: Path, recipe: TextRecipe, *, save_every: float = 60.0) -> bool:
    """Train, or continue, the text encoder; written to `folder`/text_encoder when it is done. Whether it is done."""
    torch.manual_seed(recipe.seed)
    encoder = new_text_encoder(recipe.seed, width=WIDTH, layers=LAYERS)
    reader = Reader(encoder.requires_grad_(True)).train()
    optimizer = torch.optim.AdamW(reader.parameters(), lr=recipe.lr, betas=(0.9, 0.99), weight_decay=0.0)
    training = Training(
        folder=folder,
        name="text",
        networks={"reader": reader},
        optimizer=optimizer,
        iterations=recipe.iterations,
        save_every=save_every,
    )
    folder.mkdir(parents=True, exist_ok=True)
    training.resume()

    def losses(iteration: int) -> Losses:
        rng = generator(recipe.seed, "text", iteration)
        captions, facts = examples(recipe.batch, rng)
        ids = token_ids(captions)
        end = ids.argmax(dim=1)  # the end token has the largest id; argmax gives the first
        length = min(int(end.max()) + 4, MAX_TOKENS)  # what comes later changes nothing before it
        ids, later = ids[:, :length], end + (torch.rand(len(ids), generator=rng) * (length - end)).long()
        position = torch.where(torch.rand(len(ids), generator=rng) < 0.5, end, later)
        with sdpa_kernel(SDPBackend.MATH):  # faster on a CPU, for sequences this short
            found, right = reader(ids, position), reader.answers(facts)
        loss = torch.stack([F.cross_entropy(found[name], right[name]) for name in found]).sum()
        wrong = torch.stack([(found[name].argmax(1) != right[name]).float().mean() for name in found]).mean()
        return {"loss": loss, "wrong": wrong}

    done = training.run(losses)
    if done:
        as_shipped(reader.encoder).eval().save_pretrained(folder / "text_encoder")
    return done


def load_text_encoder(folder: Path) -> CLIPTextModel:
    """The trained text encoder, frozen.

    Raises:
        FileNotFoundError: it has not been trained.
    """
    if not (folder / "text_encoder" / "config.json").is_file():
        raise FileNotFoundError(
            f"no text encoder in {folder}: train it with python -m experiments.avatars_teacher.text"
        )
    return CLIPTextModel.from_pretrained(folder / "text_encoder").eval().requires_grad_(False)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.avatars_teacher.text", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/avatars"))
    parser.add_argument("--iterations", type=int, default=TextRecipe().iterations)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    train_text_encoder(arguments.out, TextRecipe(iterations=arguments.iterations))


if __name__ == "__main__":
    main()
