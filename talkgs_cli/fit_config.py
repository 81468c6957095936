"""The settings of `fit`'s renderer and its presets: a frozen dataclass, presets as named instances.

`talkgs_cli.config` holds the other stages' settings and reads them all from JSON.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from talkgs_cli.errors import UsageError
from talkgs_cli.runtime import check_seed

EMBEDDINGS = ("modes", "head", "off")
LIMIT_UNITS = ("pixels", "triangles")


@dataclass(frozen=True)
class FitConfig:
    """How a speaker's Gaussians are optimised. Lengths and learning rates are per crop pixel."""

    preset: str = "custom"
    device: str = "auto"
    seed: int = 0
    # Optimiser steps, one frame each.
    iterations: int = 3000
    # Stop optimising after this many minutes, whatever `iterations` says; None: no limit.
    minutes: float | None = None

    # -- frames --------------------------------------------------------------------------------
    # Until this share of the fit frames are halved, where the face's window is wide enough.
    coarse_until: float = 0.0
    # This share of the training frames, one block, is not learnt from: it chooses the best weights.
    validation_share: float = 0.04
    # Steps between two looks at the validation block.
    validate_every: int = 500
    # Only weights from this share of the fit on can be the best: before, rates are still high, and
    # a few frames like noisy weights by chance.
    judged_from: float = 0.75

    # A frame of the quarter with the widest mouths is drawn so many times an epoch, any other once:
    # what they alone show, teeth and tongue, is learnt from few.
    wide_mouth_draws: int = 3
    # Frames with shut eyes are drawn until they make up this share of an epoch, but none more than
    # eight times: they are few, and shut lids are learnt from them alone.
    shut_eye_share: float = 0.08

    # -- model ---------------------------------------------------------------------------------
    # Number of Gaussians at the start; the paper's Q_init.
    gaussians: int = 10522
    # Order of the spherical harmonics; the paper's k is 3 (see docs/deviations.md).
    sh_degree: int = 1
    # Speaker-specific BlendShapes: off leaves Gaussians that only follow their triangles.
    blendshapes: bool = True
    # The blendshapes colour teeth but never move them: upper ones stay with the skull, lower ones
    # with the jaw.
    rigid_teeth: bool = True
    # Move the head model's lower teeth to where open mouths show them.
    place_teeth: bool = True
    # Learnable head embedding: "modes" (pose and the clip's own vertex modes), "head" (the head
    # model's expression, jaw, orientation and translation, as the paper has it) or "off".
    embedding: str = "modes"
    # With "head": a small shape residual per frame as well.
    shape_residual: bool = False
    # Where the light of the clip changes, renders follow it: a gain of every colour channel per
    # frame, measured before the fit.
    follow_light: bool = True
    # Gaussians are this much denser round lips and eyes, on teeth and eyeballs, and on the tongue.
    density_lips_eyes: float = 2.5
    density_teeth_eyeballs: float = 4.0
    density_tongue: float = 1.0

    # -- losses --------------------------------------------------------------------------------
    l1_weight: float = 0.8
    ssim_weight: float = 0.2
    lpips_weight: float = 0.2
    # LPIPS joins after this share of the fit, every `lpips_every` steps, on a patch of this side.
    lpips_from: float = 0.5
    lpips_every: int = 2
    lpips_patch: int = 192
    # Share of these patches that lie round the mouth.
    lpips_mouth_share: float = 0.5
    # Rendered alpha against the facial-region mask (the paper's L_seg).
    alpha_weight: float = 0.1
    # Weight of pixels in the mouth box; 1 turns the mouth's own loss off.
    mouth_weight: float = 2.0
    # Unit of the two limits below: pixels, or the size of the Gaussian's triangle (the paper's).
    limits_in: str = "pixels"
    # Distance from the triangle beyond this is pulled back (the paper's lambda_p, epsilon_p).
    position_weight: float = 0.01
    position_limit: float = 2.0
    # Scales beyond this are pulled back (lambda_s, epsilon_s); in pixels: times the largest start.
    scale_weight: float = 0.1
    scale_limit: float = 1.5
    # Standard deviation of noise on the driving code, in the code's own standard deviations.
    code_noise: float = 0.0

    # -- afterwards ----------------------------------------------------------------------------
    # Lay grain over every render, half of what the training frames have more than their renders.
    grain: bool = True

    # -- learning rates ------------------------------------------------------------------------
    lr_barycentric: float = 3e-3
    lr_offset: float = 1.5e-2
    lr_quats: float = 2e-3
    lr_scales: float = 5e-3
    lr_opacities: float = 2e-2
    lr_sh0: float = 8e-3
    lr_sh_rest: float = 8e-4
    lr_position_basis: float = 4e-3
    lr_rotation_basis: float = 5e-4
    lr_color_basis: float = 2e-3
    lr_w_gamma: float = 1e-3
    lr_w_pos: float = 1e-3
    lr_w_rot: float = 1e-3
    lr_w_color: float = 1e-3
    lr_motion: float = 5e-2
    # The paper's rates of the head embedding, used by embedding "head".
    lr_shape: float = 1e-4
    lr_expression: float = 1e-3
    lr_jaw: float = 1e-4
    lr_orient: float = 1e-5
    lr_translation: float = 1e-5
    # The learnable head embedding joins after this share of the fit.
    motion_from: float = 0.12
    # Rates fall to this share, from `decay_from` of the fit on.
    decay_to: float = 0.1
    decay_from: float = 0.3
    # The deployed weights are a running mean over about this many steps; 0: the last ones.
    mean_of_steps: int = 0

    # -- density control -----------------------------------------------------------------------
    # Steps between two rounds of splitting and pruning; 0: the number of Gaussians stays.
    densify_every: int = 0
    densify_from: float = 0.1
    densify_until: float = 0.5
    # Split or copy where the mean screen gradient per visit exceeds this.
    densify_gradient: float = 8e-4
    # Never more Gaussians than this, whatever the gradients say: it bounds memory and time.
    max_gaussians: int = 60000
    # Gaussians more transparent than this are dropped.
    prune_opacity: float = 0.005

    # -- safety --------------------------------------------------------------------------------
    # A checkpoint is written this often.
    checkpoint_every_s: float = 30.0
    # fit/preview.png is made once this much time is spent.
    preview_after_s: float = 60.0

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cpu", "cuda"):
            raise UsageError(f"device is {self.device!r}: 'auto', 'cpu' or 'cuda'.")
        if self.iterations < 1 or self.gaussians < 100:
            raise UsageError("fit needs at least 1 iteration and 100 Gaussians.")
        check_seed(self.seed)
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise UsageError(f"minutes is {self.minutes}: it must be a number above 0.")
        if not 0 <= self.sh_degree <= 3:
            raise UsageError(f"sh_degree is {self.sh_degree}: 0 to 3.")
        if self.embedding not in EMBEDDINGS:
            raise UsageError(f"embedding is {self.embedding!r}: {', '.join(EMBEDDINGS)}.")
        if self.wide_mouth_draws < 1:
            raise UsageError(f"wide_mouth_draws is {self.wide_mouth_draws}: at least 1.")
        if not 0 <= self.shut_eye_share <= 0.5:
            raise UsageError(f"shut_eye_share is {self.shut_eye_share}: 0 to 0.5.")
        if self.limits_in not in LIMIT_UNITS:
            raise UsageError(f"limits_in is {self.limits_in!r}: {', '.join(LIMIT_UNITS)}.")
        if not 0 <= self.validation_share <= 0.5 or self.validate_every < 1:
            raise UsageError("validation_share is 0 to 0.5, validate_every at least 1.")
        if not 0 <= self.judged_from <= 1:
            raise UsageError(f"judged_from is {self.judged_from}: 0 to 1.")
        if self.max_gaussians < self.gaussians:
            raise UsageError(
                f"max_gaussians is {self.max_gaussians}, fewer than the start's {self.gaussians}."
            )


STANDARD = FitConfig(
    preset="standard",
    iterations=5000,
    gaussians=16000,
    lpips_weight=0.8,
    lpips_from=0.25,
    lpips_every=1,
    code_noise=0.2,
    mean_of_steps=120,
)

PAPER = FitConfig(
    preset="paper",
    iterations=30000,
    sh_degree=3,
    wide_mouth_draws=1,
    shut_eye_share=0.0,
    rigid_teeth=False,
    place_teeth=False,
    follow_light=False,
    grain=False,
    embedding="head",
    shape_residual=True,
    motion_from=0.0,
    density_lips_eyes=1.0,
    density_teeth_eyeballs=1.0,
    l1_weight=1.0,
    lpips_weight=0.1,
    ssim_weight=0.2,
    lpips_from=0.0,
    lpips_every=1,
    lpips_patch=1024,
    lpips_mouth_share=0.0,
    alpha_weight=0.5,
    mouth_weight=1.0,
    limits_in="triangles",
    position_weight=0.1,
    position_limit=0.05,
    scale_weight=0.1,
    scale_limit=2.0,
    lr_barycentric=1.6e-4,
    lr_offset=1.6e-4,
    lr_scales=5e-3,
    lr_quats=1e-3,
    lr_opacities=5e-2,
    lr_sh0=2.5e-3,
    lr_sh_rest=2.5e-3,
    lr_w_gamma=1e-4,
    lr_w_pos=1.6e-4,
    lr_w_rot=1e-3,
    lr_w_color=5e-4,
    lr_position_basis=1.6e-4,
    lr_rotation_basis=1e-3,
    lr_color_basis=5e-4,
    decay_to=1.0,
    densify_every=500,
)
"""The supplement's tables 1 and 2 to the letter; what they leave open is in docs/deviations.md."""

FIT_PRESETS = {
    "draft": FitConfig(
        preset="draft", iterations=1200, lpips_weight=0.5, code_noise=0.2, mean_of_steps=60
    ),
    "standard": STANDARD,
    "fine": replace(STANDARD, preset="fine", iterations=12000, gaussians=24000),
    "paper": PAPER,
    # For a card: more steps and Gaussians in the same minutes. Nobody has run these on one yet.
    "cuda-standard": replace(
        STANDARD, preset="cuda-standard", device="cuda", iterations=15000, gaussians=20000
    ),
    "cuda-fine": replace(
        STANDARD, preset="cuda-fine", device="cuda", iterations=60000, gaussians=40000
    ),
}
