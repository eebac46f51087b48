"""`python -m training.export`: write a run's student, or any model, as the one file that PG-SB Loader opens."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from training.config import find_file, looks_like_hub_id
from training.console import long_step, run_command, set_up_console


def main(arguments: list[str] | None = None) -> int:
    set_up_console()
    parser = _parser()
    args = parser.parse_args(arguments)
    given = {name for name, value in vars(args).items() if value != parser.get_default(name)}
    return run_command(lambda: _export(args, find_file(args.source), given), stopped="nothing was written")


def _export(args: argparse.Namespace, source: Path, given: set[str]) -> int:
    nothing = f"{args.source!r} is no run folder, no checkpoint of a run and no model on this machine"
    if args.out.suffix != ".safetensors":
        raise ValueError(f"--out is {str(args.out)!r}, expected the name of a file that ends in .safetensors")
    if not source.exists() and not looks_like_hub_id(args.source):
        raise FileNotFoundError(
            f"{nothing}: looked for {source.absolute()}. Expected a run folder such as runs/mine, one of its "
            "checkpoints, a diffusers folder, a .safetensors file, or a hub id such as owner/name"
        )
    if args.alpha is not None and not 0 <= args.alpha < math.inf:
        raise ValueError(f"--alpha is {args.alpha}, expected a number from 0 on")
    if (source / "state.json").is_file():
        kind, unused = "checkpoint of a run", {"title", "text_encoder", "vae", "checkpoint"}
    elif (source / "checkpoints").is_dir():
        kind, unused = "run", {"title", "text_encoder", "vae"}
    else:
        kind, unused = "model", {"checkpoint", "teacher"}
    if wrong := sorted(given & unused):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in wrong)
        raise ValueError(f"{args.source} is a {kind}, for which {names} has no effect; give the command without")
    with long_step("starting torch and other libraries"):  # they take ten seconds, which wrong arguments need not wait
        from snoopi_core.formats.checkpoint import find_metadata
        from snoopi_core.formats.lora import find_lora_metadata
        from snoopi_core.formats.tensor_file import open_tensor_file
        from training.models.loading import load_backbone
        from training.trainer.export import export_backbone, export_run, teacher_provenance, with_load_lora
    if source.is_file() and source.suffix == ".safetensors":
        own = find_metadata(open_tensor_file(source, "file"))
        if own is not None and own.role == "student":  # its recipe and origin would be lost
            raise ValueError(
                f"{args.source} is an exported student, which PG-SB Loader opens as it is. To export it anew, give its "
                "run's folder; `python -m training.evaluate alpha` measures its alpha and writes it into the file"
            )
    with long_step(f"exporting {args.source}"):
        if kind != "model":
            path, summary = export_run(source, args.checkpoint, args.out, alpha=args.alpha, teacher=args.teacher)
            print(summary)
        else:
            try:
                backbone = load_backbone(args.source, text_encoder=args.text_encoder, vae=args.vae, t5=None)
            except FileNotFoundError as error:
                raise error if source.exists() else FileNotFoundError(f"{nothing}; {error}") from error
            about = {"title": args.title, "recommended_alpha": args.alpha, "provenance": teacher_provenance(source)}
            path = export_backbone(args.out, backbone, role="teacher", **about)
    metadata, size = find_lora_metadata(open_tensor_file(path, "file")), path.stat().st_size / 1e6
    models = "checkpoints" if metadata is None else "loras"
    print(f"{path}: {size:.1f} MB; put it into ComfyUI/models/{models} and open it with PG-SB Loader")
    if metadata is not None:
        print(with_load_lora(metadata))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.export", description=__doc__)
    parser.add_argument(
        "source", help="a run folder, one of its checkpoints, or a model: diffusers folder, hub id or single file"
    )
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument(
        "--checkpoint",
        default="best",
        help="of a run: best: the latest, unless samples of a kept one were clearly nearer to the teacher's, or more "
        "diverse; latest; or its name, such as step-00001000, or the path of its folder (default: best)",
    )
    parser.add_argument(
        "--alpha", type=float, help="recommended NASA alpha to write into the file; 0 = no negative prompt"
    )
    parser.add_argument("--title", default="Teacher", help="title of a teacher's file")
    parser.add_argument("--teacher", default="", help="of a run whose teacher was moved: its path now")
    for part in ("text-encoder", "vae"):
        parser.add_argument(f"--{part}", default="", help="of a model: diffusers folder or hub id to take it from")
    return parser


if __name__ == "__main__":
    sys.exit(main())
