"""`python -m training.export`: write a run's student, or any model, as the one file that PG-SB Loader opens."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from snoopi_core.formats.lora import find_lora_metadata
from snoopi_core.formats.tensor_file import open_tensor_file
from training.config import find_file
from training.models.loading import load_backbone
from training.trainer.export import export_backbone, export_run, teacher_provenance


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.export", description=__doc__)
    parser.add_argument(
        "source", help="a run folder, one of its checkpoints, or a model: diffusers folder, hub id or single file"
    )
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument(
        "--checkpoint",
        default="latest",
        help="of a run: latest; best, whose samples are nearest to the teacher's; or a name such as step-00001000 "
        "(default: latest)",
    )
    parser.add_argument("--alpha", type=float, help="recommended NASA alpha to write into the file")
    parser.add_argument("--title", default="Teacher", help="title of a teacher's file")
    parser.add_argument("--teacher", default="", help="of a run whose teacher was moved: its path now")
    for part in ("text-encoder", "vae"):
        parser.add_argument(f"--{part}", default="", help="of a model: diffusers folder or hub id to take it from")
    args = parser.parse_args(arguments)
    source = find_file(args.source)
    try:
        if (source / "state.json").is_file() or (source / "checkpoints").is_dir():
            path, summary = export_run(source, args.checkpoint, args.out, alpha=args.alpha, teacher=args.teacher)
            print(summary)
        else:
            backbone = load_backbone(args.source, text_encoder=args.text_encoder, vae=args.vae, t5=None)
            about = {"title": args.title, "recommended_alpha": args.alpha, "provenance": teacher_provenance(source)}
            path = export_backbone(args.out, backbone, role="teacher", **about)
    except (OSError, ValueError) as error:
        hint = "" if source.exists() else "; a run folder or one of its checkpoints is accepted too"
        print(f"error: {error}{hint}", file=sys.stderr)
        return 2
    models = "checkpoints" if find_lora_metadata(open_tensor_file(path, "file")) is None else "loras"
    size = path.stat().st_size / 1e6
    print(f"{path}: {size:.1f} MB; put it into ComfyUI/models/{models} and open it with PG-SB Loader")
    return 0


if __name__ == "__main__":
    sys.exit(main())
