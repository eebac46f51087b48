"""The paper's results (SNOOPI, arXiv 2412.02687), by table, for comparison.

Names of rows are the `--title` of `generate`, with " + NASA" for images made with NASA. Removal is in percent, before
and after NASA.
"""

from __future__ import annotations

TABLE_1 = {"kappa 2": 10.77, "kappa 3": 9.60, "kappa 4": 10.35, "kappa 5": 11.53, "kappa ~ U(2, 5)": 9.86}
TABLE_2 = {"neither": 10.72, "teacher only": 10.81, "LoRA teacher only": 9.51, "both": 9.03}

# HPSv2: anime, photo, concept art, paintings, average
TABLE_4_8: dict[str, tuple[float, float, float, float, float]] = {
    "SD1.5 25 steps": (26.51, 27.19, 26.06, 26.12, 26.47),
    "InstaFlow-0.9B": (26.10, 26.62, 25.92, 25.95, 26.15),
    "InstaFlow-0.9B + NASA": (26.24, 26.74, 26.04, 26.00, 26.26),
    "DMD2 SD1.5": (26.39, 27.00, 25.80, 25.83, 26.26),
    "DMD2 SD1.5 + NASA": (26.41, 27.02, 25.80, 25.83, 26.27),
    "PG-SB SD1.5": (27.18, 27.58, 26.69, 26.62, 27.02),
    "PG-SB SD1.5 + NASA": (27.19, 27.59, 26.71, 26.63, 27.03),
    "SD2.1 25 steps": (27.48, 26.89, 26.86, 27.46, 27.17),
    "SwiftBrush": (26.91, 27.21, 26.32, 26.37, 26.70),
    "SwiftBrush v2": (27.25, 27.62, 26.86, 26.77, 27.13),
    "SwiftBrush v2 + NASA": (27.45, 27.85, 26.93, 27.09, 27.33),
    "PG-SB SD2.1": (27.56, 27.84, 26.97, 27.03, 27.35),
    "PG-SB SD2.1 + NASA": (27.71, 27.99, 27.14, 27.27, 27.53),
    "PixArt-alpha 20 steps": (29.62, 29.17, 28.79, 28.69, 29.07),
    "YOSO-PixArt": (28.79, 28.09, 28.57, 28.55, 28.50),
    "YOSO-PixArt + NASA": (28.80, 28.10, 28.62, 28.57, 28.52),
    "PixArt-DMD": (29.31, 28.67, 28.46, 28.41, 28.71),
    "PixArt-DMD + NASA": (29.34, 28.71, 28.50, 28.52, 28.77),
    "PG-SB PixArt": (32.19, 29.09, 30.39, 29.69, 30.34),
    "PG-SB PixArt + NASA": (32.56, 29.55, 31.24, 30.96, 31.08),
}
STYLES = {"anime": "anime", "photo": "photo", "concept-art": "concept art", "paintings": "paintings"}

# FID, CLIP score, precision, recall
TABLE_5: dict[str, tuple[float, float, float, float]] = {
    "PG-SB SD1.5": (10.08, 0.31, 0.57, 0.47),
    "PG-SB SD1.5 + NASA": (9.94, 0.31, 0.57, 0.48),
    "PG-SB SD2.1": (8.91, 0.34, 0.57, 0.49),
    "PG-SB SD2.1 + NASA": (8.83, 0.34, 0.57, 0.50),
    "PG-SB PixArt": (22.03, 0.33, 0.52, 0.24),
    "PG-SB PixArt + NASA": (21.98, 0.33, 0.52, 0.25),
    "SwiftBrush": (15.46, 0.30, 0.47, 0.46),
    "SwiftBrush v2": (8.14, 0.32, 0.57, 0.52),
    "DMD2 SD1.5": (8.29, 0.30, 0.59, 0.52),
    "InstaFlow-0.9B": (13.33, 0.30, 0.53, 0.45),
    "YOSO-PixArt": (26.04, 0.30, 0.46, 0.30),
    "PixArt-DMD": (30.22, 0.32, 0.55, 0.18),
}

# by model, in the order of PAIRS["paper"]
TABLE_7: dict[str, tuple[tuple[int, int], ...]] = {
    "SDXL-LCM, 4 steps": ((52, 99), (48, 100), (55, 100), (45, 92), (36, 100), (64, 100)),
    "SDXL-DMD2, 4 steps": ((26, 100), (74, 100), (44, 100), (56, 100), (12, 100), (88, 100)),
    "SDXL-DMD2, 1 step": ((29, 100), (71, 100), (7, 100), (93, 100), (60, 100), (40, 100)),
    "PG-SB, 1 step": ((42, 81), (58, 88), (39, 96), (61, 79), (32, 99), (68, 99)),
}
