"""`python -m training.export`: write a run's student, or any model, as the one file that PG-SB Loader opens."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from training.config import find_file, looks_like_hub_id
from training.console import long_step, report, set_up_console


def main(arguments: list[str] | None = None) -> int:
    set_up_console()
    args = _parser().parse_args(arguments)
    try:
        return _export(args, find_file(args.source))
    except (OSError, ValueError) as error:
        return report(error)
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 130


def _export(args: argparse.Namespace, source: Path) -> int:
    nothing = f"{args.source!r} is no run folder, no checkpoint of a run and no model on this machine"
    if args.out.suffix != ".safetensors":
        raise ValueError(f"--out is {str(args.out)!r}, expected the name of a file that ends in .safetensors")
    if not source.exists() and not looks_like_hub_id(args.source):
        raise FileNotFoundError(
            f"{nothing}: looked for {source.absolute()}. Expected a run folder such as runs/mine, one of its "
            "checkpoints, a diffusers folder, a .safetensors file, or a hub id such as owner/name"
        )
    with long_step("starting torch and other libraries"):  # they take ten seconds, which wrong arguments need not wait
        from snoopi_core.formats.lora import find_lora_metadata
        from snoopi_core.formats.tensor_file import open_tensor_file
        from training.models.loading import load_backbone
        from training.trainer.export import export_backbone, export_run, teacher_provenance, with_load_lora
    with long_step(f"exporting {args.source}"):
        if (source / "state.json").is_file() or (source / "checkpoints").is_dir():
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
        "diverse; latest; or a name such as step-00001000 (default: best)",
    )
    parser.add_argument("--alpha", type=float, help="recommended NASA alpha to write into the file")
    parser.add_argument("--title", default="Teacher", help="title of a teacher's file")
    parser.add_argument("--teacher", default="", help="of a run whose teacher was moved: its path now")
    for part in ("text-encoder", "vae"):
        parser.add_argument(f"--{part}", default="", help="of a model: diffusers folder or hub id to take it from")
    return parser


if __name__ == "__main__":
    sys.exit(main())
